"""One workload: what it is now, which version runs, 90 days, and of one day why it was not paid.

A sealed day can be disputed from here, and its proof downloaded. Binding to a licence is licences.py's.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.clock import utc_today
from web.pages.downloads import download
from web.pages.forms import NONE, Attempt, Given, submit
from web.pages.links import day_of, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.strips import bands_of, strip_of
from web.pages.visitor import Visitor

DAYS = 90


async def show_workload(
    visitor: Visitor, *, workload_id: str, attempt: Attempt = NONE, day: str = ""
) -> Response:
    path, today = f"/v1/workloads/{segment(workload_id)}", utc_today()
    workload = await visitor.api.get(path)
    if "hx-request" in request.headers:
        return render("parts/workload_now.html", visitor=visitor, **await _now(visitor, path, workload))
    day = day_of(day or request.args.get("day"), today)
    why = await visitor.api.get(f"{path}/why", day=day)
    days = await visitor.api.get(f"{path}/days", from_=str(today - timedelta(days=DAYS - 1)))
    disputes = await visitor.api.get("/v1/disputes", workload_id=workload["workload_id"], day=day, limit=20)
    return render(
        "workload.html",
        attempt.status,
        visitor=visitor,
        **await _now(visitor, path, workload),
        why=why,
        bands=bands_of(why),
        day=day,
        today=str(today),
        earlier=_beside(day, -1),
        later=_beside(day, 1) if day < str(today) else "",
        days=list(reversed(days["items"])),
        strip=strip_of(days["items"], count=DAYS, last=today),
        count=DAYS,
        reasons=words.REFUSED,
        disputes=disputes["items"],
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


async def _now(visitor: Visitor, path: str, workload: dict[str, Any]) -> dict[str, Any]:
    """What the part of the page shows that is asked for again when something happens."""
    licence_id = workload["licence_id"]
    return {
        "workload": workload,
        "node": await visitor.api.get(f"/v1/nodes/{workload['node_id']}"),
        "versions": await visitor.api.get(f"{path}/version"),
        # A licence in another wallet is not this visitor's to see.
        "licence": await visitor.api.find(f"/v1/licences/{licence_id}") if licence_id else None,
    }


def _beside(day: str, step: int) -> str:
    try:
        return str(date.fromisoformat(day) + timedelta(days=step))
    except OverflowError:
        return ""


async def open_dispute(visitor: Visitor, *, workload_id: str) -> Response:
    async def send(given: Given) -> str:
        return await dispute(visitor, given, workload_id)

    async def again(attempt: Attempt) -> Response:
        return await show_workload(
            visitor, workload_id=workload_id, attempt=attempt, day=attempt.given.get("day", "")
        )

    return await submit("dispute", send, again=again)


async def dispute(visitor: Visitor, given: Given, workload_id: str) -> str:
    """Open the dispute that a form states; where it is shown. ApiError."""
    body = {
        "day": given.get("day", ""),
        "text": given.get("text", ""),
        "evidence": evidence_of(given.get("evidence", "")),
    }
    path = f"/v1/workloads/{segment(workload_id)}/disputes"
    made = await visitor.api.send("POST", path, body, key=given.get("once", ""))
    return f"/disputes/{made['dispute_id']}?told=dispute-opened"


def evidence_of(text: str) -> list[str]:
    """What one points to, a line each."""
    return [line.strip() for line in text.splitlines() if line.strip()]


async def download_proof(visitor: Visitor, *, workload_id: str, day: str) -> Response:
    return await download(
        visitor,
        f"/v1/workloads/{segment(workload_id)}/proof",
        name=f"proof-{workload_id[-12:]}-{day}.json",
        day=day,
    )


PAGES = (
    Page(path="/workloads/{workload_id}", handler=show_workload),
    Page(path="/workloads/{workload_id}/proofs/{day}", handler=download_proof),
    Page(path="/workloads/{workload_id}/disputes", handler=open_dispute, method="POST"),
)
