"""`GET /v1/workloads/{id}` and its `/uptime`: how a workload is, and what each millisecond of a window was.

Only parameters and shapes are here; the reading is reading.py's, the rules are engine/core/compose.py's.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from quart import Response, request

from engine.core.compose import OPEN_END
from engine.core.people import Principal
from engine.core.ports import WorkloadRecord
from engine.core.records import Gap
from web import sight
from web.backend import Backend
from web.problems import RefusedError, bad_parameter
from web.reading import Reader
from web.routing import Answer, Parameter, Route, boolean_parameter, reply
from web.sources import Told, told_uptime
from web.times import DAY_MS, TIME_MS_MAX, format_rfc3339, parse_rfc3339

WINDOW_MS_MAX = 400 * DAY_MS  # of one answer, after the cut to the workload's life: bounds the rows read


class WorkloadAnswer(msgspec.Struct, frozen=True):
    """`state`: `new`, or the kind of the last instant before `as_of`.

    `kind`: slug; null: of none that is known. `licence_id`: null: it runs under none. `running_version`: as
    its manager reported it.
    """

    workload_id: str
    node_id: str
    project_id: str
    slot: int
    name: str
    kind: str | None
    licence_id: str | None
    running_version: str | None
    state: str
    as_of: str
    created_at: str
    retired_at: str | None


class IntervalAnswer(msgspec.Struct, frozen=True):
    kind: str
    started_at: str
    ended_at: str


class GapAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A time in which the shard did not listen, as far as it lies in the window."""

    from_: str
    to: str
    cause: str
    decided: bool


class UptimeAnswer(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Milliseconds by kind; they sum to the window. `provisional`: some of it may still change.

    `ratio` is paid_ms / (window - unobserved), null when that is zero. `source`: who measured it; what
    Datagram did is in whole hours (`granularity_ms`), cut to which the window is told, and has no intervals.
    """

    workload_id: str
    from_: str
    to: str
    as_of: str
    ms: dict[str, int]
    paid_ms: int
    ratio: float | None
    provisional: bool
    source: Literal["native", "datagram", "mixed"]
    granularity_ms: int
    intervals: list[IntervalAnswer] | msgspec.UnsetType = msgspec.UNSET
    gaps: list[GapAnswer] | msgspec.UnsetType = msgspec.UNSET


async def get_workload(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    workload = await sight.workload(backend, caller, workload_id)
    reader = Reader(backend)
    look = await reader.look(workload.row, up_to_ms=reader.now_ms(workload.row))
    state, as_of = await reader.state(workload, look)
    return reply(
        WorkloadAnswer(
            workload_id=workload.workload_id,
            node_id=workload.node_id,
            project_id=workload.project_id,
            slot=workload.slot,
            name=workload.name,
            kind=workload.kind,
            licence_id=workload.licence_id,
            running_version=workload.running_version,
            state=state,
            as_of=format_rfc3339(as_of),
            created_at=format_rfc3339(workload.created_ms),
            retired_at=None if workload.retired_ms is None else format_rfc3339(workload.retired_ms),
        )
    )


async def get_uptime(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    from_ms, to_ms = _time_parameter("from"), _time_parameter("to")
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        raise bad_parameter("from", "must not be later than to")
    with_intervals = boolean_parameter("intervals")
    workload = await sight.workload(backend, caller, workload_id)
    reader = Reader(backend)
    now_ms = reader.now_ms(workload.row)
    end_ms = TIME_MS_MAX if to_ms is None else to_ms
    start_ms = min(workload.created_ms, end_ms) if from_ms is None else from_ms
    if min(end_ms, now_ms) - max(start_ms, workload.created_ms) > WINDOW_MS_MAX:
        raise RefusedError(
            400, "window_too_long", f"a window may have {WINDOW_MS_MAX // DAY_MS} days: ask in parts"
        )
    told = await told_uptime(backend, workload, reader, from_ms=start_ms, to_ms=end_ms)
    return reply(_answer(workload, told, with_intervals=with_intervals))


def _time_parameter(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        # What lies outside of these decades lies outside of every life as well.
        return min(max(parse_rfc3339(text), 0), TIME_MS_MAX)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from error


def _answer(workload: WorkloadRecord, told: Told, *, with_intervals: bool) -> UptimeAnswer:
    answer = UptimeAnswer(
        workload_id=workload.workload_id,
        from_=format_rfc3339(told.from_ms),
        to=format_rfc3339(told.to_ms),
        as_of=format_rfc3339(told.as_of),
        ms=told.ms,
        paid_ms=told.paid_ms,
        ratio=told.ratio,
        provisional=told.provisional,
        source=told.source,
        granularity_ms=told.granularity_ms,
    )
    if not with_intervals:
        return answer
    return msgspec.structs.replace(
        answer,
        intervals=[
            IntervalAnswer(kind, format_rfc3339(started), format_rfc3339(ended))
            for reading in told.readings
            for kind, started, ended in reading.composition.intervals
        ],
        gaps=[
            _gap(gap, reading.composition.from_ms, reading.composition.to_ms)
            for reading in told.readings
            for gap in reading.gaps
            if gap.from_ms < reading.composition.to_ms and reading.composition.from_ms < gap.to_ms
        ],
    )


def _gap(gap: Gap, from_ms: int, to_ms: int) -> GapAnswer:
    return GapAnswer(
        from_=format_rfc3339(max(gap.from_ms, from_ms)),
        to=format_rfc3339(min(gap.to_ms, to_ms)),
        cause=gap.cause,
        decided=gap.to_ms < OPEN_END,
    )


_TIME = {"type": "string", "format": "date-time"}

ROUTES = (
    Route(
        method="GET",
        path="/v1/workloads/{workload_id}",
        handler=get_workload,
        summary="How a workload is now",
        tag="workloads",
        answers={200: Answer(description="The workload", type=WorkloadAnswer)},
        refusals=(401, 404, 503),
    ),
    Route(
        method="GET",
        path="/v1/workloads/{workload_id}/uptime",
        handler=get_uptime,
        summary="Milliseconds by kind in a window",
        tag="workloads",
        parameters=(
            Parameter(name="from", description="Without it the beginning of its life", schema=_TIME),
            Parameter(name="to", description="Without it, and in the future: now", schema=_TIME),
            Parameter(name="intervals", description="Tell every interval, too", schema={"type": "boolean"}),
        ),
        answers={200: Answer(description="The uptime", type=UptimeAnswer)},
        refusals=(400, 401, 404, 409, 503),
    ),
)
