"""All nodes and all workloads of a project, page by page: by state, region, version, kind, name or id.

Lists go by keyset: the last page of a million is as quick as the first one. What one of them is stands in
nodes.py and workloads.py.
"""

from __future__ import annotations

import re
from typing import Any

from quart import Response, request

from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

IN_LIST = 50
NODE_STATES = ("up", "suspect", "down", "lost", "stopped", "maintenance", "new")
WORKLOAD_STATES = ("up", "unhealthy", "updating", "stopped", "silent", "new")
KINDS_OFFERED = 200
_ID = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")


async def list_nodes(visitor: Visitor, *, slug: str) -> Response:
    asked = _asked("state", "region", "version", "q")
    return await _list(visitor, slug, "nodes", asked, asked, NODE_STATES)


async def list_workloads(visitor: Visitor, *, slug: str) -> Response:
    asked = _asked("state", "region", "version", "kind", "q")
    kinds = await visitor.api.get(f"/v1/projects/{segment(slug)}/kinds", limit=KINDS_OFFERED)
    return await _list(visitor, slug, "workloads", asked, asked, WORKLOAD_STATES, kinds=kinds["items"])


async def _list(
    visitor: Visitor,
    slug: str,
    what: str,
    asked: dict[str, Any],
    filters: dict[str, Any],
    states: tuple[str, ...],
    **values: Any,
) -> Response:
    project = await visitor.api.get(f"/v1/projects/{segment(slug)}")
    after, q = request.args.get("after"), filters["q"]
    narrowed = {name: value for name, value in filters.items() if name != "q"} | _named(q)
    page = await visitor.api.get(
        f"/v1/{what}", project=project["slug"], **narrowed, after=after, limit=IN_LIST
    )
    path = f"/projects/{project['slug']}/{what}"
    cursor = page["next_cursor"]
    return render(
        f"parts/fleet_{what}.html" if "hx-request" in request.headers else f"fleet_{what}.html",
        visitor=visitor,
        project=project,
        items=page["items"],
        states=states,
        asked=asked,
        narrowed=any(asked.values()),
        path=path,
        here=link(path, **asked, after=after),
        first=not after,
        next_page=link(path, **asked, after=cursor) if cursor else "",
        **values,
    )


def _asked(*names: str) -> dict[str, str | None]:
    """Filters out of the address; what is empty does not narrow."""
    return {name: request.args.get(name, "").strip() or None for name in names}


def _named(q: str | None) -> dict[str, str]:
    """What a text looks for: what begins like an id, the id; anything else, the name."""
    if q is None:
        return {}
    return {"id": q.lower()} if _ID.fullmatch(q.lower()) else {"name": q}


PAGES = (
    Page(path="/projects/{slug}/nodes", handler=list_nodes),
    Page(path="/projects/{slug}/workloads", handler=list_workloads),
)
