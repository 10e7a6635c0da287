"""What is announced to operators of nodes, of one project or of all: whom it reaches first, then sent.

`slug` is that of the project on whose page it is done, empty on the installation's.
"""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.asking import ApiError
from web.pages.forms import NONE, Attempt, Given, given_fields, refused, submit
from web.pages.links import link, segment
from web.pages.pages import Page, form_fields
from web.pages.rendering import render
from web.pages.visitor import Visitor, must_be_admin

IN_PAGE = 20
HERE = "/installation/announcements"
STATES = ("up", "suspect", "down", "lost", "stopped", "maintenance", "new")


def _here(slug: str) -> str:
    return f"/projects/{segment(slug)}/announcements" if slug else HERE


async def list_announcements(
    visitor: Visitor,
    *,
    slug: str = "",
    attempt: Attempt = NONE,
    reach: dict[str, Any] | None = None,
    given: Given | None = None,
    chosen: tuple[str, ...] = (),
) -> Response:
    """`reach`: whom the one in the form, of which `given` are the fields, would reach."""
    if not slug:
        must_be_admin(visitor)
    after, here = request.args.get("after"), _here(slug)
    page = await visitor.api.get("/v1/notifications", project=slug or None, after=after, limit=IN_PAGE)
    cursor = page["next_cursor"]
    return render(
        "project_announcements.html" if slug else "installation/announcements.html",
        attempt.status,
        visitor=visitor,
        announcements=page["items"],
        first=not after,
        slug=slug,
        here=here,
        next_page=link(here, after=cursor) if cursor else "",
        attempt=attempt,
        reach=reach,
        given=given or attempt.given,
        chosen=chosen,
        states=STATES,
        told=words.told(request.args.get("told")),
    )


def _body(given: Given, states: list[str], slug: str) -> dict[str, Any]:
    narrowed = {name: given.get(name) or None for name in ("kind", "version", "region")}
    return {
        "title": given.get("title", ""),
        "text": given.get("text", "").replace("\r\n", "\n"),
        "project": slug or given.get("project") or None,
        "filter": {**narrowed, "states": states},
    }


async def announce(visitor: Visitor, *, slug: str = "") -> Response:
    """Preview or send, by which button was pressed."""
    if not slug:
        must_be_admin(visitor)
    states = await form_fields("states")
    fields = await given_fields()
    if fields.get("which") != "send":
        try:
            reach = await visitor.api.send("POST", "/v1/notifications/preview", _body(fields, states, slug))
        except ApiError as error:
            if error.status == 404 and slug:
                raise
            attempt = refused("announcement", fields, error)
            return await list_announcements(visitor, slug=slug, attempt=attempt, chosen=tuple(states))
        return await list_announcements(visitor, slug=slug, reach=reach, given=fields, chosen=tuple(states))

    async def send(given: Given) -> str:
        await visitor.api.send(
            "POST", "/v1/notifications", _body(given, states, slug), key=given.get("once", "")
        )
        return f"{_here(slug)}?told=announced"

    async def again(attempt: Attempt) -> Response:
        return await list_announcements(visitor, slug=slug, attempt=attempt, chosen=tuple(states))

    return await submit("announcement", send, again=again)


PAGES = (
    Page(path=HERE, handler=list_announcements),
    Page(path=HERE, handler=announce, method="POST"),
)
OF_PROJECT = (
    Page(path="/projects/{slug}/announcements", handler=list_announcements),
    Page(path="/projects/{slug}/announcements", handler=announce, method="POST"),
)
