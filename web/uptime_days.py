"""Uptime by UTC day in one answer: `/v1/workloads/{id}/days`, `/v1/nodes/{id}/days`, and sums for lists.

A sealed day is told as its newest seal has it. Of the days that are not sealed yet the newest few are read as
`/uptime` reads them (sources.py); older ones, and those that nobody can tell now, are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta

import msgspec
import trio
from quart import Response

from engine.core.people import Principal
from engine.core.ports import WorkloadRecord
from engine.core.sealed import SealedDay
from web import sight
from web.backend import Backend
from web.days import DAY_SCHEMA, day_parameter
from web.problems import RefusedError, bad_parameter
from web.reading import Reader
from web.routing import Answer, Parameter, Route, reply
from web.sources import told_uptime
from web.times import DAY_MS, format_rfc3339, parse_day

DAYS_MAX = 400  # of one answer
DAYS_DEFAULT = 90
OPEN_DAYS_MAX = 3  # days that are not sealed yet are read from history, which takes longer
READS_AT_ONCE = 4  # workloads of one node read side by side: the pool is everybody's
NOT_NOW = (409, 503)  # the day's source is not configured, or away


class DayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A UTC day of a workload. `window_ms`: as much of it as it lived (of today: up to now). `revision`: of
    the day's newest seal; null: not sealed yet. `ratio` is paid_ms / (window_ms - unobserved_ms), null when
    that is zero. `provisional`: it may still change without a correction."""

    day: str
    revision: int | None
    window_ms: int
    paid_ms: int
    up_ms: int
    unobserved_ms: int
    ratio: float | None
    provisional: bool


class WorkloadDaysAnswer(msgspec.Struct, frozen=True):
    """By day; days that it did not live or that are not known are left out. `next_cursor`: always null."""

    workload_id: str
    items: list[DayAnswer]
    next_cursor: str | None


class WorkloadOfDays(msgspec.Struct, frozen=True):
    workload_id: str
    slot: int
    name: str
    days: list[DayAnswer]


class NodeDaysAnswer(msgspec.Struct, frozen=True):
    """The node's workloads that are not retired, by slot, each with its days. `next_cursor`: always null."""

    node_id: str
    items: list[WorkloadOfDays]
    next_cursor: str | None


class NodeDay(msgspec.Struct, frozen=True):
    """A sealed day of a node: the sums over its workloads."""

    day: str
    window_ms: int
    paid_ms: int
    unobserved_ms: int


