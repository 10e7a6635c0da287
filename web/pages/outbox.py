"""What is still to be sent and what was given up, for whoever runs the installation."""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.amounts import bars_of
from web.pages.forms import NONE, Attempt, Given, submit
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

LETTERS_IN_PAGE = 50
HERE = "/installation/outbox"


async def show_outbox(visitor: Visitor, *, attempt: Attempt = NONE) -> Response:
    outbox = await visitor.api.get("/v1/installation/outbox")
    values: dict[str, Any] = {
        "visitor": visitor,
        "outbox": outbox,
        "bars": bars_of(outbox["lag"], upto="to_s", count="notices", unit="s"),
    }
    if "hx-request" in request.headers:
        return render("installation/parts/outbox_now.html", **values)
    after = request.args.get("after")
    page = await visitor.api.get("/v1/installation/dead-letters", after=after, limit=LETTERS_IN_PAGE)
    cursor = page["next_cursor"]
    return render(
        "installation/outbox.html",
        attempt.status,
        letters=page["items"],
        first=not after,
        next_page=link(HERE, after=cursor) if cursor else "",
        attempt=attempt,
        told=words.told(request.args.get("told")),
        **values,
    )


async def replay(visitor: Visitor, *, delivery_id: str) -> Response:
    """One, or all of its channel, by which button was pressed."""

    async def send(given: Given) -> str:
        whole = "?channel=true" if given.get("which") == "channel" else ""
        await visitor.api.send("POST", f"/v1/installation/dead-letters/{segment(delivery_id)}/replay{whole}")
        return f"{HERE}?told=replayed"

    async def again(attempt: Attempt) -> Response:
        return await show_outbox(visitor, attempt=attempt)

    return await submit("replay", send, again=again)


PAGES = (
    Page(path=HERE, handler=show_outbox),
    Page(path="/installation/outbox/{delivery_id}/replay", handler=replay, method="POST"),
)
