"""`/v1/projects/{slug}/kinds/{kind}/versions`: what may run, and on how many of the nodes.

A version never changes but for its rollout and for being withdrawn; its manifest is kept byte for byte as it
was sent. Which nodes a rollout reaches is engine/core/rollout.py's; how they hear of it, the worker's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Response

from engine.core.catalog import CatalogRefusedError, KindRecord, TakenError, VersionRecord
from engine.core.people import Principal
from engine.core.ports import Project
from engine.core.versions import is_version
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.kinds import VersionText, kind_of
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, not_found
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339

MANIFEST_BYTES_MAX = 256 * 1024
BODY_BYTES_MAX = 6 * MANIFEST_BYTES_MAX + 4_096  # a byte may be sent as \u00xx

Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
ManifestText = Annotated[str, msgspec.Meta(min_length=2, max_length=MANIFEST_BYTES_MAX)]


class VersionItem(msgspec.Struct, frozen=True):
    """A version in a list, without its manifest. `digest`: sha256 of the manifest's UTF-8 bytes."""

    version_id: str
    version: str
    digest: str
    rollout_percent: int
    created_at: str
    withdrawn_at: str | None


class VersionAnswer(VersionItem, frozen=True):
    """A version with its manifest, byte for byte as it was sent."""

    manifest: str


class VersionsAnswer(msgspec.Struct, frozen=True):
    """A page of versions, in the order in which they were made."""

    items: list[VersionItem]
    next_cursor: str | None


class NewVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version to be offered: SemVer 2.0.0, its manifest (a JSON object as text, up to 256 KiB).

    `rollout_percent`: of the nodes, chosen by hash: those of 10 are among those of 50.
    """

    version: VersionText
    manifest: ManifestText
    rollout_percent: Percent = 0


class VersionChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays. The rollout may grow and shrink."""

    rollout_percent: Percent | None = None
    withdrawn: bool | None = None


def checked_version(version: str) -> str:
    """RefusedError 400: a pattern in a schema lets a line break at the end pass."""
    if not is_version(version):
        fault = Fault("not a version of SemVer 2.0.0", "/version")
        raise RefusedError(400, "malformed", "the version is none", errors=(fault,))
    return version


def _item(version: VersionRecord) -> VersionItem:
    return VersionItem(
        version_id=version.version_id,
        version=version.version,
        digest=version.digest,
        rollout_percent=version.rollout_percent,
        created_at=format_rfc3339(version.created_ms),
        withdrawn_at=None if version.withdrawn_ms is None else format_rfc3339(version.withdrawn_ms),
    )


def _answer(version: VersionRecord) -> VersionAnswer:
    return VersionAnswer(**msgspec.structs.asdict(_item(version)), manifest=version.manifest)


async def list_versions(backend: Backend, caller: Principal, *, slug: str, kind: str) -> Response:
    project, limit = await sight.public_project(backend, caller, slug), limit_parameter()
    of = await kind_of(backend, project.project_id, kind)
    found = await backend.stores.catalog.versions(of.kind_id, after=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda version: version.version_id)
    answer = VersionsAnswer(items=[_item(version) for version in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


async def create_version(backend: Backend, caller: Principal, *, slug: str, kind: str) -> Response:
    project, of = await _mine(backend, caller, slug, kind)
    asked, _ = await read_body(NewVersion)
    checked_version(asked.version)
    _check_manifest(asked.manifest)
    try:
        made = await backend.stores.catalog.create_version(
            act_of(backend, caller),
            of.kind_id,
            version=asked.version,
            manifest=asked.manifest,
            rollout_percent=asked.rollout_percent,
        )
    except TakenError as error:
        raise RefusedError(409, "taken", str(error), errors=(Fault(str(error), "/version"),)) from error
    except CatalogRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    where = f"/v1/projects/{project.slug}/kinds/{of.slug}/versions/{made.version}"
    return reply(_answer(made), 201, {"location": where.replace("+", "%2B")})


def manifest_fault(manifest: str) -> str | None:
    """Why a text is no manifest, which is a JSON object; None when it is one."""
    try:
        msgspec.json.decode(manifest, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        return f"the manifest is not a JSON object: {error}"
    return None


def _check_manifest(manifest: str) -> None:
    """RefusedError 413, 422."""
    if len(manifest.encode()) > MANIFEST_BYTES_MAX:
        raise RefusedError(413, "too_large", f"a manifest may have {MANIFEST_BYTES_MAX} bytes")
    if fault := manifest_fault(manifest):
        raise RefusedError(422, "bad_manifest", fault, errors=(Fault(fault, "/manifest"),))


async def get_version(backend: Backend, caller: Principal, *, slug: str, kind: str, version: str) -> Response:
    project = await sight.public_project(backend, caller, slug)
    of = await kind_of(backend, project.project_id, kind)
    return reply(_answer(await _version_of(backend, of, version)))


async def change_version(
    backend: Backend, caller: Principal, *, slug: str, kind: str, version: str
) -> Response:
    _, of = await _mine(backend, caller, slug, kind)
    found = await _version_of(backend, of, version)
    asked, _ = await read_body(VersionChange)
    try:
        changed = await backend.stores.catalog.change_version(
            act_of(backend, caller),
            found.version_id,
            rollout_percent=asked.rollout_percent,
            withdrawn=asked.withdrawn,
        )
    except CatalogRefusedError as error:
        raise RefusedError(409, "refused", str(error)) from error
    assert changed is not None, "versions are never deleted"
    return reply(_answer(changed))


async def _mine(backend: Backend, caller: Principal, slug: str, kind: str) -> tuple[Project, KindRecord]:
    project = await sight.project(backend, caller, slug)
    return project, await kind_of(backend, project.project_id, kind)


async def _version_of(backend: Backend, kind: KindRecord, version: str) -> VersionRecord:
    found = await backend.stores.catalog.version(kind.kind_id, version) if is_version(version) else None
    if found is None:
        raise not_found("version")
    return found


_VERSIONS = "/v1/projects/{slug}/kinds/{kind}/versions"
_VERSION = _VERSIONS + "/{version}"
_ONE = {200: Answer(description="The version", type=VersionAnswer)}

ROUTES = (
    Route(
        method="GET",
        path=_VERSIONS,
        handler=list_versions,
        summary="Versions of a kind, by cursor",
        tag="kinds",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of versions", type=VersionsAnswer)},
        refusals=(404,),
    ),
    Route(
        method="POST",
        path=_VERSIONS,
        handler=create_version,
        summary="Offer a version",
        tag="kinds",
        creates=True,
        body=NewVersion,
        body_bytes_max=BODY_BYTES_MAX,
        answers={201: Answer(description="The version", type=VersionAnswer)},
        refusals=(404, 409, 413, 422),
    ),
    Route(
        method="GET",
        path=_VERSION,
        handler=get_version,
        summary="A version with its manifest",
        tag="kinds",
        answers=_ONE,
        refusals=(404,),
    ),
    Route(
        method="PATCH",
        path=_VERSION,
        handler=change_version,
        summary="Roll a version out further, or back, or withdraw it",
        tag="kinds",
        body=VersionChange,
        answers=_ONE,
        refusals=(404, 409),
    ),
)
