"""`GET /v1/status/{slug}`: how a project's network is and was, for anybody, where its owner wants that.

What is private looks as if it did not exist. Told are numbers, days, our own faults and planned maintenance;
no node, no person. One answer serves everybody for STATUS_KEPT_S.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
from quart import Response

from engine.core.catalog import ProjectRecord
from engine.core.people import Principal
from engine.core.sealed import DaySums
from engine.core.status import Incident, incidents_of
from web.backend import Backend
from web.ids import SLUG
from web.kept import for_anybody
from web.problems import not_found
from web.routing import Answer, Route
from web.summaries import HEARD_COLUMNS, NODE_COLUMNS, UNKNOWN
from web.times import DAY_MS, format_rfc3339

DAYS = 90
INCIDENT_MS_MIN = 10_000  # shorter gaps are counted, and not told one by one
GAPS_MAX, INCIDENTS_MAX, PLANNED_MAX = 1_000, 30, 20
PLANNED_DAYS = 14
SILENT_MS_MAX = (
    10_000  # a shard of which nothing is heard for so long does not listen, as far as anybody knows
)
UP_SHARE, PARTLY_SHARE = 0.95, 0.5
_JUDGED = ("up", "suspect", "down", "lost")
State = Literal["up", "partly", "down", "empty", "unknown"]


class StatusDay(msgspec.Struct, frozen=True):
    """A sealed day of all workloads together. `ratio`: paid / (window - unobserved); null: none of it was
    observed."""

    day: str
    ratio: float | None
    workloads: int
    window_ms: int
    paid_ms: int
    unobserved_ms: int


class StatusIncident(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which we did not listen, or not to all: nobody is blamed for it. `to` null: it lasts."""

    from_: str = msgspec.field(name="from")
    to: str | None
    causes: list[str]


