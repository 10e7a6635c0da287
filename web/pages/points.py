"""What one earned, by day and project; and of one day through which of one's machines it came about."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import trio
from quart import Response, request

from web.pages.clock import utc_today
from web.pages.links import day_of, link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor
from web.problems import not_found

IN_LIST = 50
WORKLOADS_IN_PAGE = 25
READS_AT_ONCE = 4


async def list_points(visitor: Visitor) -> Response:
    after = request.args.get("after")
    page = await visitor.api.get("/v1/me/points", after=after, limit=IN_LIST)
    cursor = page["next_cursor"]
    return render(
        "points.html",
        visitor=visitor,
        items=page["items"],
        first=not after,
        next_page=link("/points", after=cursor) if cursor else "",
    )


async def show_day(visitor: Visitor, *, slug: str, day: str) -> Response:
    """How the points of a day came about: the workloads that earned them, and what of the day was paid."""
    day, after = day_of(day, utc_today()), request.args.get("after")
    project = await visitor.api.get(f"/v1/projects/{segment(slug)}")
    if not visitor.is_person:
        raise not_found("points")
    earned = await visitor.api.get("/v1/me/points", day=day, limit=1000)
    page = await visitor.api.get(
        "/v1/workloads",
        project=project["slug"],
        operator="me",
        retired="true",
        after=after,
        limit=WORKLOADS_IN_PAGE,
    )
    days = await _days(visitor, page["items"], day)
    cursor = page["next_cursor"]
    return render(
        "points_day.html",
        visitor=visitor,
        project=project,
        day=day,
        points=next((each for each in earned["items"] if each["project"] == project["slug"]), None),
        workloads=[(each, days.get(each["workload_id"])) for each in page["items"]],
        seal=await visitor.api.find(f"/v1/projects/{segment(slug)}/seals/{day}"),
        next_page=link(f"/points/{segment(slug)}/{day}", after=cursor) if cursor else "",
    )


async def _days(visitor: Visitor, workloads: list[dict[str, Any]], day: str) -> dict[str, dict[str, Any]]:
    """That day of each of these workloads, if it lived then."""
    found: dict[str, dict[str, Any]] = {}
    limit, end = trio.CapacityLimiter(READS_AT_ONCE), str(date.fromisoformat(day) + timedelta(days=1))

    async def read(workload_id: str) -> None:
        async with limit:
            told = await visitor.api.get(f"/v1/workloads/{workload_id}/days", from_=day, to=end)
        for each in told["items"]:
            found[workload_id] = each

    async with trio.open_nursery() as nursery:
        for workload in workloads:
            nursery.start_soon(read, workload["workload_id"])
    return found


PAGES = (
    Page(path="/points", handler=list_points),
    Page(path="/points/{slug}/{day}", handler=show_day),
)
