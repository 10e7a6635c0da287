"""`/v1/projects/{slug}/days`: a project's days and how far each is closed, for whoever runs it.

A day runs, waits for its seal (and for what: LIVENESS.md 6), is sealed, has its points committed, or has had
them corrected. What is in a seal is seals.py's, what is in a commit points_reads.py's.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple

import msgspec
from quart import Response, request

from engine.core.ledger import Commit
from engine.core.people import Principal
from engine.core.ports import Project
from engine.core.sealed import Seal, SealProgress
from engine.core.sealing import Condition, conditions
from storage.datagram import SETTLED_MS
from web import sight
from web.backend import Backend
from web.days import day_text
from web.paging import PARAMETERS, limit_parameter, link_headers
from web.points_answers import CommitAnswer, answer_of
from web.problems import bad_parameter, not_found
from web.routing import Answer, Route, reply_polled
from web.seals import SealAnswer, seal_answer
from web.times import DAY_MS, format_rfc3339, parse_day

DayState = Literal["running", "waiting", "sealed", "committed", "corrected"]


class ConditionAnswer(msgspec.Struct, frozen=True):
    """One thing that a day waits for before it is sealed. `lacks`: what is missing, empty when it is there.

    `what`: view | history | after_midnight | gaps | degraded, each of a `shard`; leases; turn: older days are
    sealed first; source: figures of the day may still change."""

    what: str
    shard: int | None
    lacks: str


class ProjectDay(msgspec.Struct, frozen=True, kw_only=True):
    """A day. `seal`: its newest; `commit`: that counts, without whom it changed; `outdated`: the day has been
    sealed once more since. `waits_for`: the first thing that a day that is over lacks to be sealed; empty:
    nothing, it is sealed within seconds."""

    day: str
    state: DayState
    ends_at: str
    waits_for: str | None
    seal: SealAnswer | None
    commit: CommitAnswer | None
    outdated: bool


class ProjectDayDetail(ProjectDay, frozen=True, kw_only=True):
    """`conditions`: all that a day that is over and not sealed waits for, also what is there."""

    conditions: list[ConditionAnswer]


class ProjectDaysAnswer(msgspec.Struct, frozen=True):
    """A page of days, the newest first, from the project's first workload on."""

    items: list[ProjectDay]
    next_cursor: str | None


class _Known(NamedTuple):
    """What is known of some days of a project."""

    progress: SealProgress
    seals: dict[str, Seal]
    commits: dict[str, Commit]


