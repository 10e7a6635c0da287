"""How the installation is now: what is wrong, what comes in and how quickly it is answered, shard by shard.

The part that changes is asked for again every two seconds. Outbox, schedule, roots, audit log and people have
pages of their own; what all of them say is the API's.
"""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages.amounts import bars_of
from web.pages.links import link
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

GAPS_ON_OVERVIEW = 10
GAPS_IN_PAGE = 50


async def show_installation(visitor: Visitor) -> Response:
    now = await visitor.api.get("/v1/installation")
    values: dict[str, Any] = {
        "visitor": visitor,
        "now": now,
        "bars": bars_of(now["ingest"]["waited"]["buckets"], upto="to_ms", count="beats", unit="ms"),
    }
    if "hx-request" in request.headers:
        return render("installation/parts/now.html", **values)
    gaps = await visitor.api.get("/v1/installation/gaps", limit=GAPS_ON_OVERVIEW)
    return render("installation/overview.html", gaps=gaps["items"], **values)


async def list_gaps(visitor: Visitor) -> Response:
    after = request.args.get("after")
    page = await visitor.api.get("/v1/installation/gaps", after=after, limit=GAPS_IN_PAGE)
    now = await visitor.api.get("/v1/installation")
    lasting = [
        (shard["shard"], gap)
        for shard in now["shards"]
        if shard["figures"] is not None
        for gap in shard["figures"]["gaps_open"]
    ]
    cursor = page["next_cursor"]
    return render(
        "installation/gaps.html",
        visitor=visitor,
        gaps=page["items"],
        lasting=lasting,
        first=not after,
        next_page=link("/installation/gaps", after=cursor) if cursor else "",
    )


PAGES = (
    Page(path="/installation", handler=show_installation),
    Page(path="/installation/gaps", handler=list_gaps),
)
