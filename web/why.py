"""`GET /v1/workloads/{workload_id}/why`: why a workload was not paid on a day.

What each instant was is read as for `/uptime` (reading.py, sources.py), so the sums are the same; which cause
belongs to which interval is engine/core/why.py's. Here: the reading together, who may see what, and shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal

import msgspec
from quart import Response, request

from engine.core.catalog import policy_at
from engine.core.compose import OPEN_END
from engine.core.evidence import ADVICE, REASONS, Surroundings
from engine.core.leases import StandbySpan
from engine.core.people import Principal
from engine.core.ports import WorkloadRecord
from engine.core.records import Gap
from engine.core.why import TEXTS, Around, Cause, Unpaid, What, why
from web import sight
from web.backend import Backend
from web.problems import bad_parameter
from web.reading import Reader
from web.routing import Answer, Parameter, Route, reply
from web.sources import Told, told_uptime
from web.times import DAY_MS, format_rfc3339, parse_day

MEASURED_ELSEWHERE = (
    "That day's uptime was measured by Datagram, which tells whole hours and no causes: "
    "there are no intervals."
)
_Optional = msgspec.UnsetType


class GapCause(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A time in which a shard of ours did not listen. `to` null: not over, or not decided yet."""

    shard: int
    cause: str
    from_: str
    to: str | None


