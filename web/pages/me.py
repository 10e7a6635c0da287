"""Oneself: name, wallet, mail address, and keys: made here and shown once, revoked here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quart import Response, request

from web.pages import words
from web.pages.asking import ApiError
from web.pages.clock import utc_now
from web.pages.forms import NONE, Attempt, Given, given_fields, refused, submit
from web.pages.links import link, segment
from web.pages.pages import Page, form_fields
from web.pages.rendering import render
from web.pages.visitor import Visitor

KEYS_SHOWN = 50
LIVES = ("30", "90", "365", "")  # days that a key may be asked to last; "": for ever
PERMISSIONS = {"read": "look", "write": "change things", "points": "commit points of projects you run"}


async def show_me(
    visitor: Visitor,
    *,
    attempt: Attempt = NONE,
    chosen: tuple[str, ...] = ("read",),
    made: dict[str, Any] | None = None,
) -> Response:
    """`made`: the key that was just made, which is shown this once."""
    after = request.args.get("after")
    me = await visitor.api.get("/v1/me")
    keys: dict[str, Any] = {"items": [], "next_cursor": None}
    if visitor.is_person:
        keys = await visitor.api.get("/v1/keys", mine="true", after=after, limit=KEYS_SHOWN)
    cursor = keys["next_cursor"]
    return render(
        "me.html",
        attempt.status,
        visitor=visitor,
        me=me,
        keys=keys["items"],
        next_page=link("/me", after=cursor) if cursor else "",
        permissions={name: told for name, told in PERMISSIONS.items() if name in me["permissions"]},
        lives=LIVES,
        chosen=chosen,
        attempt=attempt,
        made=made,
        told=words.told(request.args.get("told")),
    )


async def keep_name(visitor: Visitor) -> Response:
    async def send(given: Given) -> str:
        await visitor.api.send("PATCH", "/v1/me", {"name": given.get("name", "")})
        return "/me?told=name-kept"

    return await submit("name", send, again=_again(visitor))


async def make_key(visitor: Visitor) -> Response:
    """Answered with a page and not by 303: the secret is in this answer and nowhere else."""
    given, chosen = await given_fields(), tuple(await form_fields("permissions"))
    body: dict[str, Any] = {"scope": "user", "name": given.get("name", ""), "permissions": list(chosen)}
    if given.get("days") in LIVES and given.get("days"):
        ends = utc_now() + timedelta(days=int(given["days"]))
        # Of whole days, so that the form sent twice asks for the same key.
        body["expires_at"] = ends.strftime("%Y-%m-%dT00:00:00Z")
    try:
        made = await visitor.api.send("POST", "/v1/keys", body, key=given.get("once", ""))
    except ApiError as error:
        if error.status == 401:
            raise
        return await show_me(visitor, attempt=refused("key", given, error), chosen=chosen)
    return await show_me(visitor, made=made)


async def revoke_key(visitor: Visitor, *, key_id: str) -> Response:
    async def send(given: Given) -> str:
        await visitor.api.send("DELETE", f"/v1/keys/{segment(key_id)}")
        return "/me?told=key-revoked#keys"

    return await submit("revoke", send, again=_again(visitor))


def _again(visitor: Visitor) -> Any:
    async def again(attempt: Attempt) -> Response:
        return await show_me(visitor, attempt=attempt)

    return again


PAGES = (
    Page(path="/me", handler=show_me),
    Page(path="/me/name", handler=keep_name, method="POST"),
    Page(path="/me/keys", handler=make_key, method="POST"),
    Page(path="/me/keys/{key_id}/revoke", handler=revoke_key, method="POST"),
)
