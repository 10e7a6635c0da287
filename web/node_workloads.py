"""Workloads as people put them on nodes, change and retire them.

How a workload is now, and its uptime, are workloads.py's. The rules are the store's
(engine/core/registration.py); shapes that nodes share are node_registration.py's.
"""

from __future__ import annotations

import msgspec
from quart import Response

from engine.core.people import Principal
from engine.core.registration import WorkloadChange
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.node_registration import (
    Id,
    Name,
    RegisteredWorkload,
    Slug,
    WorkloadToRegister,
    asker_of,
    form_of_id,
    must_be_a_machine,
    refusals,
    registered_workload,
    to_register,
)
from web.routing import Answer, Route, read_body, reply


class WorkloadPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is. `licence_id`: null for none. `kind`: slug; its manager is told."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    kind: Slug | msgspec.UnsetType = msgspec.UNSET
    licence_id: Id | msgspec.UnsetType | None = msgspec.UNSET


async def add_workload(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    asked, _ = await read_body(WorkloadToRegister)
    node = await sight.node(backend, caller, node_id)
    must_be_a_machine(node)
    with refusals():
        made = await backend.stores.registration.add_workload(
            node.node_id,
            to_register(asked, at=""),
            act=act_of(backend, caller),
            asker=asker_of(caller, node.project_id),
        )
    location = {"location": f"/v1/workloads/{made.workload_id}"}
    return reply(registered_workload(made), 201, headers=location)


async def change_workload(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    asked, _ = await read_body(WorkloadPatch)
    workload = await sight.workload(backend, caller, workload_id)
    licence_id = asked.licence_id
    if isinstance(licence_id, str):
        licence_id = form_of_id(licence_id, "/licence_id")
    change = WorkloadChange(
        name=None if asked.name is msgspec.UNSET else asked.name,
        kind=None if asked.kind is msgspec.UNSET else asked.kind,
        licence_id=licence_id,
    )
    with refusals():
        workload = await backend.stores.registration.change_workload(
            workload.workload_id,
            change,
            act=act_of(backend, caller),
            asker=asker_of(caller, workload.project_id),
        )
    return reply(registered_workload(workload))


async def retire_workload(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    workload = await sight.workload(backend, caller, workload_id)
    with refusals():
        workload = await backend.stores.registration.retire_workload(
            workload.workload_id, act=act_of(backend, caller)
        )
    return reply(registered_workload(workload))


_NOW = {200: Answer(description="The workload as it is registered now", type=RegisteredWorkload)}

ROUTES = (
    Route(
        method="POST",
        path="/v1/nodes/{node_id}/workloads",
        handler=add_workload,
        summary="Put a workload on a node, under a licence",
        tag="workloads",
        creates=True,
        body=WorkloadToRegister,
        answers={201: Answer(description="The workload", type=RegisteredWorkload)},
        refusals=(400, 404, 409, 422),
    ),
    Route(
        method="PATCH",
        path="/v1/workloads/{workload_id}",
        handler=change_workload,
        summary="Rename a workload, make it another kind, or run it under another licence",
        tag="workloads",
        body=WorkloadPatch,
        answers=_NOW,
        refusals=(400, 404, 409, 422),
    ),
    Route(
        method="POST",
        path="/v1/workloads/{workload_id}/retire",
        handler=retire_workload,
        summary="Retire a workload; what it did stays",
        tag="workloads",
        answers=_NOW,
        refusals=(404, 409),
    ),
)