async def list_project_days(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    limit, newest = limit_parameter(), _today(backend)
    if (before := request.args.get("after")) is not None:
        newest = min(newest, _beside(_cursor(before), -1))
    progress = await backend.stores.seals.progress(project.project_id)
    wanted = _days(progress.first_day, newest, limit + 1)
    page = wanted[:limit]
    items: list[ProjectDay] = []
    if page:
        known = await _known(backend, project, progress, page)
        items = [await _day(backend, project, known, each) for each in page]
    cursor = str(page[-1]) if len(wanted) > limit else None
    answer = reply_polled(ProjectDaysAnswer(items, cursor))
    answer.headers.update(link_headers(cursor))
    return answer


async def get_project_day(backend: Backend, caller: Principal, *, slug: str, day: str) -> Response:
    project = await sight.project(backend, caller, slug)
    try:
        wanted = date.fromisoformat(day_text(day))
    except ValueError as error:
        raise not_found("day") from error
    progress = await backend.stores.seals.progress(project.project_id)
    first = progress.first_day
    if first is None or not date.fromisoformat(first) <= wanted <= _today(backend):
        raise not_found("day")
    known = await _known(backend, project, progress, [wanted])
    told = await _day(backend, project, known, wanted)
    lacking = await _conditions(backend, project, progress, told.day) if told.state == "waiting" else []
    detail = ProjectDayDetail(
        **{name: getattr(told, name) for name in ProjectDay.__struct_fields__},
        conditions=[ConditionAnswer(each.what, each.shard, each.lacks) for each in lacking],
    )
    return reply_polled(detail)


def _today(backend: Backend) -> date:
    """The day that runs by the clock of all shards."""
    return datetime.fromtimestamp(backend.heads.recorded_now_ms() / 1000, UTC).date()


def _cursor(text: str) -> date:
    try:
        return date.fromisoformat(day_text(text))
    except ValueError as error:
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page") from error


def _beside(day: date, step: int) -> date:
    try:
        return day + timedelta(days=step)
    except OverflowError:
        return day


def _days(first_day: str | None, newest: date, count: int) -> list[date]:
    """At most so many days down from the newest, not before the first."""
    if first_day is None:
        return []
    number = min(count, (newest - date.fromisoformat(first_day)).days + 1)
    return [newest - timedelta(days=back) for back in range(number)]


async def _known(backend: Backend, project: Project, progress: SealProgress, days: list[date]) -> _Known:
    """Of these days, which follow one another, the newest first."""
    after = str(_beside(days[0], 1))
    seals = await backend.stores.seals.seals(project.project_id, before=after, limit=len(days))
    commits = await backend.stores.ledger.by_day(
        project.project_id, str(days[-1]), after, after=None, limit=len(days)
    )
    newest: dict[str, Seal] = {}
    for seal in seals:  # the newest revision of a day comes first
        newest.setdefault(seal.day, seal)
    return _Known(progress, newest, {commit.day: commit for commit in commits})


async def _day(backend: Backend, project: Project, known: _Known, day: date) -> ProjectDay:
    text = str(day)
    seal, commit = known.seals.get(text), known.commits.get(text)
    end_ms = parse_day(text) + DAY_MS
    waits_for = None
    if seal is None and day < _today(backend):
        lacking = await _conditions(backend, project, known.progress, text)
        waits_for = next((each.lacks for each in lacking if each.lacks), "")
    return ProjectDay(
        day=text,
        state=_state(seal, commit, running=waits_for is None and seal is None),
        ends_at=format_rfc3339(end_ms),
        waits_for=waits_for,
        seal=None if seal is None else seal_answer(seal),
        commit=None if commit is None else answer_of(project.slug, commit, []),
        outdated=seal is not None and commit is not None and commit.seal_revision < seal.revision,
    )


def _state(seal: Seal | None, commit: Commit | None, *, running: bool) -> DayState:
    if commit is not None:
        return "corrected" if commit.revision > 1 else "committed"
    if seal is not None:
        return "sealed"
    return "running" if running else "waiting"


async def _conditions(
    backend: Backend, project: Project, progress: SealProgress, day: str
) -> list[Condition]:
    """What a day that is over waits for, in the order in which it is looked at."""
    if progress.due_day is not None and progress.due_day < day:
        lacks = f"days are sealed in order, and {progress.due_day} is not yet"
        return [Condition("turn", None, lacks)]
    end_ms = parse_day(day) + DAY_MS
    told = {shard: backend.heads.head(shard) for shard in range(backend.shards)}
    found = conditions(
        end_ms=end_ms,
        after_ms=backend.seal_after_ms,
        shards=backend.shards,
        watermarks=progress.watermarks,
        leases_ms=await backend.stores.leases.decided_ms(shards=backend.shards),
        heads={shard: head for shard, head in told.items() if head is not None},
    )
    policy = await backend.stores.projects.policy_at(project.project_id, date.fromisoformat(day))
    if policy.uptime_source == "datagram":
        early = backend.clock() < end_ms + SETTLED_MS
        found.append(
            Condition("source", None, "Datagram's figures of this day may still change" if early else "")
        )
    return found


_PATH = "/v1/projects/{slug}/days"
ROUTES = (
    Route(
        method="GET",
        path=_PATH,
        handler=list_project_days,
        summary="A project's days, the newest first: how far each is closed",
        tag="seals",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of days", type=ProjectDaysAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{day}}",
        handler=get_project_day,
        summary="A day, and what it waits for before it is sealed",
        tag="seals",
        answers={200: Answer(description="The day", type=ProjectDayDetail)},
        refusals=(404,),
    ),
)
