"""One's licences: what is in the wallet, which run holds each now, who owned it when; binding workloads.

Whose wallet owns a licence may dispute days of runs under it, even where the machine is somebody else's.
"""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.clock import utc_today
from web.pages.forms import NONE, Attempt, Given, fault, submit
from web.pages.links import link, segment
from web.pages.named import projects_of
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor
from web.pages.workloads import dispute

IN_LIST = 25  # each asks for its newest lease
WORKLOADS_OFFERED = 200
HISTORY_PAGES = 20  # of 1000; a lease is a change of hands


async def list_licences(visitor: Visitor) -> Response:
    user = visitor.me["user"] if visitor.me else None
    after = request.args.get("after")
    items: list[dict[str, Any]] = []
    cursor, sources = None, []
    if user is not None:
        page = await visitor.api.get(f"/v1/users/{user['user_id']}/licences", after=after, limit=IN_LIST)
        items, cursor, sources = page["items"], page["next_cursor"], page["sources"]
    workloads = await _my_workloads(visitor)
    for licence in items:
        licence["lease"] = await _newest_lease(visitor, licence["licence_id"])
    return render(
        "licences.html",
        visitor=visitor,
        user=user,
        licences=items,
        projects=await projects_of(visitor, items),
        workloads={each["workload_id"]: each for each in workloads},
        sources=sources,
        first=not after,
        next_page=link("/licences", after=cursor) if cursor else "",
    )


async def show_licence(visitor: Visitor, *, licence_id: str, attempt: Attempt = NONE) -> Response:
    path = f"/v1/licences/{segment(licence_id)}"
    licence = await visitor.api.get(path)
    owners = await visitor.api.get(f"{path}/owners", limit=1000)
    leases = await _leases(visitor, path)
    mine = await _my_workloads(visitor)
    known = {each["workload_id"]: each for each in mine}
    return render(
        "licence.html",
        attempt.status,
        visitor=visitor,
        licence=licence,
        owners=owners["items"],
        leases=list(reversed(leases)),
        held=next((each for each in leases if each["to"] is None), None),
        workloads=known,
        free=[
            each
            for each in mine
            if each["project_id"] == licence["project_id"] and each["licence_id"] != licence["licence_id"]
        ],
        today=str(utc_today()),
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


async def _my_workloads(visitor: Visitor) -> list[dict[str, Any]]:
    """As many as can be offered to choose from; of one's own machines."""
    if not visitor.is_person:
        return []
    found = await visitor.api.get("/v1/workloads", operator="me", limit=WORKLOADS_OFFERED)
    return list(found["items"])


async def _leases(visitor: Visitor, path: str) -> list[dict[str, Any]]:
    """All leases, the oldest first."""
    found: list[dict[str, Any]] = []
    after = None
    for _ in range(HISTORY_PAGES):
        page = await visitor.api.get(f"{path}/leases", after=after, limit=1000)
        found += page["items"]
        after = page["next_cursor"]
        if after is None:
            break
    return found


async def _newest_lease(visitor: Visitor, licence_id: str) -> dict[str, Any] | None:
    page = await visitor.api.get(f"/v1/licences/{licence_id}/leases", newest="true", limit=1)
    return page["items"][0] if page["items"] else None


async def bind(visitor: Visitor, *, licence_id: str) -> Response:
    return await _bind(visitor, licence_id, "bind", licence_id, "bound")


async def unbind(visitor: Visitor, *, licence_id: str) -> Response:
    return await _bind(visitor, licence_id, "unbind", None, "unbound")


async def _bind(visitor: Visitor, licence_id: str, form: str, to: str | None, told: str) -> Response:
    async def send(given: Given) -> str:
        workload_id = given.get("workload", "")
        if not workload_id:
            raise fault("choose a workload", "workload")
        body = {"licence_id": to}
        await visitor.api.send("PATCH", f"/v1/workloads/{segment(workload_id)}", body)
        return f"/licences/{segment(licence_id)}?told={told}"

    return await submit(form, send, again=_again(visitor, licence_id))


async def open_dispute(visitor: Visitor, *, licence_id: str) -> Response:
    async def send(given: Given) -> str:
        return await dispute(visitor, given, given.get("workload", ""))

    return await submit("dispute", send, again=_again(visitor, licence_id))


def _again(visitor: Visitor, licence_id: str) -> Any:
    async def again(attempt: Attempt) -> Response:
        return await show_licence(visitor, licence_id=licence_id, attempt=attempt)

    return again


PAGES = (
    Page(path="/licences", handler=list_licences),
    Page(path="/licences/{licence_id}", handler=show_licence),
    Page(path="/licences/{licence_id}/bind", handler=bind, method="POST"),
    Page(path="/licences/{licence_id}/unbind", handler=unbind, method="POST"),
    Page(path="/licences/{licence_id}/disputes", handler=open_dispute, method="POST"),
)
