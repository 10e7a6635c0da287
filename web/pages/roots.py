"""Roots of sealed days on their way to where they are published, for whoever runs the installation."""

from __future__ import annotations

from quart import Response, request

from web.pages.links import link
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

ROOTS_IN_PAGE = 50
HERE = "/installation/publications"


async def list_roots(visitor: Visitor) -> Response:
    after, due = request.args.get("after"), "due" in request.args
    page = await visitor.api.get(
        "/v1/installation/publications", due="true" if due else None, after=after, limit=ROOTS_IN_PAGE
    )
    cursor = page["next_cursor"]
    return render(
        "installation/publications.html",
        visitor=visitor,
        roots=page["items"],
        due=due,
        first=not after,
        next_page=link(HERE, due="true" if due else None, after=cursor) if cursor else "",
    )


PAGES = (Page(path=HERE, handler=list_roots),)
