"""`/v1/projects`: what may be looked at by anybody who signed in, and who owns what.

What holds for a project from which day on is project_policies.py's; its kinds, points and channels have
modules of their own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Response

from engine.core.catalog import OwnerRecord, ProjectRecord, TakenError
from engine.core.people import Principal, Role
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import SLUG, canonical_uuid
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, not_found
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339

Slug = Annotated[str, msgspec.Meta(pattern=f"^{SLUG.pattern}$", max_length=63)]
Name = Annotated[str, msgspec.Meta(max_length=200)]


class ProjectAnswer(msgspec.Struct, frozen=True):
    """A project. Keys of a retired one do not work. `public_status`: anybody may see its status page and
    badges, without signing in."""

    project_id: str
    slug: str
    name: str
    created_at: str
    retired_at: str | None
    public_status: bool


class ProjectsAnswer(msgspec.Struct, frozen=True):
    """A page of projects, by id."""

    items: list[ProjectAnswer]
    next_cursor: str | None


class NewProject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A project to be made. `slug`: what it is called in paths, for ever."""

    slug: Slug
    name: Name = ""


class ProjectChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays. `retired`: for admins only."""

    name: Name | None = None
    retired: bool | None = None
    public_status: bool | None = None


class OwnerAnswer(msgspec.Struct, frozen=True):
    """A person who owns a project, since when."""

    user_id: str
    name: str
    since: str


class ProjectOwnersAnswer(msgspec.Struct, frozen=True):
    """A page of owners, by their ids."""

    items: list[OwnerAnswer]
    next_cursor: str | None


def checked_slug(slug: str) -> str:
    """RefusedError 400: a pattern in a schema lets a line break at the end pass."""
    if not SLUG.fullmatch(slug):
        fault = Fault("lower case letters, digits and hyphens, 63 at most", "/slug")
        raise RefusedError(400, "malformed", "the slug is none", errors=(fault,))
    return slug


def _answer(project: ProjectRecord) -> ProjectAnswer:
    return ProjectAnswer(
        project_id=project.project_id,
        slug=project.slug,
        name=project.name,
        created_at=format_rfc3339(project.created_ms),
        retired_at=None if project.retired_ms is None else format_rfc3339(project.retired_ms),
        public_status=project.public_status,
    )


async def list_projects(backend: Backend, caller: Principal) -> Response:
    limit = limit_parameter()
    only = None if caller.project_id is None else (caller.project_id,)
    found = await backend.stores.projects.projects(only=only, after=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda project: project.project_id)
    answer = ProjectsAnswer(items=[_answer(project) for project in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


async def create_project(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NewProject)
    try:
        made = await backend.stores.projects.create_project(
            act_of(backend, caller), slug=checked_slug(asked.slug), name=asked.name
        )
    except TakenError as error:
        raise RefusedError(409, "taken", str(error), errors=(Fault(str(error), "/slug"),)) from error
    return reply(_answer(made), 201, {"location": f"/v1/projects/{made.slug}"})


async def get_project(backend: Backend, caller: Principal, *, slug: str) -> Response:
    seen = await sight.public_project(backend, caller, slug)
    return reply(_answer(_there(await backend.stores.projects.project(seen.project_id))))


async def change_project(backend: Backend, caller: Principal, *, slug: str) -> Response:
    seen = await sight.project(backend, caller, slug)
    asked, _ = await read_body(ProjectChange)
    if asked.retired is not None and Role.ADMIN not in caller.roles:
        raise RefusedError(403, "forbidden", "only an admin may retire a project, or take that back")
    changed = await backend.stores.projects.change_project(
        act_of(backend, caller),
        seen.project_id,
        name=asked.name,
        retired=asked.retired,
        public_status=asked.public_status,
    )
    return reply(_answer(_there(changed)))


def _there(project: ProjectRecord | None) -> ProjectRecord:
    assert project is not None, "projects are never deleted"
    return project


# -- owners -----------------------------------------------------------------------------------------------


def _owner(owner: OwnerRecord) -> OwnerAnswer:
    return OwnerAnswer(user_id=owner.user_id, name=owner.name, since=format_rfc3339(owner.since_ms))


async def list_project_owners(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project, limit = await sight.project(backend, caller, slug), limit_parameter()
    found = await backend.stores.projects.owners(project.project_id, after=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda owner: owner.user_id)
    answer = ProjectOwnersAnswer(items=[_owner(owner) for owner in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


async def add_project_owner(backend: Backend, caller: Principal, *, slug: str, user_id: str) -> Response:
    project = await sight.project(backend, caller, slug)
    person, owner = canonical_uuid(user_id), None
    if person is not None:
        act = act_of(backend, caller)
        owner = await backend.stores.projects.add_owner(act, project.project_id, person)
    if owner is None:
        raise not_found("user")
    return reply(_owner(owner))


async def remove_project_owner(backend: Backend, caller: Principal, *, slug: str, user_id: str) -> Response:
    project = await sight.project(backend, caller, slug)
    person, act = canonical_uuid(user_id), act_of(backend, caller)
    if person is None or not await backend.stores.projects.remove_owner(act, project.project_id, person):
        raise not_found("owner")
    return Response(b"", 204)


_ONE = {200: Answer(description="The project", type=ProjectAnswer)}
_OWNER = "/v1/projects/{slug}/owners/{user_id}"

ROUTES = (
    Route(
        method="GET",
        path="/v1/projects",
        handler=list_projects,
        summary="Projects, by cursor",
        tag="projects",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of projects", type=ProjectsAnswer)},
    ),
    Route(
        method="POST",
        path="/v1/projects",
        handler=create_project,
        summary="Make a project",
        tag="projects",
        creates=True,
        body=NewProject,
        answers={201: Answer(description="The project", type=ProjectAnswer)},
        refusals=(409,),
    ),
    Route(
        method="GET",
        path="/v1/projects/{slug}",
        handler=get_project,
        summary="A project",
        tag="projects",
        answers=_ONE,
        refusals=(404,),
    ),
    Route(
        method="PATCH",
        path="/v1/projects/{slug}",
        handler=change_project,
        summary="Rename or retire a project, or let anybody see how it is",
        tag="projects",
        body=ProjectChange,
        answers=_ONE,
        refusals=(404,),
    ),
    Route(
        method="GET",
        path="/v1/projects/{slug}/owners",
        handler=list_project_owners,
        summary="Who owns a project, by cursor",
        tag="projects",
        parameters=PARAMETERS,
        answers={200: Answer(description="A page of owners", type=ProjectOwnersAnswer)},
        refusals=(404,),
    ),
    Route(
        method="PUT",
        path=_OWNER,
        handler=add_project_owner,
        summary="Make somebody an owner of a project",
        tag="projects",
        answers={200: Answer(description="The owner", type=OwnerAnswer)},
        refusals=(404,),
    ),
    Route(
        method="DELETE",
        path=_OWNER,
        handler=remove_project_owner,
        summary="Let somebody own a project no longer",
        tag="projects",
        answers={204: Answer(description="They do not own it any more")},
        refusals=(404,),
    ),
)
