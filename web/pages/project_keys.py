"""Keys of a project: who made them, when they were last used, when they end; made, rotated, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.asking import ApiError
from web.pages.clock import utc_now
from web.pages.forms import NONE, Attempt, Given, given_fields, refused, submit
from web.pages.links import link, segment
from web.pages.me import KEYS_SHOWN, LIVES, PERMISSIONS
from web.pages.pages import Page, form_fields
from web.pages.rendering import render
from web.pages.visitor import Visitor

OVERLAPS = {"86400": "a day", "3600": "an hour", "604800": "a week", "0": "no longer"}


async def show_keys(
    visitor: Visitor,
    *,
    slug: str,
    attempt: Attempt = NONE,
    chosen: tuple[str, ...] = ("read",),
    made: dict[str, Any] | None = None,
) -> Response:
    """`made`: the key that was just made, which is shown this once."""
    after = request.args.get("after")
    me = await visitor.api.get("/v1/me")
    page = await visitor.api.get("/v1/keys", project=slug, after=after, limit=KEYS_SHOWN)
    cursor, now = page["next_cursor"], utc_now().isoformat(timespec="milliseconds")[:23]
    return render(
        "project_keys.html",
        attempt.status,
        visitor=visitor,
        slug=slug,
        keys=page["items"],
        first=not after,
        next_page=link(f"/projects/{slug}/keys", after=cursor) if cursor else "",
        names=_names(visitor, page["items"]),
        now=now,
        this_one=me["credential_id"],
        permissions={name: told for name, told in PERMISSIONS.items() if name in me["permissions"]},
        lives=LIVES,
        overlaps=OVERLAPS,
        chosen=chosen,
        attempt=attempt,
        made=made,
        told=words.told(request.args.get("told")),
    )


def _names(visitor: Visitor, keys: list[dict[str, Any]]) -> dict[str, str]:
    """Who made them, as far as that can be said in words."""
    names = {f"key:{key['key_id']}": f"the key {key['name'] or key['prefix']}" for key in keys}
    if visitor.me is not None and visitor.me["user"]:
        names[f"user:{visitor.me['user']['user_id']}"] = "you"
    return names


async def make_key(visitor: Visitor, *, slug: str) -> Response:
    """Answered with a page and not by 303: the secret is in this answer and nowhere else."""
    given, chosen = await given_fields(), tuple(await form_fields("permissions"))
    body: dict[str, Any] = {
        "scope": "project",
        "project": slug,
        "name": given.get("name", ""),
        "permissions": list(chosen),
    }
    if given.get("days") in LIVES and given.get("days"):
        ends = utc_now() + timedelta(days=int(given["days"]))
        # Of whole days, so that the form sent twice asks for the same key.
        body["expires_at"] = ends.strftime("%Y-%m-%dT00:00:00Z")
    return await _made(visitor, slug, "key", given, chosen, "/v1/keys", body)


async def rotate_key(visitor: Visitor, *, slug: str, key_id: str) -> Response:
    given = await given_fields()
    overlap = given.get("overlap_s", "")
    body = {"overlap_s": int(overlap) if overlap in OVERLAPS else 86_400}
    path = f"/v1/keys/{segment(key_id)}/rotate"
    return await _made(visitor, slug, "rotate", given, ("read",), path, body)


async def _made(
    visitor: Visitor,
    slug: str,
    form: str,
    given: Given,
    chosen: tuple[str, ...],
    path: str,
    body: dict[str, Any],
) -> Response:
    try:
        made = await visitor.api.send("POST", path, body, key=given.get("once", ""))
    except ApiError as error:
        if error.status in (401, 404):
            raise
        return await show_keys(visitor, slug=slug, attempt=refused(form, given, error), chosen=chosen)
    return await show_keys(visitor, slug=slug, made=made)


async def revoke_key(visitor: Visitor, *, slug: str, key_id: str) -> Response:
    async def send(given: Given) -> str:
        await visitor.api.send("DELETE", f"/v1/keys/{segment(key_id)}")
        return f"/projects/{segment(slug)}/keys?told=key-revoked"

    async def again(attempt: Attempt) -> Response:
        return await show_keys(visitor, slug=slug, attempt=attempt)

    return await submit("revoke", send, again=again)


_ALL = "/projects/{slug}/keys"
PAGES = (
    Page(path=_ALL, handler=show_keys),
    Page(path=_ALL, handler=make_key, method="POST"),
    Page(path=f"{_ALL}/{{key_id}}/rotate", handler=rotate_key, method="POST"),
    Page(path=f"{_ALL}/{{key_id}}/revoke", handler=revoke_key, method="POST"),
)
