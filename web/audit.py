"""`GET /v1/audit`: who changed what, newest first."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from quart import Response, request

from engine.core.audit import AuditEntry
from engine.core.people import Principal
from web import sight
from web.backend import Backend
from web.paging import PARAMETERS, cut, limit_parameter, link_headers
from web.problems import bad_parameter
from web.routing import Answer, Parameter, Route, reply
from web.times import format_rfc3339


class AuditItem(msgspec.Struct, frozen=True):
    """One act. `actor`: user:<id>, key:<id>, node:<id>; `subject`: the id of what was changed. `hash`: hex,
    over the entry and the hash of the one before it, `previous`."""

    seq: int
    at: str
    actor: str
    action: str
    subject: str
    project_id: str | None
    request_id: str
    detail: dict[str, Any]
    previous: str
    hash: str


class AuditAnswer(msgspec.Struct, frozen=True):
    """A page of entries, newest first."""

    items: list[AuditItem]
    next_cursor: str | None


async def list_audit(backend: Backend, caller: Principal) -> Response:
    limit = limit_parameter()
    before = _cursor()
    slug = request.args.get("project")
    if slug is not None:
        project_id: str | None = (await sight.project(backend, caller, slug)).project_id
    elif caller.scope == "admin":
        project_id = None
    elif len(caller.owned_projects) == 1:
        project_id = caller.owned_projects[0]
    else:
        raise bad_parameter("project", "say which of your projects")
    found = await backend.stores.audit.entries(
        project_id=project_id, after=before, limit=limit + 1, newest_first=True
    )
    page, next_cursor = cut(found, limit, lambda entry: str(entry.seq))
    answer = AuditAnswer(items=[_item(entry) for entry in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


def _cursor() -> int:
    text = request.args.get("after")
    if text is None:
        return 0
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text, re.ASCII):
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    return int(text)


def _item(entry: AuditEntry) -> AuditItem:
    return AuditItem(
        seq=entry.seq,
        at=format_rfc3339(entry.at_ms),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        project_id=entry.project_id,
        request_id=entry.request_id,
        detail=msgspec.json.decode(entry.detail, type=dict[str, Any]),
        previous=entry.previous.hex(),
        hash=entry.hash.hex(),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/audit",
        handler=list_audit,
        summary="Who changed what, newest first; an owner reads that of a project",
        tag="audit",
        parameters=(
            *PARAMETERS,
            Parameter(name="project", description="Only what was done in this project (slug)"),
        ),
        answers={200: Answer(description="A page of entries", type=AuditAnswer)},
        refusals=(400, 404),
    ),
)
