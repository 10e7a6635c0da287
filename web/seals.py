"""Sealed days of a project as everybody who signed in may see them: roots, sums, revisions.

What is sealed and when is the worker's (worker/sealer.py); rows with their proofs, and corrections, are told
elsewhere.
"""

from __future__ import annotations

import msgspec
from quart import Response, request

from engine.core.people import Principal
from engine.core.sealed import Seal
from web import sight
from web.backend import Backend
from web.paging import PARAMETERS, limit_parameter, link_headers
from web.problems import bad_parameter, not_found
from web.routing import Answer, Parameter, Route, integer_parameter, reply_polled
from web.times import format_rfc3339, parse_day

REVISION_MAX = 2**31 - 1


class SealAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A revision of a day. `root`: over its rows, hex. `reason`: why it was sealed again; empty at first."""

    project: str
    day: str
    revision: int
    reason: str
    rows: int
    nodes: int
    paid_ms: int
    root: str
    sealed_at: str


class SealDetail(SealAnswer, frozen=True, kw_only=True):
    """`hour_roots`: of the 24 hours. `ms`: of all rows by kind."""

    hour_roots: list[str]
    ms: dict[str, int]


class SealsAnswer(msgspec.Struct, frozen=True):
    """A page of days, the newest first, each with all of its revisions."""

    items: list[SealAnswer]
    next_cursor: str | None


def seal_answer(seal: Seal) -> SealAnswer:
    return SealAnswer(
        project=seal.project,
        day=seal.day,
        revision=seal.revision,
        reason=seal.reason,
        rows=seal.rows,
        nodes=seal.nodes,
        paid_ms=seal.paid_ms,
        root=seal.root.hex(),
        sealed_at=format_rfc3339(seal.sealed_ms),
    )


async def list_seals(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.public_project(backend, caller, slug)
    limit, before = limit_parameter(), request.args.get("after")
    if before is not None:
        try:
            parse_day(before)
        except ValueError as error:
            raise bad_parameter("after", "is not a cursor: take next_cursor of a page") from error
    found = await backend.stores.seals.seals(project.project_id, before=before, limit=limit + 1)
    days = sorted({seal.day for seal in found}, reverse=True)
    cursor = days[limit - 1] if len(days) > limit else None
    items = [seal_answer(seal) for seal in found if seal.day in days[:limit]]
    answer = reply_polled(SealsAnswer(items=items, next_cursor=cursor))
    answer.headers.update(link_headers(cursor))
    return answer


async def get_seal(backend: Backend, caller: Principal, *, slug: str, day: str) -> Response:
    project = await sight.public_project(backend, caller, slug)
    revision: int | None = None
    if "revision" in request.args:
        revision = integer_parameter("revision", default=1, least=1, most=REVISION_MAX)
    seal = await sealed_day(backend, project.project_id, day, revision=revision)
    detail = SealDetail(
        **msgspec.structs.asdict(seal_answer(seal)),
        hour_roots=[root.hex() for root in seal.hour_roots],
        ms=await backend.stores.seals.kinds_ms(seal),
    )
    return reply_polled(detail)


async def sealed_day(backend: Backend, project_id: str, day: str, *, revision: int | None = None) -> Seal:
    """The day's newest revision or the one asked for. RefusedError 404, also for what is no day."""
    try:
        parse_day(day)
    except ValueError as error:
        raise not_found("seal") from error
    seal = await backend.stores.seals.seal(project_id, day, revision)
    if seal is None:
        raise not_found("seal")
    return seal


ROUTES = (
    Route(
        method="GET",
        path="/v1/projects/{slug}/seals",
        handler=list_seals,
        summary="Sealed days, the newest first, with their revisions",
        tag="seals",
        parameters=PARAMETERS,
        answers={200: Answer(description="Seals; limit counts days", type=SealsAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="GET",
        path="/v1/projects/{slug}/seals/{day}",
        handler=get_seal,
        summary="A sealed day: its roots, and the time of all workloads by kind",
        tag="seals",
        parameters=(
            Parameter(
                name="revision",
                description="Of this revision; without it of the newest",
                schema={"type": "integer", "minimum": 1, "maximum": REVISION_MAX},
            ),
        ),
        answers={200: Answer(description="The seal", type=SealDetail)},
        refusals=(400, 404),
    ),
)