class HolderCause(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Who held the licence. `workload_id` null: not yours to see; `to` null: it still does."""

    licence_id: str
    epoch: int
    workload_id: str | None
    from_: str
    to: str | None


class CauseAnswer(msgspec.Struct, frozen=True):
    """What stands behind an interval; only what belongs to `what` is there.

    `since`: when the state began, perhaps before the interval. `last_beat`: the last one known before it.
    `event_id`: of the event that told of it, null if there was none. `provisional`: it may still change.
    """

    what: What
    text: str
    since: str | _Optional | None = msgspec.UNSET
    last_beat: str | _Optional | None = msgspec.UNSET
    event_id: str | _Optional | None = msgspec.UNSET
    gaps: list[GapCause] | _Optional = msgspec.UNSET
    windows: list[str] | _Optional = msgspec.UNSET
    holders: list[HolderCause] | _Optional = msgspec.UNSET
    provisional: bool | _Optional = msgspec.UNSET


class UnpaidAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    kind: str
    from_: str
    to: str
    seconds: float
    cause: CauseAnswer


class RefusedAnswer(msgspec.Struct, frozen=True):
    """Beats of the node that were refused that day, and what to do about it."""

    reason: str
    count: int
    text: str


class OwnedAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Who owned the licence that the workload ran under: a wallet, lower case."""

    licence_id: str
    owner: str
    from_: str
    to: str


class SealedAnswer(msgspec.Struct, frozen=True):
    """The newest seal of the day; `reason`: why it was sealed again, empty for revision 1."""

    revision: int
    reason: str
    sealed_at: str


class WhyAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A UTC day, cut to the workload's life and to `as_of`: its milliseconds by kind, every unpaid interval.

    `paid_ms`: by the project's policy of that day, which pays for claims or not (`pays_claims`).
    `truncated`: how many further unpaid intervals there are; in `ms` they are counted. `note`: why there are
    no intervals at all.
    """

    workload_id: str
    day: str
    from_: str
    to: str
    as_of: str
    source: Literal["native", "datagram", "mixed"]
    ms: dict[str, int]
    paid_ms: int
    unpaid_ms: int
    pays_claims: bool
    provisional: bool
    sealed: SealedAnswer | None
    unpaid: list[UnpaidAnswer]
    truncated: int
    refused: list[RefusedAnswer]
    owned: list[OwnedAnswer]
    note: str | None


async def get_why(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    workload = await sight.workload(backend, caller, workload_id)
    reader = Reader(backend)
    day, from_ms = _day_parameter(now_ms=reader.now_ms(workload.row))
    told = await told_uptime(backend, workload, reader, from_ms=from_ms, to_ms=from_ms + DAY_MS)
    policies = await backend.policies.of(workload.project_id)
    pays_claims = policy_at(policies, date.fromisoformat(day)).pay_claims
    # After the uptime: an event, seal or refusal that it has to do with is then known.
    surroundings = await backend.stores.evidence.surroundings(workload, day)
    standbys = await _standbys(backend, workload, told)
    unpaid, left_out = _unpaid(told, surroundings, standbys, pays_claims=pays_claims)
    seen = await _seen(backend, caller, workload, unpaid)
    return reply(
        WhyAnswer(
            workload_id=workload.workload_id,
            day=day,
            from_=format_rfc3339(told.from_ms),
            to=format_rfc3339(told.to_ms),
            as_of=format_rfc3339(told.as_of),
            source=told.source,
            ms=told.ms,
            paid_ms=told.paid_ms,
            unpaid_ms=sum(told.ms.values()) - told.paid_ms,
            pays_claims=pays_claims,
            provisional=told.provisional,
            sealed=_sealed(surroundings),
            unpaid=[_unpaid_answer(one, seen) for one in unpaid],
            truncated=left_out,
            refused=[
                RefusedAnswer(reason, surroundings.refused[reason], ADVICE[reason])
                for reason in REASONS
                if reason in surroundings.refused
            ],
            owned=[
                OwnedAnswer(one.licence_id, one.owner, format_rfc3339(one.from_ms), format_rfc3339(one.to_ms))
                for one in surroundings.owned
            ],
            note=None if told.readings else MEASURED_ELSEWHERE,
        )
    )


def _day_parameter(*, now_ms: int) -> tuple[str, int]:
    """The day and its first instant; of a day that has not begun nothing can be told."""
    text = request.args.get("day")
    if text is None:
        raise bad_parameter("day", "is missing: say which UTC day, YYYY-MM-DD")
    try:
        from_ms = parse_day(text)
    except ValueError as error:
        raise bad_parameter("day", str(error)) from error
    if from_ms > now_ms:
        raise bad_parameter("day", "has not begun")
    return text, max(from_ms, 0)


def _unpaid(
    told: Told, surroundings: Surroundings, standbys: Sequence[StandbySpan], *, pays_claims: bool
) -> tuple[list[Unpaid], int]:
    """The unpaid intervals of a day, which one source answers: our own part, if it is ours."""
    if not told.readings:
        return [], 0
    reading = told.readings[0]
    around = Around(
        base=reading.records.intervals,
        gaps=reading.gaps,
        windows=reading.records.windows,
        standbys=standbys,
        events=surroundings.events,
        sessions=surroundings.sessions,
        first_report=reading.first_report,
        provisional_from_ms=reading.composition.provisional_from_ms,
    )
    return why(reading.composition.intervals, around, pay_claims=pays_claims)


async def _standbys(backend: Backend, workload: WorkloadRecord, told: Told) -> list[StandbySpan]:
    if not told.ms["standby"]:
        return []
    found = await backend.stores.leases.standbys_during([workload.workload_id], told.from_ms, told.to_ms)
    return found.get(workload.workload_id, [])


async def _seen(
    backend: Backend, caller: Principal, workload: WorkloadRecord, unpaid: Sequence[Unpaid]
) -> set[str]:
    """Of the workloads that held the licence those that the caller may see."""
    holders = {standby.holder_id for one in unpaid for standby in one.cause.standbys}
    if not holders:
        return set()
    found = await backend.directory.workloads_of_project(workload.project_id, sorted(holders))
    return {
        one.workload_id
        for one in found.values()
        if sight.roles_over(caller, project_id=one.project_id, owner_id=one.owner_id, node_id=one.node_id)
    }


def _sealed(surroundings: Surroundings) -> SealedAnswer | None:
    mark = surroundings.sealed
    return None if mark is None else SealedAnswer(mark.revision, mark.reason, format_rfc3339(mark.sealed_ms))


def _unpaid_answer(one: Unpaid, seen: set[str]) -> UnpaidAnswer:
    return UnpaidAnswer(
        kind=one.kind,
        from_=format_rfc3339(one.from_ms),
        to=format_rfc3339(one.to_ms),
        seconds=(one.to_ms - one.from_ms) / 1000,
        cause=_cause_answer(one.cause, seen),
    )


def _cause_answer(cause: Cause, seen: set[str]) -> CauseAnswer:
    what = cause.what
    heard = what in ("node_silent", "not_in_session")
    told_by_event = what in ("node_silent", "unhealthy", "stopped")
    return CauseAnswer(
        what=what,
        text=TEXTS[what],
        since=msgspec.UNSET if what == "not_reported_yet" else _time(cause.since_ms),
        last_beat=_time(cause.last_beat_ms) if heard else msgspec.UNSET,
        event_id=cause.event_id if told_by_event else msgspec.UNSET,
        gaps=[_gap(gap) for gap in cause.gaps] if what in _OF_GAPS else msgspec.UNSET,
        windows=list(cause.windows) if what == "own_window" else msgspec.UNSET,
        holders=[_holder(one, seen) for one in cause.standbys] if what == "other_run" else msgspec.UNSET,
        provisional=cause.provisional if what == "our_gap" else msgspec.UNSET,
    )


_OF_GAPS = ("our_gap", "claimed", "claimed_up")


def _gap(gap: Gap) -> GapCause:
    to = None if gap.to_ms >= OPEN_END else format_rfc3339(gap.to_ms)
    return GapCause(gap.shard, gap.cause, format_rfc3339(gap.from_ms), to)


def _holder(one: StandbySpan, seen: set[str]) -> HolderCause:
    return HolderCause(
        licence_id=one.licence_id,
        epoch=one.epoch,
        workload_id=one.holder_id if one.holder_id in seen else None,
        from_=format_rfc3339(one.from_ms),
        to=_time(one.to_ms),
    )


def _time(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else format_rfc3339(unix_ms)


ROUTES = (
    Route(
        method="GET",
        path="/v1/workloads/{workload_id}/why",
        handler=get_why,
        summary="Why a workload was not paid on a day",
        tag="workloads",
        parameters=(
            Parameter(
                name="day",
                description="The UTC day, YYYY-MM-DD; today is told up to now",
                required=True,
                schema={"type": "string", "format": "date"},
            ),
        ),
        answers={200: Answer(description="Every unpaid interval and its cause", type=WhyAnswer)},
        refusals=(400, 401, 404, 409, 503),
    ),
)
