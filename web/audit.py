"""`GET /v1/audit`: who changed what, newest first."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from quart import Response, request

from engine.core.audit import AuditEntry, AuditFilter
from engine.core.people import Principal
from web import sight
from web.backend import Backend
from web.lists import text_filter, text_parameter
from web.paging import PARAMETERS, cut, limit_parameter, link_headers
from web.problems import bad_parameter
from web.routing import Answer, Parameter, Route, integer_parameter, reply
from web.times import format_rfc3339

CHECKED_MAX = 5_000  # entries looked at in one request


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


class ChainAnswer(msgspec.Struct, frozen=True):
    """`upto`: the last entry that was looked at; 0: there is none. `hash`: hex, of the last one that holds:
    whoever notes it elsewhere will see later that nothing before it was changed or cut off. `broken`: the
    first entry that is not as it was written. `more`: others follow; ask again with `after` = `upto`."""

    upto: int
    hash: str
    broken: int | None
    more: bool


async def check_chain(backend: Backend, _caller: Principal) -> Response:
    limit = integer_parameter("limit", default=CHECKED_MAX, least=1, most=CHECKED_MAX)
    part = await backend.stores.audit.check(after=_cursor(), limit=limit)
    return reply(ChainAnswer(upto=part.upto, hash=part.hash.hex(), broken=part.broken, more=part.more))


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
        project_id=project_id,
        after=before,
        limit=limit + 1,
        newest_first=True,
        only=AuditFilter(
            actor=text_parameter("actor"), action=text_parameter("action"), subject=text_parameter("subject")
        ),
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
            text_filter("actor", "Only what this one did: user:<id>, key:<id>, node:<id>"),
            text_filter("action", "Only this, such as node.revoke"),
            text_filter("subject", "Only what was done to the thing with this id"),
        ),
        answers={200: Answer(description="A page of entries", type=AuditAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/audit/chain",
        handler=check_chain,
        summary="Whether the audit log is as it was written: its chain of hashes, part by part",
        tag="audit",
        parameters=(
            Parameter(name="after", description="`upto` of the part before; without it from the beginning"),
            Parameter(
                name="limit",
                description="Entries to look at",
                schema={"type": "integer", "minimum": 1, "maximum": CHECKED_MAX, "default": CHECKED_MAX},
            ),
        ),
        answers={200: Answer(description="What was found", type=ChainAnswer)},
        refusals=(400,),
    ),
)
