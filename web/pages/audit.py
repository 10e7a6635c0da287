"""The audit log: who changed what, by actor, action and thing; and whether it is as it was written."""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages.links import link
from web.pages.pages import Page, form_field
from web.pages.rendering import render
from web.pages.visitor import Visitor, must_be_admin

ENTRIES_IN_PAGE = 50
PARTS_MAX = 10  # of the chain, looked at by one press of the button
HERE = "/installation/audit"


async def list_audit(visitor: Visitor, *, chain: dict[str, Any] | None = None) -> Response:
    must_be_admin(visitor)
    args = request.args
    asked: dict[str, Any] = {
        name: args.get(name, "").strip() or None for name in ("actor", "action", "subject")
    }
    page = await visitor.api.get("/v1/audit", **asked, after=args.get("after"), limit=ENTRIES_IN_PAGE)
    cursor = page["next_cursor"]
    return render(
        "installation/audit.html",
        visitor=visitor,
        entries=page["items"],
        first=not args.get("after"),
        next_page=link(HERE, **asked, after=cursor) if cursor else "",
        chain=chain,
        here=HERE,
        **asked,
    )


async def check_chain(visitor: Visitor) -> Response:
    """Part by part from where the last look ended; a long log takes several presses."""
    after = await form_field("after")
    part: dict[str, Any] = {}
    for _ in range(PARTS_MAX):
        part = await visitor.api.get("/v1/audit/chain", after=after or None)
        after = str(part["upto"])
        if part["broken"] is not None or not part["more"]:
            break
    return await list_audit(visitor, chain=part)


PAGES = (
    Page(path=HERE, handler=list_audit),
    Page(path="/installation/audit/check", handler=check_chain, method="POST"),
)
