"""An operator's machines: the list with what is so now, and one node with its workloads.

Maintenance windows are opened on a node's page; receipts of its sealed days are downloaded there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.clock import utc_now, utc_today
from web.pages.downloads import download
from web.pages.forms import NONE, Attempt, Given, fault, submit
from web.pages.links import link, segment
from web.pages.named import projects_of
from web.pages.pages import Page, see_other
from web.pages.rendering import render
from web.pages.strips import strip_of
from web.pages.visitor import Visitor
from web.times import format_rfc3339, parse_rfc3339

EVENTS_SHOWN = 20
DAYS_IN_LIST = 14
DAYS = 90
DAYS_OF_MANY = 14  # where a node has more workloads than MANY
MANY = 24
RECEIPTS_SHOWN = 14
WINDOWS_DAYS = 7  # as long windows that are over are shown
WINDOW_MIN_MAX = 60
STATES = ("up", "suspect", "down", "lost", "stopped", "maintenance", "new")
MINUTE_MS = 60_000


async def start(visitor: Visitor) -> Response:
    """Where one belongs: to one's machines, one's project, or the installation."""
    if visitor.is_admin:
        return see_other("/installation")
    if visitor.projects:
        return see_other(f"/projects/{visitor.projects[0]['slug']}")
    return see_other("/nodes")


async def list_nodes(visitor: Visitor) -> Response:
    args = request.args
    asked: dict[str, Any] = {"state": args.get("state") or None, "name": args.get("name") or None}
    page = await visitor.api.get(
        "/v1/nodes",
        **asked,
        # Who runs a project finds all of its nodes there; here are one's own.
        owner="me" if visitor.is_person else None,
        after=args.get("after"),
        days=DAYS_IN_LIST,
        limit=50,
    )
    yesterday = utc_today() - timedelta(days=1)
    for node in page["items"]:
        node["strip"] = strip_of(node["days"], count=DAYS_IN_LIST, last=yesterday)
    cursor = page["next_cursor"]
    return render(
        "parts/node_rows.html" if "hx-request" in request.headers else "nodes.html",
        visitor=visitor,
        nodes=page["items"],
        projects=await projects_of(visitor, page["items"]),
        states=STATES,
        days=DAYS_IN_LIST,
        here=link("/nodes", **asked, after=args.get("after")),
        first=not args.get("after"),
        next_page=link("/nodes", **asked, after=cursor) if cursor else "",
        **asked,
    )


async def show_node(visitor: Visitor, *, node_id: str, attempt: Attempt = NONE) -> Response:
    path = f"/v1/nodes/{segment(node_id)}"
    node = await visitor.api.get(path)
    events = await visitor.api.get("/v1/events", node=node["node_id"], newest="true", limit=EVENTS_SHOWN)
    if "hx-request" in request.headers:
        return render("parts/node_now.html", visitor=visitor, node=node, events=events["items"])
    today = utc_today()
    count = DAYS if len(node["workloads"]) <= MANY else DAYS_OF_MANY
    days = await visitor.api.get(f"{path}/days", from_=str(today - timedelta(days=count - 1)))
    since_ms = parse_rfc3339(f"{today - timedelta(days=WINDOWS_DAYS)}T00:00:00Z")
    windows = await visitor.api.get(f"{path}/windows", from_=format_rfc3339(since_ms), limit=200)
    return render(
        "node.html",
        attempt.status,
        visitor=visitor,
        node=node,
        events=events["items"],
        strips=[(each, strip_of(each["days"], count=count, last=today)) for each in days["items"]],
        count=count,
        sealed=_sealed_days(days["items"]),
        windows=windows["items"],
        now=node["as_of"],
        begin=_soon(),
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


def _sealed_days(workloads: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The newest sealed days with the revisions of their seals: of these there are receipts."""
    found = {day["day"]: day["revision"] for each in workloads for day in each["days"] if day["revision"]}
    return sorted(found.items(), reverse=True)[:RECEIPTS_SHOWN]


def _soon() -> str:
    """A beginning to suggest, as fields of times take it (UTC); it leaves two minutes to fill in the rest."""
    soon = utc_now() + timedelta(minutes=17)
    return soon.replace(minute=soon.minute // 15 * 15, tzinfo=None).isoformat(timespec="minutes")


async def open_window(visitor: Visitor, *, node_id: str) -> Response:
    path = f"/v1/nodes/{segment(node_id)}/windows"

    async def send(given: Given) -> str:
        begin_ms = _time(given.get("from", ""))
        minutes = given.get("minutes", "")
        if not minutes.isascii() or not minutes.isdigit() or not 1 <= int(minutes[:4]) <= WINDOW_MIN_MAX:
            raise fault(f"a window takes from 1 to {WINDOW_MIN_MAX} minutes", "minutes")
        body = {
            "from": format_rfc3339(begin_ms),
            "to": format_rfc3339(begin_ms + int(minutes) * MINUTE_MS),
            "workload_id": given.get("workload") or None,
        }
        await visitor.api.send("POST", path, body, key=given.get("once", ""))
        return f"/nodes/{segment(node_id)}?told=window-opened#windows"

    return await submit("window", send, again=_again(visitor, node_id))


async def end_window(visitor: Visitor, *, node_id: str, window_id: str) -> Response:
    async def send(given: Given) -> str:
        await visitor.api.send("DELETE", f"/v1/nodes/{segment(node_id)}/windows/{segment(window_id)}")
        return f"/nodes/{segment(node_id)}?told=window-ended#windows"

    return await submit("window-end", send, again=_again(visitor, node_id))


def _again(visitor: Visitor, node_id: str) -> Any:
    async def again(attempt: Attempt) -> Response:
        return await show_node(visitor, node_id=node_id, attempt=attempt)

    return again


def _time(text: str) -> int:
    """Of a field of a time, which is UTC here. ApiError 422."""
    try:
        return parse_rfc3339(f"{text[:19]}{':00' if len(text) == 16 else ''}Z")
    except ValueError as error:
        raise fault("write the beginning as 2026-01-31T10:00, in UTC", "from") from error


async def download_receipt(visitor: Visitor, *, node_id: str, day: str) -> Response:
    return await download(
        visitor, f"/v1/nodes/{segment(node_id)}/receipt", day=day, name=f"receipt-{node_id[-12:]}-{day}.json"
    )


PAGES = (
    Page(path="/", handler=start),
    Page(path="/nodes", handler=list_nodes),
    Page(path="/nodes/{node_id}", handler=show_node),
    Page(path="/nodes/{node_id}/windows", handler=open_window, method="POST"),
    Page(path="/nodes/{node_id}/windows/{window_id}/end", handler=end_window, method="POST"),
    Page(path="/nodes/{node_id}/receipts/{day}", handler=download_receipt),
)
