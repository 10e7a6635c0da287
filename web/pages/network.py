"""The network now: how many of a project's nodes and workloads are how, by version and by region.

Counts are the API's summary, which is made of the live view and never by going through a million rows here.
Single nodes and workloads are found in fleet.py's lists.
"""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages.asking import ApiError
from web.pages.links import segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

EVENTS_SHOWN = 12
TROUBLED_SHOWN = 10
# Of all that a node or a workload can be, what stands first; the rest is shown where there is any.
NODE_FIRST = ("up", "suspect", "down", "lost", "maintenance", "stopped", "new", "unknown")
WORKLOAD_FIRST = ("up", "unhealthy", "silent", "updating", "stopped", "new", "unknown")


async def list_projects(visitor: Visitor) -> Response:
    after = request.args.get("after")
    page = await visitor.api.get("/v1/projects", after=after, limit=100)
    return render(
        "projects.html",
        visitor=visitor,
        projects=page["items"],
        first=not after,
        next_page=f"/projects?after={page['next_cursor']}" if page["next_cursor"] else "",
    )


async def show_network(visitor: Visitor, *, slug: str) -> Response:
    path = f"/v1/projects/{segment(slug)}"
    project = await visitor.api.get(path)
    values: dict[str, Any] = {
        "visitor": visitor,
        "project": project,
        "summary": await summary_of(visitor, path),
        "events": (
            await visitor.api.get("/v1/events", project=project["slug"], newest="true", limit=EVENTS_SHOWN)
        )["items"],
        "node_first": NODE_FIRST,
        "workload_first": WORKLOAD_FIRST,
    }
    return render("parts/network_now.html" if "hx-request" in request.headers else "network.html", **values)


async def summary_of(visitor: Visitor, path: str) -> dict[str, Any] | None:
    """The project's counts; None while so many are counted for the first time. ApiError."""
    try:
        found: dict[str, Any] = await visitor.api.known(f"{path}/summary")
    except ApiError as error:
        if error.status == 503:
            return None
        raise
    return found


PAGES = (
    Page(path="/projects", handler=list_projects),
    Page(path="/projects/{slug}", handler=show_network),
)
