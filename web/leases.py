"""`/v1/licences/{licence_id}/leases`: which run held a licence when (LIVENESS.md 5).

Who owned it when is licences.py's; that a run stood by meanwhile shows in its uptime.
"""

from __future__ import annotations

import re

import msgspec
from quart import Response, request

from engine.core.leases import LeaseSpan
from engine.core.people import Principal
from web import sight
from web.backend import Backend
from web.paging import PARAMETERS, cut, limit_parameter, link_headers
from web.problems import bad_parameter
from web.routing import Answer, Parameter, Route, boolean_parameter, reply
from web.times import format_rfc3339


class LeaseItem(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The workload `holder_id` held the licence in this time, half-open; other runs stood by.

    `to` null: still does. `ended`: why it ended: stopped, lost, absent, retired, unbound or sold.
    """

    epoch: int
    holder_id: str
    from_: str
    to: str | None
    ended: str | None


class LicenceLeasesAnswer(msgspec.Struct, frozen=True):
    """Leases by epoch. `decided_at`: every lease up to then is settled; null: none is yet."""

    licence_id: str
    items: list[LeaseItem]
    next_cursor: str | None
    decided_at: str | None


async def list_licence_leases(backend: Backend, caller: Principal, *, licence_id: str) -> Response:
    after, limit, newest = _epoch_cursor(), limit_parameter(), boolean_parameter("newest")
    licence = await sight.licence(backend, caller, licence_id)
    leases = backend.stores.leases
    # Before the leases: what it says of them is then in them.
    decided_ms = await leases.decided_ms(shards=backend.shards)
    found = await leases.history(licence.licence_id, after_epoch=after, limit=limit + 1, newest=newest)
    page, next_cursor = cut(found, limit, lambda each: str(each.epoch))
    answer = LicenceLeasesAnswer(
        licence_id=licence.licence_id,
        items=[_item(each) for each in page],
        next_cursor=next_cursor,
        decided_at=format_rfc3339(decided_ms) if decided_ms else None,
    )
    return reply(answer, headers=link_headers(next_cursor))


def _item(lease: LeaseSpan) -> LeaseItem:
    return LeaseItem(
        epoch=lease.epoch,
        holder_id=lease.holder_id,
        from_=format_rfc3339(lease.from_ms),
        to=None if lease.to_ms is None else format_rfc3339(lease.to_ms),
        ended=lease.ended or None,
    )


def _epoch_cursor() -> int:
    text = request.args.get("after")
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise bad_parameter("after", "is not a cursor: take next_cursor of a page")
    return int(text)


ROUTES = (
    Route(
        method="GET",
        path="/v1/licences/{licence_id}/leases",
        handler=list_licence_leases,
        summary="Which run held a licence when, by cursor",
        tag="inventory",
        parameters=(
            Parameter(
                name="newest", description="The newest first; else by epoch", schema={"type": "boolean"}
            ),
            *PARAMETERS,
        ),
        answers={200: Answer(description="Leases by epoch", type=LicenceLeasesAnswer)},
        refusals=(400, 404),
    ),
)
