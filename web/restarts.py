"""`POST /v1/workloads/{id}/restart`: a project orders a restart; its manager hears of it with its next beat.

The restart costs the operator nothing: a window opens when the manager fetches the order (orders.py in
engine/core), as far as the cap on maintenance leaves room for one.
"""

from __future__ import annotations

import msgspec
from quart import Response

from engine.core.orders import RestartRefusedError
from engine.core.people import Principal
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.problems import RefusedError, not_found
from web.routing import Answer, Route, reply


class RestartAnswer(msgspec.Struct, frozen=True):
    """`restarts`: how many were ordered of this workload so far; the manager reports how many it has done."""

    workload_id: str
    restarts: int


async def order_restart(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    workload = await sight.workload(backend, caller, workload_id)
    try:
        restarts = await backend.stores.orders.order_restart(act_of(backend, caller), workload.workload_id)
    except RestartRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    if restarts is None:
        raise not_found("workload")
    return reply(RestartAnswer(workload_id=workload.workload_id, restarts=restarts), 202)


ROUTES = (
    Route(
        method="POST",
        path="/v1/workloads/{workload_id}/restart",
        handler=order_restart,
        summary="Order a restart of a workload",
        tag="workloads",
        creates=True,
        answers={202: Answer(description="It is ordered", type=RestartAnswer)},
        refusals=(404, 409),
    ),
)
