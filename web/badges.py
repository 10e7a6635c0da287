"""`/badges/...svg`: how a node, a workload or a project is, as a picture for anybody's page.

Only of projects whose owners have switched that on; all else is a grey "unknown" with 404. A store that is
away makes a grey badge and no error: what embeds it shall not break. One badge serves everybody for
BADGE_KEPT_S. How it is drawn is badge_svg.py's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from quart import Response

from engine.core.people import Principal
from engine.core.ports import StoreUnavailableError
from web.backend import Backend
from web.badge_svg import Badge, Colour, badge
from web.ids import canonical_uuid
from web.kept import for_anybody
from web.reading import Reader
from web.routing import Answer, Route
from web.status import (
    PARTLY_SHARE,
    UP_SHARE,
    counts_of,
    public_project,
    seen_by_all,
    share_up,
    unobserved_since,
)
from web.summaries import UNKNOWN as UNKNOWN_STATE

NOT_OBSERVED = "not observed now"  # our fault: what was so last is not told as if it were so now
MAKING_S_MAX = 5.0  # who embeds it waits no longer
_COLOURS: dict[str, Colour] = {
    "up": "green",
    "claimed_up": "green",
    "suspect": "yellow",
    "updating": "yellow",
    "claimed_updating": "yellow",
    "unhealthy": "red",
    "claimed_unhealthy": "red",
    "down": "red",
    "lost": "red",
    "silent": "red",
    "maintenance": "blue",
    "maintenance_own": "blue",
    "standby": "blue",
}
_WORDS = {
    "claimed_up": "up",
    "claimed_updating": "updating",
    "claimed_unhealthy": "unhealthy",
    "maintenance_own": "maintenance",
    "unobserved": NOT_OBSERVED,
}
_SVG = "image/svg+xml"
_HEADERS = {"cross-origin-resource-policy": "cross-origin"}  # it is there to be shown on other sites


UNKNOWN = Badge("NodePulse", "unknown", "grey", 404)
AWAY = Badge("NodePulse", "not known now", "grey")


async def project_badge(backend: Backend, _caller: Principal, *, slug: str) -> Response:
    return await _answer(backend, f"project {slug[:64]}", lambda: _of_project(backend, slug))


async def node_badge(backend: Backend, _caller: Principal, *, node_id: str) -> Response:
    key = canonical_uuid(node_id)
    return await _answer(backend, f"node {key}", lambda: _of_node(backend, key))


async def workload_badge(backend: Backend, _caller: Principal, *, workload_id: str) -> Response:
    key = canonical_uuid(workload_id)
    return await _answer(backend, f"workload {key}", lambda: _of_workload(backend, key))


async def _answer(backend: Backend, key: str, make: Callable[[], Awaitable[Badge]]) -> Response:
    found = AWAY
    with trio.move_on_after(MAKING_S_MAX):
        try:
            found = await backend.badges.of(key, make)
        except StoreUnavailableError:
            found = AWAY
    return for_anybody(
        badge(found),
        found.status,
        content_type=_SVG,
        age_s=backend.badges.kept_s,
        headers=_HEADERS,
    )


async def _of_project(backend: Backend, slug: str) -> Badge:
    project = await public_project(backend, slug)
    if project is None:
        return UNKNOWN
    nodes, _ = await counts_of(backend, project.project_id)
    share, label = share_up(nodes), project.name or project.slug
    if any(unobserved_since(backend, shard) for shard in range(backend.shards)):
        return Badge(label, NOT_OBSERVED, "grey")
    if share is None:
        told = "not known now" if nodes.get(UNKNOWN_STATE) else "not heard yet" if nodes else "no nodes yet"
        return Badge(label, told, "grey")
    # Never rounded up to all of them.
    told = "100 % up" if share >= 1 else f"{int(share * 1_000) / 10:g} % up"
    return Badge(label, told, "green" if share >= UP_SHARE else "yellow" if share >= PARTLY_SHARE else "red")


async def _of_node(backend: Backend, node_id: str | None) -> Badge:
    node = None if node_id is None else await backend.directory.node(node_id)
    if node is None or await seen_by_all(backend, node.project_id) is None:
        return UNKNOWN
    if node.retired_ms is not None or node.revoked:
        return Badge(node.name or "node", "retired", "grey")
    reader = Reader(backend)
    look = await reader.look(node.row, up_to_ms=reader.now_ms(node.row))
    if look.head is None or unobserved_since(backend, look.shard):
        return Badge(node.name or "node", NOT_OBSERVED, "grey")
    return _said(node.name or "node", "new" if look.node is None else look.node.state)


async def _of_workload(backend: Backend, workload_id: str | None) -> Badge:
    workload = None if workload_id is None else await backend.directory.workload(workload_id)
    if workload is None or await seen_by_all(backend, workload.project_id) is None:
        return UNKNOWN
    if workload.retired_ms is not None:
        return Badge(workload.name or "workload", "retired", "grey")
    reader = Reader(backend)
    look = await reader.look(workload.row, up_to_ms=reader.now_ms(workload.row))
    if look.head is None or unobserved_since(backend, look.shard):
        return Badge(workload.name or "workload", NOT_OBSERVED, "grey")
    state, _as_of = await reader.state(workload, look)
    return _said(workload.name or "workload", state)


def _said(label: str, state: str) -> Badge:
    return Badge(label, _WORDS.get(state, state), _COLOURS.get(state, "grey"))


def _route(path: str, handler: Callable[..., Awaitable[Response]], of: str) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=f"How a {of} is, as a badge; where its project's owner has switched the status page on",
        tag="status",
        answers={
            200: Answer(description="The badge", content_type=_SVG),
            404: Answer(description="A grey one: there is none to be seen", content_type=_SVG),
        },
    )


ROUTES = (
    _route("/badges/projects/{slug}.svg", project_badge, "project"),
    _route("/badges/nodes/{node_id}.svg", node_badge, "node"),
    _route("/badges/workloads/{workload_id}.svg", workload_badge, "workload"),
)
