"""Kinds of workloads and their rollouts: what may run, on how many of the nodes, and who runs it by now.

A rollout grows in waves or to any percentage, and shrinks; what runs is what managers report.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from quart import Response, request

from web.pages import words
from web.pages.forms import NONE, Attempt, Given, fault, submit
from web.pages.links import link, segment
from web.pages.network import summary_of
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

IN_LIST = 100
WAVES = (1, 5, 10, 25, 50, 100)  # what is offered next; any other percentage can be written


async def list_kinds(visitor: Visitor, *, slug: str, attempt: Attempt = NONE) -> Response:
    path, after = _project(slug), request.args.get("after")
    project = await visitor.api.get(path)
    page = await visitor.api.get(f"{path}/kinds", after=after, limit=IN_LIST)
    summary = await summary_of(visitor, path)
    cursor = page["next_cursor"]
    return render(
        "kinds.html",
        attempt.status,
        visitor=visitor,
        project=project,
        kinds=page["items"],
        running={each["kind"]: each for each in summary["kinds"]} if summary else {},
        first=not after,
        next_page=link(f"/projects/{project['slug']}/kinds", after=cursor) if cursor else "",
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


async def show_kind(visitor: Visitor, *, slug: str, kind: str, attempt: Attempt = NONE) -> Response:
    path, after = f"{_project(slug)}/kinds/{segment(kind)}", request.args.get("after")
    project = await visitor.api.get(_project(slug))
    found = await visitor.api.get(path)
    summary = await summary_of(visitor, _project(slug))
    page = await visitor.api.get(f"{path}/versions", after=after, limit=IN_LIST)
    cursor = page["next_cursor"]
    return render(
        "parts/kind_progress.html" if "hx-request" in request.headers else "kind.html",
        attempt.status,
        visitor=visitor,
        project=project,
        kind=found,
        versions=list(reversed(page["items"])),
        **_running(summary, found["slug"]),
        waves={each["version"]: _next_wave(each["rollout_percent"]) for each in page["items"]},
        next_page=link(f"/projects/{project['slug']}/kinds/{found['slug']}", after=cursor) if cursor else "",
        attempt=attempt,
        told=words.told(request.args.get("told")),
    )


async def show_version(visitor: Visitor, *, slug: str, kind: str, version: str) -> Response:
    """A version with its manifest as it was sent."""
    return render(
        "kind_version.html",
        visitor=visitor,
        project=await visitor.api.get(_project(slug)),
        kind=await visitor.api.get(f"{_project(slug)}/kinds/{segment(kind)}"),
        offered=await visitor.api.get(_version(slug, kind, version)),
    )


def _running(summary: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """Who of the kind runs what: all of them, and by version; of none that is reported under None."""
    if summary is None:
        return {"total": 0, "running": {}, "as_of": None, "counting": True}
    found = next((each for each in summary["kinds"] if each["kind"] == kind), None)
    by_version = {each["version"]: each for each in found["versions"]} if found else {}
    return {
        "total": found["total"] if found else 0,
        "running": by_version,
        "as_of": summary["as_of"],
        "counting": False,
    }


def _next_wave(percent: int) -> int | None:
    return next((each for each in WAVES if each > percent), None)


async def create_kind(visitor: Visitor, *, slug: str) -> Response:
    async def send(given: Given) -> str:
        body = {"slug": given.get("slug", ""), "name": given.get("name", "")}
        made = await visitor.api.send("POST", f"{_project(slug)}/kinds", body, key=given.get("once", ""))
        return f"/projects/{segment(slug)}/kinds/{made['slug']}?told=kind-made"

    async def again(attempt: Attempt) -> Response:
        return await list_kinds(visitor, slug=slug, attempt=attempt)

    return await submit("kind", send, again=again)


async def change_kind(visitor: Visitor, *, slug: str, kind: str) -> Response:
    async def send(given: Given) -> str:
        body = {"name": given.get("name", ""), "minimum_version": given.get("minimum_version") or None}
        await visitor.api.send("PATCH", f"{_project(slug)}/kinds/{segment(kind)}", body)
        return f"{_page(slug, kind)}?told=kind-changed"

    return await submit("change", send, again=_again(visitor, slug, kind))


async def retire_kind(visitor: Visitor, *, slug: str, kind: str) -> Response:
    async def send(given: Given) -> str:
        body = {"retired": given.get("retired", "true") == "true"}
        await visitor.api.send("PATCH", f"{_project(slug)}/kinds/{segment(kind)}", body)
        return f"{_page(slug, kind)}?told=kind-changed"

    return await submit("retire", send, again=_again(visitor, slug, kind))


async def create_version(visitor: Visitor, *, slug: str, kind: str) -> Response:
    async def send(given: Given) -> str:
        body = {
            "version": given.get("version", ""),
            "manifest": given.get("manifest", ""),
            "rollout_percent": _percent(given.get("rollout_percent", "0")),
        }
        path = f"{_project(slug)}/kinds/{segment(kind)}/versions"
        await visitor.api.send("POST", path, body, key=given.get("once", ""))
        return f"{_page(slug, kind)}?told=version-made"

    return await submit("version", send, again=_again(visitor, slug, kind))


async def roll_out(visitor: Visitor, *, slug: str, kind: str, version: str) -> Response:
    """To a percentage, or by a wave's button."""

    async def send(given: Given) -> str:
        body = {"rollout_percent": _percent(given.get("wave") or given.get("rollout_percent", ""))}
        await visitor.api.send("PATCH", _version(slug, kind, version), body)
        return f"{_page(slug, kind)}?told=rolled-out"

    return await submit(f"rollout {version}", send, again=_again(visitor, slug, kind))


