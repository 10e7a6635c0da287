"""The worker's jobs for whoever runs the installation: when each is due, and what came of the last run."""

from __future__ import annotations

from typing import Any

from quart import Response, request

from web.pages.clock import utc_now
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor
from web.times import parse_rfc3339


async def show_schedule(visitor: Visitor) -> Response:
    schedule = await visitor.api.get("/v1/schedule")
    now_ms = int(utc_now().timestamp() * 1_000)
    return render(
        "installation/parts/jobs.html" if "hx-request" in request.headers else "installation/schedule.html",
        visitor=visitor,
        jobs=[{**job, "late_ms": _late_ms(job, now_ms)} for job in schedule["items"]],
    )


def _late_ms(job: dict[str, Any], now_ms: int) -> int | None:
    """How long ago the oldest due time came that is not done; or how late the last run was begun."""
    if job["oldest_due_at"] is not None:
        return max(0, now_ms - parse_rfc3339(job["oldest_due_at"]))
    if job["next_due_at"] is not None and (overdue_ms := now_ms - parse_rfc3339(job["next_due_at"])) > 0:
        return overdue_ms
    if job["cron"] and job["last_due_at"] and job["last_run_at"]:
        return max(0, parse_rfc3339(job["last_run_at"]) - parse_rfc3339(job["last_due_at"]))
    return None


PAGES = (Page(path="/installation/schedule", handler=show_schedule),)
