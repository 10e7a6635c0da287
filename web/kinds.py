"""`/v1/projects/{slug}/kinds`: what runs on nodes. A kind's versions are versions.py's.

A change of the minimum version reaches the managers whose desired state it changes (code RESYNC).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Response

from engine.core.catalog import CatalogRefusedError, KindRecord, TakenError
from engine.core.people import Principal
from engine.core.versions import VERSION_CHARS_MAX, VERSION_PATTERN
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import SLUG
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, not_found
from web.projects import Name, Slug, checked_slug
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339

VersionText = Annotated[str, msgspec.Meta(pattern=VERSION_PATTERN, max_length=VERSION_CHARS_MAX)]


class KindAnswer(msgspec.Struct, frozen=True):
    """A workload kind. `minimum_version`: no node is asked to run less, and who does is told of."""

    kind_id: str
    slug: str
    name: str
    minimum_version: str | None
    created_at: str
    retired_at: str | None


class KindsAnswer(msgspec.Struct, frozen=True):
    """A page of kinds, by id."""

    items: list[KindAnswer]
    next_cursor: str | None


class NewKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind to be made. `slug`: what it is called in paths, for ever."""

    slug: Slug
    name: Name = ""


class KindChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays. A retired kind gets no more versions.

    `minimum_version`: one of the kind's versions that is not withdrawn, null for none.
    """

    name: Name | None = None
    minimum_version: VersionText | msgspec.UnsetType | None = msgspec.UNSET
    retired: bool | None = None


async def kind_of(backend: Backend, project_id: str, slug: str) -> KindRecord:
    """A kind of a project that the caller was let see. RefusedError 404."""
    found = await backend.stores.catalog.kind(project_id, slug) if SLUG.fullmatch(slug) else None
    if found is None:
        raise not_found("kind")
    return found


def _answer(kind: KindRecord) -> KindAnswer:
    return KindAnswer(
        kind_id=kind.kind_id,
        slug=kind.slug,
        name=kind.name,
        minimum_version=kind.minimum_version,
        created_at=format_rfc3339(kind.created_ms),
        retired_at=None if kind.retired_ms is None else format_rfc3339(kind.retired_ms),
    )


async def list_kinds(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project, limit = await sight.public_project(backend, caller, slug), limit_parameter()
    found = await backend.stores.catalog.kinds(project.project_id, after=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda kind: kind.kind_id)
    answer = KindsAnswer(items=[_answer(kind) for kind in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


async def create_kind(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    asked, _ = await read_body(NewKind)
    try:
        made = await backend.stores.catalog.create_kind(
            act_of(backend, caller), project.project_id, slug=checked_slug(asked.slug), name=asked.name
        )
    except TakenError as error:
        raise RefusedError(409, "taken", str(error), errors=(Fault(str(error), "/slug"),)) from error
    return reply(_answer(made), 201, {"location": f"/v1/projects/{project.slug}/kinds/{made.slug}"})


async def get_kind(backend: Backend, caller: Principal, *, slug: str, kind: str) -> Response:
    project = await sight.public_project(backend, caller, slug)
    return reply(_answer(await kind_of(backend, project.project_id, kind)))


async def change_kind(backend: Backend, caller: Principal, *, slug: str, kind: str) -> Response:
    project = await sight.project(backend, caller, slug)
    found = await kind_of(backend, project.project_id, kind)
    asked, _ = await read_body(KindChange)
    try:
        changed = await backend.stores.catalog.change_kind(
            act_of(backend, caller),
            found.kind_id,
            name=asked.name,
            minimum_version=asked.minimum_version,
            retired=asked.retired,
        )
    except CatalogRefusedError as error:
        fault = Fault(str(error), "/minimum_version")
        raise RefusedError(422, "bad_minimum", str(error), errors=(fault,)) from error
    assert changed is not None, "kinds are never deleted"
    return reply(_answer(changed))


_KINDS, _KIND = "/v1/projects/{slug}/kinds", "/v1/projects/{slug}/kinds/{kind}"
_ONE = {200: Answer(description="The kind", type=KindAnswer)}

ROUTES = (
    Route(
        method="GET",
        path=_KINDS,
        handler=list_kinds,
        summary="Workload kinds of a project, by cursor",
        tag="kinds",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of kinds", type=KindsAnswer)},
        refusals=(404,),
    ),
    Route(
        method="POST",
        path=_KINDS,
        handler=create_kind,
        summary="Make a workload kind",
        tag="kinds",
        creates=True,
        body=NewKind,
        answers={201: Answer(description="The kind", type=KindAnswer)},
        refusals=(404, 409),
    ),
    Route(
        method="GET",
        path=_KIND,
        handler=get_kind,
        summary="A workload kind",
        tag="kinds",
        answers=_ONE,
        refusals=(404,),
    ),
    Route(
        method="PATCH",
        path=_KIND,
        handler=change_kind,
        summary="Rename a kind, choose its minimum version, retire it",
        tag="kinds",
        body=KindChange,
        answers=_ONE,
        refusals=(404, 422),
    ),
)
