"""`/v1/notifications`: what whoever runs a project tells the operators of its nodes, and what came of it.

Which nodes are in a state is asked of the live view; whom that reaches, and sending, is the outbox's.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
import numpy as np
from quart import Response

from engine.core.announcements import Announcement, Audience, TooManyAnnouncementsError
from engine.core.people import Principal
from engine.core.records import NODE_STATES, NodeState
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.lists import PROJECT, project_parameter
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, unavailable
from web.routing import Answer, Route, read_body, reply
from web.summaries import PART
from web.times import format_rfc3339
from web.view_arrays import look

TITLE_CHARS_MAX, TEXT_CHARS_MAX = 200, 10_000
Slug = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
Title = Annotated[
    str, msgspec.Meta(min_length=1, max_length=TITLE_CHARS_MAX, pattern=r"^[^\r\n]*\S[^\r\n]*$")
]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class AnnouncementFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the project's nodes; what is left out does not narrow. `kind` and `version`: a workload on the
    node is of this kind and reported this version. `states`: the node's now."""

    kind: Slug | None = None
    version: Word | None = None
    region: Word | None = None
    states: Annotated[list[NodeState], msgspec.Meta(max_length=len(NODE_STATES))] = []
    EXAMPLES: ClassVar[dict[str, object]] = {"states": ["up", "down"]}


class NewAnnouncement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`project`: whose nodes' operators are told; only an admin may leave it out, for all."""

    title: Title
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
    project: Slug | None = None
    filter: AnnouncementFilter = msgspec.field(default_factory=AnnouncementFilter)
    EXAMPLES: ClassVar[dict[str, object]] = {"title": "Version 2.1.0 is out", "text": "Please update."}


class ReachAnswer(msgspec.Struct, frozen=True):
    """Whom it would reach: nodes that match, their operators, those of them with a channel that takes
    announcements, and the messages that would be sent."""

    nodes: int
    operators: int
    people: int
    channels: int


class AnnouncementAnswer(msgspec.Struct, frozen=True):
    """An announcement: how many nodes, people and channels it was for, and of its messages how many were
    sent and how many given up. `project` null: of the installation."""

    announcement_id: str
    project: str | None
    title: str
    text: str
    filter: AnnouncementFilter
    actor: str
    created_at: str
    nodes: int
    people: int
    channels: int
    sent: int
    dead: int


class AnnouncementsAnswer(msgspec.Struct, frozen=True):
    """A page, the newest first."""

    items: list[AnnouncementAnswer]
    next_cursor: str | None


async def announce(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NewAnnouncement)
    audience = await _audience(backend, caller, asked)
    try:
        made = await backend.stores.announcements.announce(
            audience,
            rows=await _rows(backend, audience, asked.filter.states),
            title=asked.title,
            text=asked.text,
            filter_json=msgspec.json.encode(asked.filter).decode(),
            per_day_max=backend.settings.announcements_per_day_max,
            act=act_of(backend, caller),
        )
    except TooManyAnnouncementsError as error:
        raise RefusedError(429, "too_many_announcements", str(error)) from error
    return reply(_answer(made), 201)


async def preview_announcement(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NewAnnouncement)
    audience = await _audience(backend, caller, asked)
    rows = await _rows(backend, audience, asked.filter.states)
    reach = await backend.stores.announcements.reach(audience, rows=rows)
    return reply(msgspec.convert(reach, ReachAnswer, from_attributes=True))


async def list_announcements(backend: Backend, caller: Principal) -> Response:
    project_id = await project_parameter(backend, caller)
    projects: tuple[str, ...] | None = None if caller.scope == "admin" else caller.owned_projects
    if project_id is not None:
        mine = projects is None or project_id in projects
        projects = (project_id,) if mine else ()
    limit = limit_parameter()
    found = await backend.stores.announcements.announcements(projects, before=id_cursor(), limit=limit + 1)
    page, next_cursor = cut(found, limit, lambda one: one.announcement_id)
    items = [_answer(one) for one in page]
    return reply(AnnouncementsAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def _audience(backend: Backend, caller: Principal, asked: NewAnnouncement) -> Audience:
    which = asked.filter
    project_id = None
    if asked.project is not None:
        project_id = (await sight.project(backend, caller, asked.project)).project_id
    elif caller.scope != "admin":
        fault = "name a project of yours: only an admin tells everybody"
        raise RefusedError(422, "invalid", fault, errors=[Fault(fault, "/project")])
    return Audience(project_id=project_id, kind=which.kind, version=which.version, region=which.region)


async def _rows(backend: Backend, audience: Audience, states: list[NodeState]) -> np.ndarray | None:
    """Those of the audience's nodes that are in one of these states now; None: in any. RefusedError 503."""
    if not states:
        return None
    wanted = [NODE_STATES.index(state) for state in states]
    rows = await backend.stores.announcements.rows(audience)
    found = [rows[:0]]
    for first in range(0, len(rows), PART):
        part = rows[first : first + PART]
        seen, _undecided = await look(backend, part, np.zeros(len(part), np.int64))
        if not seen.known.all():
            raise unavailable("the live view is away: nothing can be told by state")
        found.append(part[np.isin(seen.node_state, wanted)])
    return np.concatenate(found)


def _answer(made: Announcement) -> AnnouncementAnswer:
    return AnnouncementAnswer(
        announcement_id=made.announcement_id,
        project=made.project,
        title=made.title,
        text=made.text,
        filter=msgspec.json.decode(made.filter, type=AnnouncementFilter),
        actor=made.actor,
        created_at=format_rfc3339(made.created_ms),
        nodes=made.nodes,
        people=made.people,
        channels=made.channels,
        sent=made.sent,
        dead=made.dead,
    )


ROUTES = (
    Route(
        method="POST",
        path="/v1/notifications",
        handler=announce,
        summary="Tell the operators of a project's nodes something, by their own channels",
        tag="notifications",
        body=NewAnnouncement,
        creates=True,
        answers={201: Answer(description="It is in the outbox", type=AnnouncementAnswer)},
        refusals=(400, 404, 409, 422, 429, 503),
    ),
    Route(
        method="POST",
        path="/v1/notifications/preview",
        handler=preview_announcement,
        summary="How many such an announcement would reach; nothing is sent",
        tag="notifications",
        body=NewAnnouncement,
        answers={200: Answer(description="Whom it would reach", type=ReachAnswer)},
        refusals=(400, 404, 422, 503),
    ),
    Route(
        method="GET",
        path="/v1/notifications",
        handler=list_announcements,
        summary="What was announced, and how many were reached",
        tag="notifications",
        parameters=(PROJECT, *PARAMETERS),
        answers={200: Answer(description="A page of announcements", type=AnnouncementsAnswer)},
        refusals=(400, 404),
    ),
)
