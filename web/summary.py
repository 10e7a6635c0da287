"""`GET /v1/projects/{slug}/summary`: how many nodes and workloads are up, by kind, version and region.

Counting is summaries.py's; here are the parameters and shapes.
"""

from __future__ import annotations

import msgspec
import numpy as np
from quart import Response

from engine.core.people import Principal
from web import sight
from web.backend import Backend
from web.routing import Answer, Route, content_tag, in_haste, reply_polled
from web.summaries import HASTE_ENOUGH_S, HASTE_LATE_S, HASTE_S, HEARD_COLUMNS, NODE_COLUMNS, Counts
from web.times import format_rfc3339


class NodeCounts(msgspec.Struct, frozen=True):
    """Living nodes. `by_state`: all states, by verdict; `unknown` while the live view is away."""

    total: int
    by_state: dict[str, int]


class WorkloadCounts(msgspec.Struct, frozen=True):
    """Living workloads. `by_state`: what beats alone say of now; `unknown` while the live view is away."""

    total: int
    by_state: dict[str, int]


class AllWorkloadCounts(WorkloadCounts, frozen=True):
    """`standby`: of those that beat, those whose licence another run holds. `unobserved`: those to whom
    NodePulse does not listen just now, by no fault of theirs."""

    standby: int
    unobserved: int


class VersionCounts(msgspec.Struct, frozen=True):
    """Of one kind, those that run this version, as their managers reported it; null: it is not known."""

    version: str | None
    total: int
    by_state: dict[str, int]


class KindCounts(msgspec.Struct, frozen=True):
    """Of one kind (slug; null: of none)."""

    kind: str | None
    total: int
    by_state: dict[str, int]
    versions: list[VersionCounts]


class RegionCounts(msgspec.Struct, frozen=True):
    """What is in one region ("": none was told)."""

    region: str
    nodes: NodeCounts
    workloads: WorkloadCounts


class SummaryAnswer(msgspec.Struct, frozen=True):
    """Neither retired nor revoked nodes, nor what is on them. `as_of`: null while the live view is away.

    Who joined or left is seen after 10 s, states after one to three; in a project of a million later.
    """

    project: str
    as_of: str | None
    nodes: NodeCounts
    workloads: AllWorkloadCounts
    kinds: list[KindCounts]
    regions: list[RegionCounts]


async def get_summary(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    if in_haste():
        counts = await backend.summaries.of(
            backend,
            project.project_id,
            patience_s=HASTE_S,
            enough_s=HASTE_ENOUGH_S,
            late_s=HASTE_LATE_S,
        )
    else:
        counts = await backend.summaries.of(backend, project.project_id)
    answer = answer_of(project.slug, counts)
    # Weak: when it was looked at is told, too, and is no news.
    return reply_polled(answer, etag=f"W/{content_tag(msgspec.structs.replace(answer, as_of=None))}")


def answer_of(slug: str, counts: Counts) -> SummaryAnswer:
    """What is told of what was counted."""
    by_region = counts.workloads.sum(axis=1)
    return SummaryAnswer(
        project=slug,
        as_of=None if counts.as_of_ms is None else format_rfc3339(counts.as_of_ms),
        nodes=_nodes(counts.nodes.sum(axis=0)),
        workloads=AllWorkloadCounts(
            **msgspec.structs.asdict(_workloads(by_region.sum(axis=0))),
            standby=counts.standby,
            unobserved=counts.unobserved,
        ),
        kinds=_kinds(counts),
        regions=[
            RegionCounts(region, _nodes(counts.nodes[at]), _workloads(by_region[at]))
            for at, region in enumerate(counts.census.regions)
        ],
    )


def _kinds(counts: Counts) -> list[KindCounts]:
    by_group = counts.workloads.sum(axis=0)
    groups = counts.census.groups
    kinds = []
    for kind in dict.fromkeys(kind for kind, _ in groups):
        mine = [at for at, (of, _) in enumerate(groups) if of == kind]
        total = _workloads(by_group[mine].sum(axis=0))
        # Of some versions the last run has gone since the census knew of them.
        versions = [(groups[at][1], _workloads(by_group[at])) for at in mine if by_group[at].any()]
        if not versions:
            continue
        kinds.append(
            KindCounts(
                kind,
                total.total,
                total.by_state,
                [VersionCounts(version, each.total, each.by_state) for version, each in versions],
            )
        )
    return kinds


def _nodes(states: np.ndarray) -> NodeCounts:
    return NodeCounts(int(states.sum()), dict(zip(NODE_COLUMNS, states.tolist(), strict=True)))


def _workloads(states: np.ndarray) -> WorkloadCounts:
    return WorkloadCounts(int(states.sum()), dict(zip(HEARD_COLUMNS, states.tolist(), strict=True)))


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/summary",
        handler=get_summary,
        summary="How many nodes and workloads are how: by state, kind, version and region",
        tag="projects",
        answers={
            200: Answer(description="The summary", type=SummaryAnswer),
            304: Answer(description="It is as you have it"),
        },
        refusals=(404, 503),
    ),
)