async def withdraw(visitor: Visitor, *, slug: str, kind: str, version: str) -> Response:
    async def send(given: Given) -> str:
        body = {"withdrawn": given.get("withdrawn", "true") == "true"}
        await visitor.api.send("PATCH", _version(slug, kind, version), body)
        return f"{_page(slug, kind)}?told=rolled-out"

    return await submit(f"rollout {version}", send, again=_again(visitor, slug, kind))


def _again(visitor: Visitor, slug: str, kind: str) -> Any:
    async def again(attempt: Attempt) -> Response:
        return await show_kind(visitor, slug=slug, kind=kind, attempt=attempt)

    return again


def _percent(text: str) -> int:
    """ApiError 422."""
    if not text.isascii() or not text.isdigit() or int(text[:4]) > 100:
        raise fault("a rollout reaches from 0 to 100 percent of the nodes", "rollout_percent")
    return int(text)


def _project(slug: str) -> str:
    return f"/v1/projects/{segment(slug)}"


def _version(slug: str, kind: str, version: str) -> str:
    # A version's + is itself in a path.
    return f"{_project(slug)}/kinds/{segment(kind)}/versions/{quote(version, safe='+')}"


def _page(slug: str, kind: str) -> str:
    return f"/projects/{segment(slug)}/kinds/{segment(kind)}"


_KINDS, _KIND = "/projects/{slug}/kinds", "/projects/{slug}/kinds/{kind}"
PAGES = (
    Page(path=_KINDS, handler=list_kinds),
    Page(path=_KINDS, handler=create_kind, method="POST"),
    Page(path=_KIND, handler=show_kind),
    Page(path=f"{_KIND}/change", handler=change_kind, method="POST"),
    Page(path=f"{_KIND}/retire", handler=retire_kind, method="POST"),
    Page(path=f"{_KIND}/versions", handler=create_version, method="POST"),
    Page(path=f"{_KIND}/versions/{{version}}", handler=show_version),
    Page(path=f"{_KIND}/versions/{{version}}/rollout", handler=roll_out, method="POST"),
    Page(path=f"{_KIND}/versions/{{version}}/withdraw", handler=withdraw, method="POST"),
)
