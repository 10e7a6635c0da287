"""The public page of how a project's network is and was, and where its owner switches that on.

The public one says the same to everybody, whoever is signed in, so that it may be kept for some seconds.
"""

from __future__ import annotations

from datetime import date

from quart import Response, request

from web.kept import for_anybody
from web.pages import words
from web.pages.forms import NONE, Attempt, Given, submit
from web.pages.links import segment
from web.pages.pages import Page
from web.pages.rendering import HEADERS, render
from web.pages.strips import strip_of
from web.pages.visitor import Visitor

KEPT_S = 15
DAYS = 90
# What stands above the page, its shade, and what it means.
STATES = {
    "up": ("The network is up", "up"),
    "partly": ("A part of the network is down", "suspect"),
    "down": ("Most of the network is down", "down"),
    "empty": ("No node has been heard yet", "unknown"),
    "unknown": ("We cannot tell how the network is now", "unobserved"),
}


async def show_status(visitor: Visitor, *, slug: str) -> Response:
    status = await visitor.api.get(f"/v1/status/{segment(slug)}")
    title, shade = STATES[status["state"]]
    last = date.fromisoformat(status["last_day"])
    page = render(
        "status/parts/now.html" if "hx-request" in request.headers else "status/page.html",
        visitor=Visitor(visitor.api, None),  # the same for everybody
        network=status,
        title=title,
        shade=shade,
        strip=strip_of(status["days"], count=DAYS, last=last, counted="up"),
        count=DAYS,
    )
    headers = {name: value for name, value in HEADERS.items() if name != "cache-control"}
    headers["vary"] = "hx-request"
    body = await page.get_data(as_text=False)
    return for_anybody(body, content_type="text/html; charset=utf-8", age_s=KEPT_S, headers=headers)


async def show_publicity(visitor: Visitor, *, slug: str, attempt: Attempt = NONE) -> Response:
    """For whoever runs the project: is it public, and what to paste where."""
    project = await visitor.api.get(f"/v1/projects/{segment(slug)}")
    # Anybody who signed in may see a project; this page is for those who may read its owners.
    await visitor.api.get(f"/v1/projects/{segment(slug)}/owners", limit=1)
    nodes = await visitor.api.get("/v1/nodes", project=project["slug"], limit=1)
    return render(
        "status/publicity.html",
        attempt.status,
        visitor=visitor,
        project=project,
        site=request.url_root.rstrip("/"),
        node=next(iter(nodes["items"]), None),
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


async def switch(visitor: Visitor, *, slug: str) -> Response:
    async def send(given: Given) -> str:
        public = given.get("public") == "yes"
        await visitor.api.send("PATCH", f"/v1/projects/{segment(slug)}", {"public_status": public})
        return f"/projects/{segment(slug)}/status?told={'public' if public else 'private'}"

    async def again(attempt: Attempt) -> Response:
        return await show_publicity(visitor, slug=slug, attempt=attempt)

    return await submit("public", send, again=again)


PAGES = (
    Page(path="/status/{slug}", handler=show_status, public=True),
    Page(path="/projects/{slug}/status", handler=show_publicity),
    Page(path="/projects/{slug}/status", handler=switch, method="POST"),
)
