"""Daily and weekly reports by mail, as jobs of the schedule: each person hears once of each period.

A report waits for the seals of its days, but not for ever: what is not sealed by then is said to be so. It
goes through the outbox under an id made of person, job and due time, so doing a run again tells nobody twice.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta

from engine.core.news import Notice
from engine.core.outbox import Outbox
from engine.core.reports import DaySum, Reader, Reports
from engine.core.sealed import DAY_MS
from worker.report_words import Part, html, text, title
from worker.schedule import Later

READERS_PAGE = 200
LOOK_AGAIN_MS = 300_000  # for seals that are missing
SHOWN_DAYS = {False: 14, True: 28}  # of the picture, by whether it is the weekly one
UNSEALED_NAMED_MAX = 5
KEPT_MS = 60 * DAY_MS  # of the sums


class Reporting:
    """One job; `weekly`: of the seven days before the due time's, else of the one."""

    def __init__(self, *, reports: Reports, outbox: Outbox, weekly: bool, wait_ms: int) -> None:
        """`wait_ms`: how long to wait for seals, from when the run was first begun."""
        self._reports = reports
        self._outbox = outbox
        self._weekly = weekly
        self._wait_ms = wait_ms

    async def __call__(self, *, due_ms: int, first_ms: int, now_ms: int) -> str | Later:
        """StoreUnavailableError."""
        days = days_before(due_ms, 7 if self._weekly else 1)
        shown = days_before(due_ms, SHOWN_DAYS[self._weekly])
        unsealed = await self._reports.unsealed(days[0], days[-1])
        until_ms = first_ms + self._wait_ms
        if unsealed and now_ms < until_ms:
            named = ", ".join(unsealed[:UNSEALED_NAMED_MAX])
            note = f"{len(unsealed)} projects are not sealed: {named}"
            return Later(min(until_ms, now_ms + LOOK_AGAIN_MS), note)
        while await self._reports.sum_up(shown[0], shown[-1]):
            continue
        return await self._tell_all(due_ms, now_ms, days, shown)

    async def _tell_all(self, due_ms: int, now_ms: int, days: tuple[str, ...], shown: tuple[str, ...]) -> str:
        slugs = await self._reports.slugs()
        begin_ms = due_ms // DAY_MS * DAY_MS - len(days) * DAY_MS
        gaps = await self._reports.gaps(begin_ms, begin_ms + len(days) * DAY_MS)
        points: dict[str, dict[str, int]] = {}
        told, after = 0, None
        while page := await self._reports.readers(
            weekly=self._weekly, after=after, limit=READERS_PAGE, now_ms=now_ms
        ):
            scopes = {reader.user_id for reader in page} | {each for reader in page for each in reader.owns}
            sums = await self._reports.sums(sorted(scopes), shown[0], shown[-1])
            for project_id in {each for reader in page for each in reader.owns} - points.keys():
                points[project_id] = await self._reports.points(project_id, days[0], days[-1])
            notices = []
            for reader in page:
                parts = parts_of(reader, sums, points, slugs, days=days, shown=shown)
                if parts and reader.channels:
                    notice = self._notice(reader, parts, gaps, due_ms=due_ms, now_ms=now_ms, days=days)
                    notices += [(notice, channel_id) for channel_id in reader.channels]
            told += await self._outbox.put(notices, now_ms=now_ms)
            after = page[-1].user_id
        return f"{told} mails"

    def _notice(
        self,
        reader: Reader,
        parts: list[Part],
        gaps: tuple[int, int],
        *,
        due_ms: int,
        now_ms: int,
        days: tuple[str, ...],
    ) -> Notice:
        return Notice(
            notice_id=notice_id(reader.user_id, weekly=self._weekly, due_ms=due_ms),
            form="report",
            kind="report",
            at_ms=now_ms,
            since_ms=due_ms,
            title=title(days),
            text=text(parts, gaps=gaps),
            html=html(parts, gaps=gaps),
        )


def parts_of(
    reader: Reader,
    sums: list[DaySum],
    points: dict[str, dict[str, int]],
    slugs: dict[str, str],
    *,
    days: tuple[str, ...],
    shown: tuple[str, ...],
) -> list[Part]:
    """The reader's projects, then their own nodes by project; what was never sealed is left out."""
    by_scope: dict[tuple[str, str], dict[str, DaySum]] = {}
    for each in sums:
        by_scope.setdefault((each.scope_id, each.project_id), {})[each.day] = each

    def part(words: str, scope_id: str, project_id: str) -> Part | None:
        found = by_scope.get((scope_id, project_id))
        name = slugs.get(project_id, project_id)
        told = points.get(project_id, {}) if scope_id == project_id else None
        if not found:
            return None
        return Part(title=f"{words} {name}", days=days, shown=shown, sums=found, points=told)

    owned = [part("Project", project_id, project_id) for project_id in reader.owns]
    projects = sorted(project_id for scope_id, project_id in by_scope if scope_id == reader.user_id)
    own = [part("Your nodes in", reader.user_id, project_id) for project_id in projects]
    return [each for each in (*owned, *own) if each is not None]


def notice_id(user_id: str, *, weekly: bool, due_ms: int) -> str:
    """The same however often a run is done."""
    what = "weekly" if weekly else "daily"
    return hashlib.blake2b(f"report\0{what}\0{user_id}\0{due_ms}".encode(), digest_size=16).hexdigest()


def days_before(due_ms: int, count: int) -> tuple[str, ...]:
    """The UTC days before the one of the due time, the oldest first."""
    today: date = datetime.fromtimestamp(due_ms / 1000, UTC).date()
    return tuple((today - timedelta(days=back)).isoformat() for back in range(count, 0, -1))
