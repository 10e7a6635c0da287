"""An operator's machines: the list with what is so now, and one node with its workloads."""

from __future__ import annotations

from quart import Response, request

from web.pages.pages import Page, see_other
from web.pages.rendering import render
from web.pages.visitor import Visitor

EVENTS_SHOWN = 20


async def start(visitor: Visitor) -> Response:
    """Where one belongs: to one's machines, one's project, or the installation."""
    if visitor.is_admin:
        return see_other("/installation")
    if visitor.projects:
        return see_other(f"/projects/{visitor.projects[0]['slug']}")
    return see_other("/nodes")


async def list_nodes(visitor: Visitor) -> Response:
    args = request.args
    page = await visitor.api.get("/v1/nodes", after=args.get("after"), state=args.get("state"), limit=50)
    template = "parts/node_rows.html" if "hx-request" in request.headers else "nodes.html"
    return render(
        template,
        visitor=visitor,
        nodes=page["items"],
        next_cursor=page["next_cursor"],
        state=args.get("state"),
    )


async def show_node(visitor: Visitor, *, node_id: str) -> Response:
    node = await visitor.api.get(f"/v1/nodes/{node_id}")
    events = await visitor.api.get("/v1/events", node_id=node_id, limit=EVENTS_SHOWN)
    template = "parts/node_now.html" if "hx-request" in request.headers else "node.html"
    return render(template, visitor=visitor, node=node, events=events["items"])


PAGES = (
    Page(path="/", handler=start),
    Page(path="/nodes", handler=list_nodes),
    Page(path="/nodes/{node_id}", handler=show_node),
)
