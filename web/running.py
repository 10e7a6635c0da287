"""`GET /v1/workloads/{workload_id}/version`: what runs, and what its manager is asked to run.

Managers ask and report in manager.py; what is offered to whom is decided in engine/core/rollout.py.
"""

from __future__ import annotations

import msgspec
from quart import Response

from engine.core.people import Principal
from web import sight
from web.backend import Backend
from web.problems import not_found
from web.routing import Answer, Route, reply_polled


class VersionsOfWorkload(msgspec.Struct, frozen=True):
    """`running_version`: as its manager reported it; null: not yet. `wanted_version`: what its manager is
    asked to run; null: none. `below_minimum`: what runs is older than the project's minimum."""

    workload_id: str
    kind: str | None
    running_version: str | None
    wanted_version: str | None
    minimum_version: str | None
    below_minimum: bool


async def get_versions(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    workload = await sight.workload(backend, caller, workload_id)
    running = await backend.stores.orders.running(workload.workload_id)
    if running is None:
        raise not_found("workload")
    return reply_polled(
        VersionsOfWorkload(
            workload_id=workload.workload_id,
            kind=workload.kind,
            running_version=running.running_version,
            wanted_version=running.version,
            minimum_version=running.minimum_version,
            below_minimum=running.below_minimum,
        )
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/workloads/{workload_id}/version",
        handler=get_versions,
        summary="The version that runs, and the one that should",
        tag="workloads",
        answers={200: Answer(description="The versions", type=VersionsOfWorkload)},
        refusals=(404,),
    ),
)
