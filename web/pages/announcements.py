"""What is announced to operators of nodes: of one project, or of all: whom it reaches first, then sent."""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.asking import ApiError
from web.pages.forms import NONE, Attempt, Given, given_fields, refused, submit
from web.pages.links import link
from web.pages.pages import Page, form_fields
from web.pages.rendering import render
from web.pages.visitor import Visitor, must_be_admin

IN_PAGE = 20
HERE = "/installation/announcements"
STATES = ("up", "suspect", "down", "lost", "stopped", "maintenance", "new")


async def list_announcements(
    visitor: Visitor,
    *,
    attempt: Attempt = NONE,
    reach: dict[str, Any] | None = None,
    given: Given | None = None,
    chosen: tuple[str, ...] = (),
) -> Response:
    """`reach`: whom the one in the form, of which `given` are the fields, would reach."""
    must_be_admin(visitor)
    after = request.args.get("after")
    page = await visitor.api.get("/v1/notifications", after=after, limit=IN_PAGE)
    cursor = page["next_cursor"]
    return render(
        "installation/announcements.html",
        attempt.status,
        visitor=visitor,
        announcements=page["items"],
        first=not after,
        next_page=link(HERE, after=cursor) if cursor else "",
        attempt=attempt,
        reach=reach,
        given=given or attempt.given,
        chosen=chosen,
        states=STATES,
        told=words.told(request.args.get("told")),
    )


def _body(given: Given, states: list[str]) -> dict[str, Any]:
    narrowed = {name: given.get(name) or None for name in ("kind", "version", "region")}
    return {
        "title": given.get("title", ""),
        "text": given.get("text", "").replace("\r\n", "\n"),
        "project": given.get("project") or None,
        "filter": {**narrowed, "states": states},
    }


async def announce(visitor: Visitor) -> Response:
    """Preview or send, by which button was pressed."""
    must_be_admin(visitor)
    states = await form_fields("states")
    fields = await given_fields()
    if fields.get("which") != "send":
        try:
            reach = await visitor.api.send("POST", "/v1/notifications/preview", _body(fields, states))
        except ApiError as error:
            attempt = refused("announcement", fields, error)
            return await list_announcements(visitor, attempt=attempt, chosen=tuple(states))
        return await list_announcements(visitor, reach=reach, given=fields, chosen=tuple(states))

    async def send(given: Given) -> str:
        await visitor.api.send("POST", "/v1/notifications", _body(given, states), key=given.get("once", ""))
        return f"{HERE}?told=announced"

    async def again(attempt: Attempt) -> Response:
        return await list_announcements(visitor, attempt=attempt, chosen=tuple(states))

    return await submit("announcement", send, again=again)


PAGES = (
    Page(path=HERE, handler=list_announcements),
    Page(path=HERE, handler=announce, method="POST"),
)
