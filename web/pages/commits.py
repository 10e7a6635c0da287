"""One commit of a day: what it replaced, whom it changed how much, how it differs from the rule."""

from __future__ import annotations

from quart import Response, request

from web.pages.asking import ApiError
from web.pages.days import FORMATS
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

CHANGES_SHOWN = 100
COMPARED_ROWS_MAX = 20_000  # what more rows differ from the rule is only reckoned when somebody asks for it


async def show_commit(visitor: Visitor, *, slug: str, commit_id: str) -> Response:
    path = f"/v1/projects/{segment(slug)}/points/commits/{segment(commit_id)}"
    after = request.args.get("after")
    commit = await visitor.api.get(path)
    changes = await visitor.api.get(f"{path}/changes", after=after, limit=CHANGES_SHOWN)
    compare = commit["rows"] <= COMPARED_ROWS_MAX or request.args.get("compare") == "1"
    compared, why_none = None, "" if compare else "later"
    if compare:
        try:
            compared = await visitor.api.get(f"{path}/suggested")
        except ApiError as error:
            if error.status not in (409, 503):
                raise
            why_none = error.detail
    cursor, here = changes["next_cursor"], f"/projects/{slug}/commits/{commit['commit_id']}"
    return render(
        "commit.html",
        visitor=visitor,
        slug=slug,
        commit=commit,
        changes=changes["items"],
        next_page=link(here, after=cursor) if cursor else "",
        compared=compared,
        why_none=why_none,
        formats=FORMATS,
    )


PAGES = (Page(path="/projects/{slug}/commits/{commit_id}", handler=show_commit),)
