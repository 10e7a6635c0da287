"""The uptime explorer: the network by day, the workloads of one day, one node or one workload; and exports.

Every number leads to its reason: a day to its workloads, a workload's day to why it was not paid. Exports are
the API's own streams, byte for byte and never held whole.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

from quart import Response, request

from engine.core.records import KINDS
from web import bulk
from web.backend import Backend
from web.ids import canonical_uuid
from web.pages.as_visitor import as_visitor
from web.pages.asking import ApiError
from web.pages.clock import utc_today
from web.pages.downloads import file_name
from web.pages.links import day_of, link, segment
from web.pages.pages import Page
from web.pages.rendering import HEADERS, render
from web.pages.strips import strip_of
from web.pages.visitor import Visitor

DAYS = 30
DAYS_MAX = 400  # of a range that is shown
EXPORT_DAYS_MAX = 31  # of one export
IN_LIST = 50
FORMATS = ("csv", "ndjson")


async def explore(visitor: Visitor, *, slug: str) -> Response:
    project = await visitor.api.get(f"/v1/projects/{segment(slug)}")
    first, last, asked = *_range(), request.args.get("of", "").strip()
    of = await _of(visitor, project, asked, first, last) if asked else None
    network: dict[str, Any] = {"items": []}
    if of is None:
        network = await visitor.api.get(
            f"/v1/projects/{segment(slug)}/uptime/days", from_=first, to=_after(last)
        )
    days = [{**each, "unobserved_ms": each["ms"]["unobserved"]} for each in network["items"]]
    count = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    return render(
        "uptime.html",
        visitor=visitor,
        project=project,
        first_day=first,
        last_day=last,
        today=str(utc_today()),
        asked=asked,
        of=of,
        days=list(reversed(days)),
        strip=strip_of(days, count=count, last=date.fromisoformat(last)),
        chart=json.dumps([[each["day"], each["ratio"]] for each in days]),
        kinds=KINDS,
        exports=_exports(project["slug"], first, last) if count <= EXPORT_DAYS_MAX else [],
        export_days_max=EXPORT_DAYS_MAX,
    )


async def show_day(visitor: Visitor, *, slug: str, day: str) -> Response:
    """The workloads of one day, page by page."""
    day, after = day_of(day, utc_today()), request.args.get("after")
    project = await visitor.api.get(f"/v1/projects/{segment(slug)}")
    page = await visitor.api.get(
        f"/v1/projects/{segment(slug)}/uptime", day=day, format="json", after=after, limit=IN_LIST
    )
    sums = await visitor.api.get(f"/v1/projects/{segment(slug)}/uptime/days", from_=day, to=_after(day))
    path, cursor = f"/projects/{project['slug']}/uptime/{day}", page["next_cursor"]
    return render(
        "uptime_day.html",
        visitor=visitor,
        project=project,
        day=day,
        sums=sums["items"][0] if sums["items"] else None,
        rows=page["items"],
        kinds=KINDS,
        first=not after,
        next_page=link(path, after=cursor) if cursor else "",
        exports=_exports(project["slug"], day, day),
        running=day == str(utc_today()),
    )


async def _of(visitor: Visitor, project: dict[str, Any], asked: str, first: str, last: str) -> dict[str, Any]:
    """The node or the workload of this id in the range: its strips and its days. ApiError 404."""
    identity = canonical_uuid(asked.lower()) or ""
    span = {"from_": first, "to": _after(last)}
    count, end = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1, date.fromisoformat(last)
    for what in ("workload", "node"):
        path = f"/v1/{what}s/{identity}"
        found = await visitor.api.find(path) if identity else None
        if found is not None and found["project_id"] == project["project_id"]:
            told = await visitor.api.get(f"{path}/days", **span)
            mine = told["items"] if what == "node" else [{**found, "days": told["items"]}]
            return {
                "what": what,
                "id": identity,
                "name": found["name"],
                "workloads": [(each, strip_of(each["days"], count=count, last=end)) for each in mine],
            }
    raise ApiError(404, {"detail": f"No node and no workload of this project has the id {asked}."})


def _range() -> tuple[str, str]:
    """The first and the last day that are asked for. ApiError 400."""
    today = utc_today()
    last = day_of(request.args.get("to"), today)
    try:
        default = date.fromisoformat(last) - timedelta(days=DAYS - 1)
    except OverflowError:
        default = date.min
    first = day_of(request.args.get("from"), default)
    span = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    if not 1 <= span <= DAYS_MAX:
        raise ApiError(400, {"detail": f"Choose from 1 to {DAYS_MAX} days, the first one before the last."})
    return first, last


def _after(day: str) -> str:
    return str(date.fromisoformat(day) + timedelta(days=1))


def _exports(slug: str, first: str, last: str) -> list[tuple[str, str]]:
    """Formats with the addresses of the exports of these days: the parameters are the API's."""
    path = f"/projects/{slug}/uptime/export"
    window = (
        {"day": first} if first == last else {"from": f"{first}T00:00:00Z", "to": f"{_after(last)}T00:00:00Z"}
    )
    return [(form, link(path, **window, format=form)) for form in FORMATS]


def pages(backend: Backend) -> tuple[Page, ...]:
    """The export streams what the API's route makes, so it needs the backend."""

    async def export(visitor: Visitor, *, slug: str) -> Response:
        caller, _ = await as_visitor(backend, "GET", "/v1/projects/{slug}/uptime")
        answered = await bulk.get_bulk_uptime(backend, caller, slug=slug)
        asked = request.args.get("day") or "-to-".join(request.args[end][:10] for end in ("from", "to"))
        name = file_name(f"uptime-{slug}-{asked}.{bulk.format_of_query()}")
        answered.headers.update({**HEADERS, "content-disposition": f'attachment; filename="{name}"'})
        return answered

    return (
        Page(path="/projects/{slug}/uptime", handler=explore),
        Page(path="/projects/{slug}/uptime/export", handler=export),
        Page(path="/projects/{slug}/uptime/{day}", handler=show_day),
    )
