"""Points of a project over days: who has how much, by day, as a file; and the board for everybody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quart import Response, request

from web.pages.clock import utc_today
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.streamed import download_stream
from web.pages.visitor import Visitor

RECEIVERS_SHOWN, BOARD_SHOWN, DAYS_SHOWN = 50, 100, 31


def _window() -> dict[str, Any]:
    """The days that are asked for, [from, to); None: without an end."""
    return {name: request.args.get(name) or None for name in ("from", "to")}


async def show_totals(visitor: Visitor, *, slug: str) -> Response:
    path, after, window = f"/v1/projects/{segment(slug)}", request.args.get("after"), _window()
    totals = await visitor.api.get(f"{path}/points", **window, after=after, limit=RECEIVERS_SHOWN)
    from_day = window["from"] or str(utc_today() - timedelta(days=DAYS_SHOWN))
    days: list[dict[str, Any]] = []
    if window["to"] is None or from_day < window["to"]:
        days = (
            await visitor.api.get(f"{path}/points/days", from_=from_day, to=window["to"], limit=DAYS_SHOWN)
        )["items"]
    cursor, here = totals["next_cursor"], f"/projects/{slug}/points"
    return render(
        "totals.html",
        visitor=visitor,
        slug=slug,
        totals=totals,
        days=list(reversed(days)),
        window=window,
        first=not after,
        next_page=link(here, **window, after=cursor) if cursor else "",
        exports={form: link(f"{here}/export", **window, format=form) for form in ("csv", "ndjson")},
    )


async def export(visitor: Visitor, *, slug: str) -> Response:
    form = "ndjson" if request.args.get("format") == "ndjson" else "csv"
    path, name = f"/v1/projects/{segment(slug)}/points/export", f"points-{slug}.{form}"
    return await download_stream(visitor, path, name=name, **_window(), format=form)


async def show_board(visitor: Visitor, *, slug: str) -> Response:
    """For whoever signed in: people and wallets."""
    path, after, window = f"/v1/projects/{segment(slug)}", request.args.get("after"), _window()
    project = await visitor.api.get(path)
    board = await visitor.api.get(f"{path}/leaderboard", **window, after=after, limit=BOARD_SHOWN)
    cursor = board["next_cursor"]
    runs = visitor.is_admin or any(each["slug"] == project["slug"] for each in visitor.projects)
    return render(
        "board.html",
        visitor=visitor,
        project=project,
        runs=runs,
        board=board["items"],
        window=window,
        first=not after,
        next_page=link(f"/projects/{slug}/leaderboard", **window, after=cursor) if cursor else "",
    )


PAGES = (
    Page(path="/projects/{slug}/points", handler=show_totals),
    Page(path="/projects/{slug}/points/export", handler=export),
    Page(path="/projects/{slug}/leaderboard", handler=show_board),
)