async def get_workload_days(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    first, end = days_range(backend)
    workload = await sight.workload(backend, caller, workload_id)
    sealed = await backend.stores.seals.days_of_workload(
        workload.workload_id, from_day=str(first), to_day=str(end)
    )
    days = await _days(backend, workload, sealed, first, end)
    return reply(WorkloadDaysAnswer(workload.workload_id, days, None))


async def get_node_days(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    first, end = days_range(backend)
    node = await sight.node(backend, caller, node_id)
    sealed = await backend.stores.seals.days_of_nodes([node.node_id], from_day=str(first), to_day=str(end))
    workloads = await backend.directory.workloads_of_project(node.project_id, node.workload_ids)
    items: list[WorkloadOfDays] = []
    limit = trio.CapacityLimiter(READS_AT_ONCE)

    async def tell(workload: WorkloadRecord) -> None:
        mine = [day for day in sealed if day.workload_id == workload.workload_id]
        async with limit:
            days = await _days(backend, workload, mine, first, end)
        items.append(WorkloadOfDays(workload.workload_id, workload.slot, workload.name, days))

    async with trio.open_nursery() as nursery:
        for workload in workloads.values():
            if workload.retired_ms is None:
                nursery.start_soon(tell, workload)
    items.sort(key=lambda item: item.slot)
    return reply(NodeDaysAnswer(node.node_id, items, None))


async def days_of_nodes(backend: Backend, node_ids: Sequence[str], *, days: int) -> dict[str, list[NodeDay]]:
    """By node the sums of its sealed days among the last `days` before today."""
    today = _today(backend)
    found = await backend.stores.seals.days_of_nodes(
        node_ids, from_day=str(today - timedelta(days=days)), to_day=str(today)
    )
    sums: dict[str, dict[str, list[SealedDay]]] = defaultdict(lambda: defaultdict(list))
    for day in found:
        sums[day.node_id][day.day].append(day)
    return {
        node_id: [
            NodeDay(
                day,
                sum(one.window_ms for one in rows),
                sum(one.paid_ms for one in rows),
                sum(one.unobserved_ms for one in rows),
            )
            for day, rows in by_day.items()
        ]
        for node_id, by_day in sums.items()
    }


async def _days(
    backend: Backend, workload: WorkloadRecord, sealed: Sequence[SealedDay], first: date, end: date
) -> list[DayAnswer]:
    days = {one.day: _sealed(one) for one in sealed}
    today = _today(backend)
    reader = Reader(backend)
    for back in range(OPEN_DAYS_MAX):
        day = today - timedelta(days=back)
        if first <= day < end and str(day) not in days:
            told = await _open(backend, workload, reader, str(day))
            if told is not None:
                days[told.day] = told
    return [days[day] for day in sorted(days)]


async def _open(backend: Backend, workload: WorkloadRecord, reader: Reader, day: str) -> DayAnswer | None:
    """A day that is not sealed; None if it did not live then, or if the day's source cannot tell now."""
    from_ms = parse_day(day)
    try:
        told = await told_uptime(backend, workload, reader, from_ms=from_ms, to_ms=from_ms + DAY_MS)
    except RefusedError as refusal:
        if refusal.status not in NOT_NOW:
            raise
        return None
    window_ms = sum(told.ms.values())
    if not window_ms:
        return None
    return DayAnswer(
        day=day,
        revision=None,
        window_ms=window_ms,
        paid_ms=told.paid_ms,
        up_ms=told.ms["up"],
        unobserved_ms=told.ms["unobserved"],
        ratio=told.ratio,
        provisional=True,
    )


def _sealed(one: SealedDay) -> DayAnswer:
    owed_ms = one.window_ms - one.unobserved_ms
    return DayAnswer(
        day=one.day,
        revision=one.revision,
        window_ms=one.window_ms,
        paid_ms=one.paid_ms,
        up_ms=one.up_ms,
        unobserved_ms=one.unobserved_ms,
        ratio=one.paid_ms / owed_ms if owed_ms else None,
        provisional=False,
    )


def _today(backend: Backend) -> date:
    return date.fromisoformat(format_rfc3339(backend.clock())[:10])


def days_range(backend: Backend) -> tuple[date, date]:
    """[from, to) of the query. RefusedError 400."""
    given_from, given_to = day_parameter("from"), day_parameter("to")
    end = _today(backend) + timedelta(days=1) if given_to is None else date.fromisoformat(given_to)
    if given_from is not None:
        first = date.fromisoformat(given_from)
    else:
        first = max(end, date.min + timedelta(days=DAYS_DEFAULT)) - timedelta(days=DAYS_DEFAULT)
    if first >= end:
        raise bad_parameter("from", "must be earlier than to")
    if (end - first).days > DAYS_MAX:
        raise RefusedError(
            400, "window_too_long", f"an answer may have {DAYS_MAX} days: ask for a shorter time, in parts"
        )
    return first, end


def _route(path: str, handler: object, summary: str, tag: str, answer: type) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,  # type: ignore[arg-type]
        summary=summary,
        tag=tag,
        parameters=(
            Parameter(name="from", description="The first day; else 90 days before `to`", schema=DAY_SCHEMA),
            Parameter(name="to", description="The day after the last; else today is last", schema=DAY_SCHEMA),
        ),
        answers={200: Answer(description="Its days", type=answer)},
        refusals=(400, 404, 503),
    )


ROUTES = (
    _route(
        "/v1/workloads/{workload_id}/days",
        get_workload_days,
        "Uptime by day: sealed days, and the newest of the others",
        "workloads",
        WorkloadDaysAnswer,
    ),
    _route(
        "/v1/nodes/{node_id}/days",
        get_node_days,
        "Uptime by day of all workloads of a node",
        "nodes",
        NodeDaysAnswer,
    ),
)
