"""How much maintenance may be opened (LIVENESS.md 4).

At most 60 minutes per workload and UTC day, the owner's and the operator's windows together (their union
counts once); an ordered update at most 10 minutes; opened before it begins. At most 24 of them, and none
shorter than a minute unless of an ordered update: each starts deadlines afresh when it ends. Who keeps
windows, and what they do to verdicts and uptime, is written elsewhere (storage, engine/windows.py,
compose.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Protocol

from engine.core.people import Act
from engine.core.ports import WindowRefusedError
from engine.core.records import Window

DAY_MS = 86_400_000
PER_DAY_MS_MAX = 60 * 60_000
UPDATE_MS_MAX = 10 * 60_000
LENGTH_MS_MIN = 60_000
PER_DAY_MAX = 24  # windows of a workload that touch a UTC day, those that were ended or taken back with them
AHEAD_MS_MAX = 366 * DAY_MS


def days_of(window: Window) -> tuple[int, int]:
    """[from, to) in unix ms of the UTC days that a window touches: what else lies in them counts with it."""
    return window.from_ms // DAY_MS * DAY_MS, -(-window.to_ms // DAY_MS) * DAY_MS


def check_window(
    new: Window, *, opened: Iterable[Window], taken_back: Iterable[Window] = (), update: bool, now_ms: int
) -> None:
    """Raise WindowRefusedError for a window that is late, empty, or too much beside what is opened.

    opened: the windows of the same node and its living workloads within days_of(new).
    taken_back: those that never began, because somebody took them back. They take no time of the day, but
    count among its windows: else opening and taking back could go on for ever.
    update: it is for an ordered update.
    """
    _check_form(new, update=update, now_ms=now_ms)
    opened, taken_back = list(opened), list(taken_back)
    # A window of the whole node is one of each workload; those without windows of their own are alike.
    touched = (
        {new.workload_id}
        if new.workload_id is not None
        else {one.workload_id for one in (*opened, *taken_back)} | {None}
    )
    for workload_id in touched:
        of = (None, workload_id)
        others = [one for one in opened if one.workload_id in of]
        _check_days(new, others, workload_id)
        _check_count(new, [*others, *(one for one in taken_back if one.workload_id in of)], workload_id)


def _check_form(new: Window, *, update: bool, now_ms: int) -> None:
    if new.from_ms < now_ms:
        raise WindowRefusedError("a maintenance window is opened before it begins: choose a later beginning")
    if new.from_ms > now_ms + AHEAD_MS_MAX:
        raise WindowRefusedError(
            "a maintenance window begins within 366 days: choose an earlier beginning, or open it later"
        )
    if new.to_ms <= new.from_ms:
        raise WindowRefusedError("a maintenance window ends after it begins: choose a later end")
    if not update and new.to_ms - new.from_ms < LENGTH_MS_MIN:
        raise WindowRefusedError("a maintenance window has a minute at least: choose a later end")
    if update and new.own:
        raise WindowRefusedError("an ordered update is not the operator's own maintenance: it is one of both")
    if update and new.to_ms - new.from_ms > UPDATE_MS_MAX:
        raise WindowRefusedError("a window for an ordered update may have 10 minutes: shorten it")


def _check_count(new: Window, others: list[Window], workload_id: str | None) -> None:
    begin_ms, end_ms = days_of(new)
    for day_ms in range(begin_ms, end_ms, DAY_MS):
        there = sum(1 for one in others if one.from_ms < day_ms + DAY_MS and one.to_ms > day_ms)
        if there >= PER_DAY_MAX:
            raise WindowRefusedError(
                f"there are {there} windows{_of(workload_id)} on {_date(day_ms)} (UTC), {PER_DAY_MAX} at "
                "most per workload and day, those taken back too: open longer ones or choose another day"
            )


def _of(workload_id: str | None) -> str:
    return f" of workload {workload_id}" if workload_id else ""


def _date(day_ms: int) -> date:
    return datetime.fromtimestamp(day_ms / 1000, UTC).date()


def _check_days(new: Window, others: list[Window], workload_id: str | None) -> None:
    spans = [(one.from_ms, one.to_ms) for one in (new, *others)]
    begin_ms, end_ms = days_of(new)
    for day_ms in range(begin_ms, end_ms, DAY_MS):
        used_ms = _union_ms(spans, day_ms, day_ms + DAY_MS)
        if used_ms > PER_DAY_MS_MAX:
            raise WindowRefusedError(
                f"with this window {used_ms / 60_000:g} minutes of maintenance{_of(workload_id)} on "
                f"{_date(day_ms)} (UTC), 60 at most per workload and day: shorten it or choose another day"
            )


def _union_ms(spans: Iterable[tuple[int, int]], from_ms: int, to_ms: int) -> int:
    total, reached = 0, from_ms
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, to_ms)
        if end > start:
            total += end - start
            reached = end
    return total


class Windows(Protocol):
    """Windows as people look at them and take them back; opened they are by `Directory.open_window`."""

    async def of_node(
        self, node_id: str, *, from_ms: int, to_ms: int, after: str | None, limit: int
    ) -> list[Window]:
        """Those of the node and of its workloads that touch [from_ms, to_ms), by id."""
        ...

    async def window(self, node_id: str, window_id: str) -> Window | None: ...

    async def end(self, node_id: str, window_id: str, *, act: Act) -> Window | None:
        """One that has not begun is gone (None); one that is open ends now.

        WindowRefusedError when it is over, or no window of the node: what has passed is never changed.
        """
        ...
