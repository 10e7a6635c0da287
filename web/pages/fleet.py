"""All nodes and all workloads of a project, page by page: by state, region, version, kind, name or id.

Lists go by keyset: the last page of a million is as quick as the first one. What one of them is stands in
nodes.py and workloads.py.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

from quart import Response, request

from web.pages import words
from web.pages.forms import NONE, Attempt, Given, submit
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
    return await _list(visitor, slug, "nodes", asked, NODE_STATES)


async def list_workloads(visitor: Visitor, *, slug: str, attempt: Attempt = NONE) -> Response:
    asked = _asked("state", "region", "version", "kind", "q")
    kinds = await visitor.api.get(f"/v1/projects/{segment(slug)}/kinds", limit=KINDS_OFFERED)
    return await _list(
        visitor, slug, "workloads", asked, WORKLOAD_STATES, attempt=attempt, kinds=kinds["items"]
    )


async def restart(visitor: Visitor, *, slug: str, workload_id: str) -> Response:
    """Order a restart, and back to the same part of the list."""

    async def send(given: Given) -> str:
        path = f"/v1/workloads/{segment(workload_id)}/restart"
        await visitor.api.send("POST", path, key=given.get("once", ""))
        return f"/projects/{segment(slug)}/workloads?{_told(given.get('back', ''))}"

    async def again(attempt: Attempt) -> Response:
        return await list_workloads(visitor, slug=slug, attempt=attempt)

    return await submit("restart", send, again=again)


def _told(back: str) -> str:
    """The query of the list as it was, and what was done."""
    kept = [(name, value) for name, value in parse_qsl(back.partition("?")[2]) if name != "told"]
    return urlencode([*kept, ("told", "restarted")])


async def _list(
    visitor: Visitor,
    slug: str,
    what: str,
    asked: dict[str, str | None],
    states: tuple[str, ...],
    *,
    attempt: Attempt = NONE,
    **values: Any,
) -> Response:
    project = await visitor.api.get(f"/v1/projects/{segment(slug)}")
    after = request.args.get("after")
    narrowed = {name: value for name, value in asked.items() if name != "q"} | _named(asked["q"])
    page = await visitor.api.known(
        f"/v1/{what}", project=project["slug"], **narrowed, after=after, limit=IN_LIST
    )
    path = f"/projects/{project['slug']}/{what}"
    cursor = page["next_cursor"]
    return render(
        f"parts/fleet_{what}.html" if "hx-request" in request.headers else f"fleet_{what}.html",
        attempt.status,
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
        attempt=attempt,
        told=words.told(request.args.get("told")),
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
    Page(path="/projects/{slug}/workloads/{workload_id}/restart", handler=restart, method="POST"),
)
