"""`/v1/manager`: what a node's manager asks and reports, with its session token as bearer.

A manager sees its own node only: anybody else's workload is 404. Fetching the desired state ends RESYNC and
opens the windows of what it orders; reporting what runs closes them. The rules of both are in storage
(postgres_desired.py, postgres_orders.py).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from quart import Response

from engine.core.orders import DesiredState, DesiredWorkload, UnknownVersionError
from engine.core.people import Principal
from web.backend import Backend
from web.ids import canonical_uuid
from web.kinds import VersionText
from web.problems import Fault, RefusedError, not_found
from web.routing import Answer, Route, read_body, reply, reply_polled
from web.times import format_rfc3339

_INTEGER_MAX = 2_147_483_647


class DesiredWorkloadAnswer(msgspec.Struct, frozen=True):
    """One workload as it should be. `version` null: none is asked for; what runs may run on.

    `running_version`: as it was reported last. `restarts`: ordered so far; report them when they are done.
    `digest`: of the manifest at `manifest_url`.
    """

    workload_id: str
    slot: int
    name: str
    kind: str | None
    version: str | None
    running_version: str | None
    digest: str | None
    restarts: int
    manifest_url: str | None


class DesiredAnswer(msgspec.Struct, frozen=True):
    """What a node should run. The ETag changes exactly when something else is asked for."""

    node_id: str
    interval_ms: int
    workloads: list[DesiredWorkloadAnswer]


class RunningReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What runs now; what is left out is as before. `restarts`: how many of those ordered are done."""

    version: VersionText | None = None
    restarts: Annotated[int, msgspec.Meta(ge=0, le=_INTEGER_MAX)] | None = None


class RunningAnswer(msgspec.Struct, frozen=True):
    """What runs, and what should. `restarts`: ordered so far."""

    workload_id: str
    running_version: str | None
    version: str | None
    minimum_version: str | None
    below_minimum: bool
    restarts: int


class ManagerReleaseAnswer(msgspec.Struct, frozen=True):
    """The release that this node's manager should be."""

    version: str
    url: str
    sha256: str
    signature: str
    released_at: str


def _node_of(caller: Principal) -> str:
    assert caller.node_id is not None, "the policy lets only managers in"
    return caller.node_id


async def get_desired(backend: Backend, caller: Principal) -> Response:
    state = await backend.stores.orders.fetch(_node_of(caller), now_ms=backend.clock())
    if state is None:
        raise not_found("node")
    # Weak: names, and what runs, are told as well and are not part of what is asked for.
    return reply_polled(_desired(state), etag=f'W/"{state.digest.hex()}"')


def _desired(state: DesiredState) -> DesiredAnswer:
    return DesiredAnswer(
        node_id=state.node_id,
        interval_ms=state.interval_ms,
        workloads=[_workload(workload) for workload in state.workloads],
    )


def _workload(workload: DesiredWorkload) -> DesiredWorkloadAnswer:
    wanted = workload.wanted
    manifest_url = None if workload.version is None else f"/v1/manager/manifests/{wanted.workload_id}"
    return DesiredWorkloadAnswer(
        workload_id=wanted.workload_id,
        slot=wanted.slot,
        name=workload.name,
        kind=workload.kind,
        version=workload.version,
        running_version=workload.running_version,
        digest=workload.digest,
        restarts=wanted.restarts,
        manifest_url=manifest_url,
    )


async def get_manifest(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    key = canonical_uuid(workload_id)
    found = await backend.stores.orders.manifest(_node_of(caller), key) if key else None
    if found is None:
        raise not_found("manifest")
    return reply_polled(msgspec.Raw(found.manifest.encode()), etag=f'"{found.digest}"')


async def put_running_version(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    asked, _ = await read_body(RunningReport)
    key = canonical_uuid(workload_id)
    try:
        running = await backend.stores.orders.report(
            _node_of(caller),
            key or "",
            version=asked.version,
            restarts=asked.restarts,
            now_ms=backend.clock(),
        )
    except UnknownVersionError as error:
        fault = Fault(str(error), "/version")
        raise RefusedError(422, "unknown_version", str(error), errors=(fault,)) from error
    if running is None:
        raise not_found("workload")
    return reply(
        RunningAnswer(
            workload_id=running.workload_id,
            running_version=running.running_version,
            version=running.version,
            minimum_version=running.minimum_version,
            below_minimum=running.below_minimum,
            restarts=running.wanted.restarts,
        )
    )


async def get_manager_release(backend: Backend, caller: Principal) -> Response:
    found = await backend.stores.releases.release_for(_node_of(caller))
    if found is None:
        raise not_found("release")
    return reply_polled(
        ManagerReleaseAnswer(
            version=found.version,
            url=found.url,
            sha256=found.sha256,
            signature=found.signature,
            released_at=format_rfc3339(found.created_ms),
        )
    )


def _polled(description: str, kind: Any) -> dict[int, Answer]:
    return {
        200: Answer(description=description, type=kind),
        304: Answer(description="As you have it (If-None-Match)"),
    }


ROUTES = (
    Route(
        method="GET",
        path="/v1/manager/desired",
        handler=get_desired,
        summary="What the node should run",
        tag="manager",
        answers=_polled("The desired state", DesiredAnswer),
        refusals=(404,),
    ),
    Route(
        method="GET",
        path="/v1/manager/manifests/{workload_id}",
        handler=get_manifest,
        summary="The manifest of the version that a workload should run, byte for byte as it was offered",
        tag="manager",
        answers=_polled("The manifest", None),
        refusals=(404,),
    ),
    Route(
        method="PUT",
        path="/v1/manager/workloads/{workload_id}/version",
        handler=put_running_version,
        summary="Report what runs now",
        tag="manager",
        body=RunningReport,
        answers={200: Answer(description="What runs, and what should", type=RunningAnswer)},
        refusals=(404, 422),
    ),
    Route(
        method="GET",
        path="/v1/manager/release",
        handler=get_manager_release,
        summary="The release of the manager that this node should have",
        tag="manager",
        answers=_polled("The release", ManagerReleaseAnswer),
        refusals=(404,),
    ),
)
