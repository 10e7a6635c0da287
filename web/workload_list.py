"""`GET /v1/workloads`: the workloads that a caller may see, and what beats say of them now.

What exactly an instant of one of them counts as, with windows, leases and gaps: workloads.py.
"""

from __future__ import annotations

import msgspec
import numpy as np
from quart import Response

from engine.core.fleet import Place, WorkloadFilter
from engine.core.people import Principal
from engine.core.ports import WorkloadRecord
from storage.view_arrays import HEARD
from web import sight
from web.backend import Backend
from web.ids import SLUG
from web.lists import (
    ID_BEGINS,
    PROJECT,
    RETIRED,
    InState,
    Rows,
    choice_parameter,
    id_parameter,
    ids_parameter,
    page_of,
    person,
    person_parameter,
    project_parameter,
    slug_parameter,
    text_filter,
    text_parameter,
)
from web.paging import PARAMETERS, link_headers
from web.routing import Answer, Parameter, Route, boolean_parameter, in_haste, reply
from web.times import format_rfc3339
from web.view_arrays import look, wait_view

_ID = {"type": "string", "format": "uuid"}


class WorkloadItem(msgspec.Struct, frozen=True):
    """A workload in a list. `state`: what beats alone say of now, null while the live view is away.

    `operator_id`: the user whose machine it runs on. `kind`: slug. `running_version`: as reported.
    """

    workload_id: str
    node_id: str
    project_id: str
    operator_id: str | None
    slot: int
    name: str
    kind: str | None
    licence_id: str | None
    running_version: str | None
    state: str | None
    created_at: str
    retired_at: str | None


class WorkloadsAnswer(msgspec.Struct, frozen=True):
    """A page. It may be short and still have a next one when it is asked for by state."""

    items: list[WorkloadItem]
    next_cursor: str | None


async def list_workloads(backend: Backend, caller: Principal) -> Response:
    which = WorkloadFilter(
        project_id=await project_parameter(backend, caller),
        operator_id=person_parameter(caller, "operator"),
        node_id=id_parameter("node"),
        kind=slug_parameter("kind"),
        version=text_parameter("version"),
        licence_id=id_parameter("licence"),
        region=text_parameter("region"),
        prefix=text_parameter("name"),
        ids=ids_parameter("id"),
        retired=boolean_parameter("retired"),
    )
    state = choice_parameter("state", HEARD)
    fleet, seen_by = backend.stores.fleet, sight.sight_of(caller)

    async def places(after: str | None, limit: int, rows: Rows | None) -> list[Place]:
        narrowed = msgspec.structs.replace(which, rows=rows)
        return await fleet.workload_places(seen_by, narrowed, after=after, limit=limit)

    if not in_haste():
        await wait_view(backend)
    living = None if which.retired else which.project_id
    found = await page_of(backend, places, None if state is None else _in_state(state), project_id=living)
    there = {each.workload_id: each for each in await fleet.workloads([place.id for place in found.places])}
    workloads = [there[place.id] for place in found.places if place.id in there]
    row, slot = (np.array([getattr(each, name) for each in workloads], np.int64) for name in ("row", "slot"))
    seen, _undecided = await look(backend, row, slot)
    told = zip(workloads, seen.known.tolist(), seen.heard.tolist(), strict=True)
    items = [_item(workload, HEARD[heard] if known else None) for workload, known, heard in told]
    return reply(
        WorkloadsAnswer(
            # One that has just changed is no longer what was asked for.
            items=[item for item in items if state in (None, item.state)],
            next_cursor=found.next_cursor,
        ),
        headers=link_headers(found.next_cursor),
    )


def _in_state(state: str) -> InState:
    index = HEARD.index(state)
    return InState(
        lambda seen: np.asarray(seen.heard == index),
        lambda counts: counts.census.workload_row[counts.heard == index],
    )


def _item(workload: WorkloadRecord, state: str | None) -> WorkloadItem:
    return WorkloadItem(
        workload_id=workload.workload_id,
        node_id=workload.node_id,
        project_id=workload.project_id,
        operator_id=workload.owner_id,
        slot=workload.slot,
        name=workload.name,
        kind=workload.kind,
        licence_id=workload.licence_id,
        running_version=workload.running_version,
        state=state,
        created_at=format_rfc3339(workload.created_ms),
        retired_at=None if workload.retired_ms is None else format_rfc3339(workload.retired_ms),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/workloads",
        handler=list_workloads,
        summary="Workloads and what beats say of them now, by cursor",
        tag="workloads",
        parameters=(
            PROJECT,
            person("operator", "The user on whose machines they run"),
            Parameter(name="node", description="Id of their node", schema=_ID),
            Parameter(
                name="kind", description="Slug", schema={"type": "string", "pattern": f"^{SLUG.pattern}$"}
            ),
            text_filter("version", "The version that runs, exactly"),
            Parameter(name="licence", description="Id of their licence", schema=_ID),
            text_filter("region", "Their node's region, exactly"),
            text_filter("name", "What their name begins with; the list then goes by name"),
            ID_BEGINS,
            Parameter(
                name="state", description="What beats say", schema={"type": "string", "enum": list(HEARD)}
            ),
            RETIRED,
            *PARAMETERS,
        ),
        answers={200: Answer(description="A page of workloads", type=WorkloadsAnswer)},
        refusals=(400, 404, 503),
    ),
)
