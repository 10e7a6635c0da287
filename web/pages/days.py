"""A project's days, and one day's close: what it waits for, what was sealed, what is suggested and committed.

What is done on a day is day_forms.py's, one commit of points commits.py's.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.asking import ApiError
from web.pages.downloads import download
from web.pages.forms import NONE, Attempt
from web.pages.links import link, segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.streamed import download_stream
from web.pages.visitor import Visitor

DAYS_SHOWN = 31
DISPUTES_SHOWN = 20
PREVIEW_ROWS_MAX = 20_000  # of a day; what more are worth is only reckoned when somebody asks for it
FORMATS = ("csv", "ndjson")


async def list_days(visitor: Visitor, *, slug: str) -> Response:
    path, after = f"/v1/projects/{segment(slug)}", request.args.get("after")
    project = await visitor.api.get(path)
    page = await visitor.api.get(f"{path}/days", after=after, limit=DAYS_SHOWN)
    cursor = page["next_cursor"]
    return render(
        "days.html",
        visitor=visitor,
        project=project,
        days=page["items"],
        first=not after,
        next_page=link(f"/projects/{project['slug']}/days", after=cursor) if cursor else "",
    )


async def show_day(
    visitor: Visitor, *, slug: str, day: str, attempt: Attempt = NONE, checked: dict[str, Any] | None = None
) -> Response:
    """`checked`: what rows of the owner's own would come to, that were sent to be looked at."""
    path = f"/v1/projects/{segment(slug)}"
    told = await visitor.api.get(f"{path}/days/{segment(day)}")
    if "hx-request" in request.headers:
        return render("parts/day_now.html", visitor=visitor, slug=slug, day=told)
    sealed = await _sealed(visitor, path, told) if told["seal"] else None
    preview, why_none = await _preview(visitor, path, told)
    disputes = await visitor.api.get("/v1/disputes", project=slug, day=told["day"], limit=DISPUTES_SHOWN)
    return render(
        "day.html",
        attempt.status,
        visitor=visitor,
        project=await visitor.api.get(path),
        slug=slug,
        day=told,
        sealed=sealed,
        preview=preview,
        why_none=why_none,
        rule=await rule_of_day(visitor, path, told["day"]),
        commits=(await visitor.api.get(f"{path}/points/commits", day=told["day"], limit=100))["items"],
        disputes=disputes["items"],
        disputes_further=disputes["next_cursor"] is not None,
        formats=FORMATS,
        attempt=attempt,
        checked=checked,
        told=words.told(request.args.get("told")),
    )


async def _sealed(visitor: Visitor, path: str, told: dict[str, Any]) -> dict[str, Any]:
    """All that is told of a sealed day."""
    of_day = f"{path}/seals/{told['day']}"
    following = str(date.fromisoformat(told["day"]) + timedelta(days=1))
    seals = await visitor.api.get(f"{path}/seals", after=following, limit=1)  # all revisions of one day
    return {
        "seal": await visitor.api.get(of_day),
        "revisions": seals["items"],
        "corrections": (await visitor.api.get(f"{of_day}/corrections"))["items"],
        "publications": (await visitor.api.get(f"{of_day}/publications"))["items"],
        "transaction": await visitor.api.find(f"{of_day}/transaction") is not None,
    }


async def _preview(visitor: Visitor, path: str, told: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What the project's rule gives for a sealed day, and if there is nothing to show, why."""
    if told["seal"] is None:
        return None, ""
    is_open = told["commit"] is None or told["outdated"]
    wanted = request.args.get("preview") == "1"
    if not wanted and not (is_open and told["seal"]["rows"] <= PREVIEW_ROWS_MAX):
        return None, "later"
    try:
        return await visitor.api.get(f"{path}/points/suggested/preview", day=told["day"]), ""
    except ApiError as error:
        if error.problem.get("code") == "no_reward_rule":
            return None, "no rule"
        if error.status == 503:
            return None, "busy"
        raise


async def rule_of_day(visitor: Visitor, path: str, day: str) -> dict[str, Any] | None:
    """The policy that holds on that day; None: nobody decided on one."""
    items = (await visitor.api.get(f"{path}/policies"))["items"]
    holding = [each for each in items if each["effective_from"] <= day]
    return max(holding, key=lambda each: (each["effective_from"], each["revision"]), default=None)


async def download_suggestion(visitor: Visitor, *, slug: str, day: str) -> Response:
    form = _form_of_query()
    path = f"/v1/projects/{segment(slug)}/points/suggested"
    return await download_stream(visitor, path, name=f"suggested-{slug}-{day}.{form}", day=day, format=form)


async def download_rows(visitor: Visitor, *, slug: str, commit_id: str) -> Response:
    form = _form_of_query()
    path = f"/v1/projects/{segment(slug)}/points/commits/{segment(commit_id)}/rows"
    return await download_stream(visitor, path, name=f"points-{slug}-{commit_id[-12:]}.{form}", format=form)


def _form_of_query() -> str:
    form = request.args.get("format", FORMATS[0])
    return form if form in FORMATS else FORMATS[0]


async def download_transaction(visitor: Visitor, *, slug: str, day: str) -> Response:
    path = f"/v1/projects/{segment(slug)}/seals/{segment(day)}/transaction"
    return await download(visitor, path, name=f"transaction-{slug}-{day}.json")


async def download_seal(visitor: Visitor, *, slug: str, day: str) -> Response:
    path = f"/v1/projects/{segment(slug)}/seals/{segment(day)}"
    revision = request.args.get("revision")
    return await download(visitor, path, name=f"seal-{slug}-{day}.json", revision=revision)


async def download_proof(visitor: Visitor, *, slug: str, day: str) -> Response:
    """Of a workload that is named in a form."""
    workload_id = request.args.get("workload_id", "").strip()
    path = f"/v1/workloads/{segment(workload_id)}/proof"
    return await download(visitor, path, name=f"proof-{workload_id[-12:]}-{day}.json", day=day)


_DAY = "/projects/{slug}/days/{day}"
PAGES = (
    Page(path="/projects/{slug}/days", handler=list_days),
    Page(path=_DAY, handler=show_day),
    Page(path=f"{_DAY}/suggested", handler=download_suggestion),
    Page(path=f"{_DAY}/seal", handler=download_seal),
    Page(path=f"{_DAY}/transaction", handler=download_transaction),
    Page(path=f"{_DAY}/proof", handler=download_proof),
    Page(path="/projects/{slug}/commits/{commit_id}/rows", handler=download_rows),
)
