"""`GET /v1/nodes/{id}`: how a node is now. Many of them: node_list.py.

A node's own state comes from its verdicts (live view); what its workloads count as is composed (reading.py).
"""

from __future__ import annotations

import msgspec
import trio
from quart import Response

from engine.core.people import Principal
from engine.core.ports import NodeRecord, WorkloadRecord
from engine.core.records import NodeState
from web import sight
from web.backend import Backend
from web.problems import unavailable
from web.reading import Look, Reader
from web.routing import Answer, Route, reply
from web.times import format_rfc3339

READS_AT_ONCE = 4  # workloads of one node read side by side: the pool is everybody's


class WorkloadOfNode(msgspec.Struct, frozen=True):
    workload_id: str
    slot: int
    name: str
    state: str


class NodeAnswer(msgspec.Struct, frozen=True):
    """`since`: of the state; `last_beat`: the newest accepted one; null when there was none.

    `owner_id`: whose machine it is; null: nobody's. `manager_version`: of the newest session, "" before one.
    `partner_node_id`: how Datagram calls it, if it is registered there.
    """

    node_id: str
    project_id: str
    owner_id: str | None
    name: str
    region: str
    kind: str
    state: NodeState
    since: str | None
    last_beat: str | None
    as_of: str
    interval_ms: int
    ttl_ms: int | None
    manager_version: str
    partner_node_id: str | None
    revoked: bool
    created_at: str
    retired_at: str | None
    workloads: list[WorkloadOfNode]


async def get_node(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    node = await sight.node(backend, caller, node_id)
    reader = Reader(backend)
    look = await reader.look(node.row, up_to_ms=reader.now_ms(node.row))
    if look.head is None:
        raise unavailable("the live view is away: only history can be read")
    workloads = await backend.directory.workloads_of_project(node.project_id, node.workload_ids)
    states = await _states(reader, look, list(workloads.values()))
    return reply(_answer(node, look, states))


async def _states(reader: Reader, look: Look, workloads: list[WorkloadRecord]) -> list[WorkloadOfNode]:
    """The workloads that are not retired, by slot, each with its state."""
    states: list[WorkloadOfNode] = []
    limit = trio.CapacityLimiter(READS_AT_ONCE)

    async def read(workload: WorkloadRecord) -> None:
        async with limit:
            state, _as_of = await reader.state(workload, look)
        states.append(WorkloadOfNode(workload.workload_id, workload.slot, workload.name, state))

    async with trio.open_nursery() as nursery:
        for workload in workloads:
            if workload.retired_ms is None:
                nursery.start_soon(read, workload)
    return sorted(states, key=lambda workload: workload.slot)


def _answer(node: NodeRecord, look: Look, workloads: list[WorkloadOfNode]) -> NodeAnswer:
    assert look.head is not None
    live = look.node
    return NodeAnswer(
        node_id=node.node_id,
        project_id=node.project_id,
        owner_id=node.owner_id,
        name=node.name,
        region=node.region,
        kind=node.kind,
        state="new" if live is None else live.state,
        since=_time(0 if live is None else live.since_ms),
        last_beat=_time(0 if live is None else live.last_t_ms),
        as_of=format_rfc3339(look.head.watermark_ms),
        interval_ms=node.interval_ms,
        ttl_ms=(live.ttl_ms or None) if live is not None else None,
        manager_version=node.manager_version,
        partner_node_id=node.partner_node_id,
        revoked=node.revoked,
        created_at=format_rfc3339(node.created_ms),
        retired_at=_time(node.retired_ms or 0),
        workloads=workloads,
    )


def _time(unix_ms: int) -> str | None:
    return format_rfc3339(unix_ms) if unix_ms else None


ROUTES = (
    Route(
        method="GET",
        path="/v1/nodes/{node_id}",
        handler=get_node,
        summary="How a node and its workloads are now",
        tag="nodes",
        answers={200: Answer(description="The node", type=NodeAnswer)},
        refusals=(401, 404, 503),
    ),
)
