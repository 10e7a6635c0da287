"""`GET /v1/projects/{slug}/uptime/days`: the uptime of a whole network by sealed UTC day.

A seal keeps the sums of its rows, so a year of a million workloads is a few hundred rows. Days that are not
sealed are not told: their sums would have to be made from everything. Each workload of a day is in bulk.py's.
"""

from __future__ import annotations

import msgspec
from quart import Response

from engine.core.people import Principal
from engine.core.sealed import DaySums
from web import sight
from web.backend import Backend
from web.days import DAY_SCHEMA
from web.routing import Answer, Parameter, Route, reply_polled
from web.uptime_days import days_range


class NetworkDay(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed day, by its newest seal. `window_ms`: the time of all workloads that lived then, of which `ms`
    tells the kinds. `ratio`: paid_ms / (window_ms - ms.unobserved), null when that is zero."""

    day: str
    revision: int
    workloads: int
    nodes: int
    window_ms: int
    paid_ms: int
    ratio: float | None
    ms: dict[str, int]


class NetworkDaysAnswer(msgspec.Struct, frozen=True):
    """By day; days that are not sealed are left out. `next_cursor`: always null."""

    project: str
    items: list[NetworkDay]
    next_cursor: str | None


async def get_network_days(backend: Backend, caller: Principal, *, slug: str) -> Response:
    first, end = days_range(backend)
    project = await sight.project(backend, caller, slug)
    found = await backend.stores.seals.sums_by_day(project.project_id, from_day=str(first), to_day=str(end))
    return reply_polled(NetworkDaysAnswer(project.slug, [_answer(each) for each in found], None))


def _answer(sums: DaySums) -> NetworkDay:
    window_ms = sum(sums.ms.values())
    owed_ms = window_ms - sums.ms["unobserved"]
    return NetworkDay(
        day=sums.day,
        revision=sums.revision,
        workloads=sums.workloads,
        nodes=sums.nodes,
        window_ms=window_ms,
        paid_ms=sums.paid_ms,
        ratio=sums.paid_ms / owed_ms if owed_ms else None,
        ms=sums.ms,
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/uptime/days",
        handler=get_network_days,
        summary="Uptime of a whole project by sealed day",
        tag="projects",
        parameters=(
            Parameter(name="from", description="The first day; else 90 days before `to`", schema=DAY_SCHEMA),
            Parameter(name="to", description="The day after the last; else today is last", schema=DAY_SCHEMA),
        ),
        answers={
            200: Answer(description="Its days", type=NetworkDaysAnswer),
            304: Answer(description="They are as you have them"),
        },
        refusals=(400, 404),
    ),
)
