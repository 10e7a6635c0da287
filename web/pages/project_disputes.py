"""Disputes that a project has to settle: by state and day, the oldest first. One dispute is disputes.py's."""

from __future__ import annotations

from quart import Response, request

from web.pages.disputes import IN_LIST, STATES
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor


async def list_disputes(visitor: Visitor, *, slug: str) -> Response:
    args, here = request.args, f"/projects/{segment(slug)}/disputes"
    # What nobody asked for is what waits for an answer; "any" is asked for by name.
    state = args.get("state", "open")
    asked = {"state": None if state == "any" else state, "day": args.get("day") or None}
    # The list alone would show others those that they opened: only whoever runs the project gets the page.
    await visitor.api.get(f"/v1/projects/{segment(slug)}/owners", limit=1)
    page = await visitor.api.get(
        "/v1/disputes", project=slug, **asked, after=args.get("after"), limit=IN_LIST
    )
    cursor = page["next_cursor"]
    return render(
        "project_disputes.html",
        visitor=visitor,
        slug=slug,
        disputes=page["items"],
        states=("any", *STATES),
        state=state,
        day=asked["day"],
        first=not args.get("after"),
        next_page=link(here, state=state, day=asked["day"], after=cursor) if cursor else "",
    )


PAGES = (Page(path="/projects/{slug}/disputes", handler=list_disputes),)
