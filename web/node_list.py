"""`GET /v1/nodes`: the nodes that a caller may see, and how they are now.

One of them with its workloads: nodes.py. Which of all may be seen at all: sight.py.
"""

from __future__ import annotations

import msgspec
import numpy as np
from quart import Response

from engine.core.fleet import NodeFilter, Place
from engine.core.people import Principal
from engine.core.ports import NodeRecord
from engine.core.records import NODE_STATES, LiveNode, NodeState
from web import sight
from web.backend import Backend
from web.lists import (
    ID_BEGINS,
    PROJECT,
    RETIRED,
    InState,
    Rows,
    choice_parameter,
    ids_parameter,
    page_of,
    person,
    person_parameter,
    project_parameter,
    text_filter,
    text_parameter,
)
from web.paging import PARAMETERS, link_headers
from web.reading import Reader
from web.routing import Answer, Parameter, Route, boolean_parameter, in_haste, integer_parameter, reply
from web.times import format_rfc3339
from web.uptime_days import NodeDay, days_of_nodes

NODE_KINDS = ("node", "check", "canary")
DAYS_MAX = 31  # told of each node in a list


class NodeItem(msgspec.Struct, frozen=True):
    """A node in a list, without its workloads' states. `state` is null while the live view is away.

    `since`: of the state; `last_beat`: the newest accepted one; null when there was none. `owner_id`: the
    user whose machine it is. `manager_version`: of its newest session, "" before one. `days`: if they were
    asked for, those that are sealed.
    """

    node_id: str
    project_id: str
    owner_id: str | None
    name: str
    region: str
    kind: str
    state: NodeState | None
    since: str | None
    last_beat: str | None
    interval_ms: int
    manager_version: str
    revoked: bool
    created_at: str
    retired_at: str | None
    workload_ids: list[str]
    days: list[NodeDay] | msgspec.UnsetType = msgspec.UNSET


class NodesAnswer(msgspec.Struct, frozen=True):
    """A page. It may be short and still have a next one when it is asked for by state."""

    items: list[NodeItem]
    next_cursor: str | None


async def list_nodes(backend: Backend, caller: Principal) -> Response:
    which = NodeFilter(
        project_id=await project_parameter(backend, caller),
        owner_id=person_parameter(caller, "owner"),
        region=text_parameter("region"),
        version=text_parameter("version"),
        prefix=text_parameter("name"),
        kind=choice_parameter("kind", NODE_KINDS),
        ids=ids_parameter("id"),
        retired=boolean_parameter("retired"),
    )
    state = choice_parameter("state", NODE_STATES)
    days = integer_parameter("days", default=0, least=0, most=DAYS_MAX)
    fleet, seen_by = backend.stores.fleet, sight.sight_of(caller)

    async def places(after: str | None, limit: int, rows: Rows | None) -> list[Place]:
        narrowed = msgspec.structs.replace(which, rows=rows)
        return await fleet.node_places(seen_by, narrowed, after=after, limit=limit)

    living = None if which.retired else which.project_id
    found = await page_of(backend, places, None if state is None else _in_state(state), project_id=living)
    nodes = await fleet.nodes([place.id for place in found.places])
    looked = await Reader(backend, patient=not in_haste()).look_many([node.row for node in nodes])
    items = [_item(node, looked.get(node.row), known=node.row in looked) for node in nodes]
    if days:
        sums = await days_of_nodes(backend, [node.node_id for node in nodes], days=days)
        items = [msgspec.structs.replace(item, days=sums.get(item.node_id, [])) for item in items]
    return reply(
        NodesAnswer(
            # One that has just changed is no longer what was asked for.
            items=[item for item in items if state in (None, item.state)],
            next_cursor=found.next_cursor,
        ),
        headers=link_headers(found.next_cursor),
    )


def _in_state(state: str) -> InState:
    index = NODE_STATES.index(state)
    return InState(
        lambda seen: np.asarray(seen.node_state == index),
        lambda counts: counts.census.node_row[counts.node_state == index],
    )


def _item(node: NodeRecord, live: LiveNode | None, *, known: bool) -> NodeItem:
    state: NodeState | None = live.state if live is not None else "new" if known else None
    return NodeItem(
        node_id=node.node_id,
        project_id=node.project_id,
        owner_id=node.owner_id,
        name=node.name,
        region=node.region,
        kind=node.kind,
        state=state,
        since=_time(None if live is None else live.since_ms),
        last_beat=_time(None if live is None else live.last_t_ms),
        interval_ms=node.interval_ms,
        manager_version=node.manager_version,
        revoked=node.revoked,
        created_at=format_rfc3339(node.created_ms),
        retired_at=_time(node.retired_ms),
        workload_ids=list(node.workload_ids),
    )


def _time(unix_ms: int | None) -> str | None:
    return format_rfc3339(unix_ms) if unix_ms else None


ROUTES = (
    Route(
        method="GET",
        path="/v1/nodes",
        handler=list_nodes,
        summary="Nodes and how they are now, by cursor",
        tag="nodes",
        parameters=(
            PROJECT,
            person("owner", "The user whose machines they are"),
            Parameter(
                name="state",
                description="Their state now",
                schema={"type": "string", "enum": list(NODE_STATES)},
            ),
            text_filter("region", "Their region, exactly"),
            text_filter("version", "Version of the manager, exactly"),
            text_filter("name", "What their name begins with; the list then goes by name"),
            ID_BEGINS,
            Parameter(
                name="kind", description="What they are", schema={"type": "string", "enum": list(NODE_KINDS)}
            ),
            RETIRED,
            Parameter(
                name="days",
                description="Tell the sealed ones of so many days before today as well",
                schema={"type": "integer", "minimum": 0, "maximum": DAYS_MAX},
            ),
            *PARAMETERS,
        ),
        answers={200: Answer(description="A page of nodes", type=NodesAnswer)},
        refusals=(400, 404, 503),
    ),
)