class StatusWork(msgspec.Struct, frozen=True, kw_only=True):
    """Maintenance of the project's: how many of its nodes, when."""

    from_: str = msgspec.field(name="from")
    to: str
    nodes: int


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: of the nodes that are judged, at least 95 in 100 are up, at least half, or fewer; `empty`:
    there is none; `unknown`: we cannot tell now. `share_up` null: nothing to tell. `observing`: we listen;
    `doubting`: so many fell silent at once that we doubt ourselves, and judge nobody. `days`: sealed ones of
    the last 90. `gaps`, `gaps_ms`: our own faults of the last 90 days, short ones as well, of each shard on
    its own; `incidents`: the longer ones, the newest first."""

    project: str
    name: str
    as_of: str
    state: State
    share_up: float | None
    observing: bool
    doubting: bool
    nodes: dict[str, int]
    workloads: dict[str, int]
    days: list[StatusDay]
    last_day: str
    gaps: int
    gaps_ms: int
    incidents: list[StatusIncident]
    maintenance: list[StatusWork]


async def get_status(backend: Backend, _caller: Principal, *, slug: str) -> Response:
    body = await backend.statuses.of(slug, lambda: _body(backend, slug)) if SLUG.fullmatch(slug) else b""
    if not body:
        raise not_found("status page")
    # Scripts of other sites may read it, as anybody may.
    headers = {"cross-origin-resource-policy": "cross-origin"}
    age_s = backend.statuses.kept_s
    return for_anybody(body, content_type="application/json", age_s=age_s, headers=headers)


async def _body(backend: Backend, slug: str) -> bytes:
    """Empty: there is none to be seen."""
    project = await public_project(backend, slug)
    return b"" if project is None else msgspec.json.encode(await _status(backend, project))


async def public_project(backend: Backend, slug: str) -> ProjectRecord | None:
    """One that anybody may see."""
    found = await backend.directory.project(slug) if SLUG.fullmatch(slug) else None
    return None if found is None else await seen_by_all(backend, found.project_id)


async def seen_by_all(backend: Backend, project_id: str) -> ProjectRecord | None:
    """The project, if anybody may see it."""
    project = await backend.stores.projects.project(project_id)
    return project if project is not None and project.public_status and project.retired_ms is None else None


async def _status(backend: Backend, project: ProjectRecord) -> StatusAnswer:
    now_ms = backend.clock()
    nodes, workloads = await counts_of(backend, project.project_id)
    lasting, doubting = _lasting(backend)
    since_ms = now_ms - DAYS * DAY_MS
    gaps, totals = await backend.stores.status.gaps(
        since_ms=since_ms, length_ms_min=INCIDENT_MS_MIN, limit=GAPS_MAX
    )
    planned = await backend.stores.status.planned(
        project.project_id, now_ms=now_ms, until_ms=now_ms + PLANNED_DAYS * DAY_MS, limit=PLANNED_MAX
    )
    today = datetime.fromtimestamp(now_ms / 1_000, UTC).date()
    sums = await backend.stores.seals.sums_by_day(
        project.project_id, from_day=str(today - timedelta(days=DAYS)), to_day=str(today)
    )
    share = share_up(nodes)
    return StatusAnswer(
        project=project.slug,
        name=project.name,
        as_of=format_rfc3339(now_ms),
        state=_state(nodes, share, observing=lasting is None),
        share_up=share,
        observing=lasting is None,
        doubting=doubting,
        nodes=nodes,
        workloads=workloads,
        days=[_day(each) for each in sums],
        last_day=str(today - timedelta(days=1)),
        gaps=totals.gaps,
        gaps_ms=totals.length_ms,
        incidents=[_incident(each) for each in ([lasting] if lasting else []) + incidents_of(gaps)][
            :INCIDENTS_MAX
        ],
        maintenance=[
            StatusWork(from_=format_rfc3339(each.from_ms), to=format_rfc3339(each.to_ms), nodes=each.nodes)
            for each in planned
        ],
    )


async def counts_of(backend: Backend, project_id: str) -> tuple[dict[str, int], dict[str, int]]:
    """Nodes and workloads of a project by state, those that there are."""
    counts = await backend.summaries.of(backend, project_id)
    nodes = dict(zip(NODE_COLUMNS, counts.nodes.sum(axis=0).tolist(), strict=True))
    workloads = dict(zip(HEARD_COLUMNS, counts.workloads.sum(axis=(0, 1)).tolist(), strict=True))
    return _some(nodes), _some(workloads)


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {state: count for state, count in counts.items() if count}


def share_up(nodes: dict[str, int]) -> float | None:
    """Of the nodes that are judged those that are up, or of which nobody has said otherwise yet."""
    judged = sum(nodes.get(state, 0) for state in _JUDGED)
    if not judged or nodes.get(UNKNOWN, 0):
        return None
    return (nodes.get("up", 0) + nodes.get("suspect", 0)) / judged


def _state(nodes: dict[str, int], share: float | None, *, observing: bool) -> State:
    if not observing or nodes.get(UNKNOWN, 0):
        return "unknown"
    if share is None:
        return "empty"
    return "up" if share >= UP_SHARE else "partly" if share >= PARTLY_SHARE else "down"


def _lasting(backend: Backend) -> tuple[Incident | None, bool]:
    """(since when some shard does not listen, whether one doubts itself)."""
    heads = [backend.heads.head(shard) for shard in range(backend.shards)]
    doubting = any(head is not None and head.degraded for head in heads)
    found = [unobserved_since(backend, shard) for shard in range(backend.shards)]
    silent = [each for each in found if each is not None]
    if not silent:
        return None, doubting
    return Incident(min(silent)[0], None, tuple(dict.fromkeys(cause for _, cause in silent))), doubting


def unobserved_since(backend: Backend, shard: int) -> tuple[int, str] | None:
    """(since when, the cause) if the shard does not listen, as far as anybody knows."""
    head, age_ms = backend.heads.head(shard), backend.heads.watermark_age_ms(shard)
    if head is None or age_ms is None or head.watermark_ms <= 0:
        return backend.clock(), "unknown"
    if head.provisional_from_ms is not None:
        return head.provisional_from_ms, "disk_full"
    return (head.watermark_ms, "unknown") if age_ms > SILENT_MS_MAX else None


def _day(sums: DaySums) -> StatusDay:
    window_ms, unobserved_ms = sum(sums.ms.values()), sums.ms["unobserved"]
    owed_ms = window_ms - unobserved_ms
    return StatusDay(
        day=sums.day,
        ratio=sums.paid_ms / owed_ms if owed_ms > 0 else None,
        workloads=sums.workloads,
        window_ms=window_ms,
        paid_ms=sums.paid_ms,
        unobserved_ms=unobserved_ms,
    )


def _incident(incident: Incident) -> StatusIncident:
    return StatusIncident(
        from_=format_rfc3339(incident.from_ms),
        to=None if incident.to_ms is None else format_rfc3339(incident.to_ms),
        causes=list(incident.causes),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/status/{slug}",
        handler=get_status,
        summary="How a project's network is and was, for anybody; where its owner has switched that on",
        tag="status",
        answers={
            200: Answer(description="At most 15 s old", type=StatusAnswer),
            304: Answer(description="It is as you have it"),
        },
        refusals=(404, 503),
    ),
)
