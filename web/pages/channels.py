"""Channels on pages, one's own and a project's: made, tested, their history, what is sent again, removed.

The two differ in where they are (`Place`) and in what stands around them: notifications.py for one's own,
project_channels.py for those of a project.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, get_args

import msgspec
from quart import Response, request

from engine.core.notices import TakenKind
from web.pages import words
from web.pages.asking import ApiError
from web.pages.forms import NONE, Attempt, Given, given_fields, refused, submit
from web.pages.links import link, segment
from web.pages.pages import form_fields
from web.pages.rendering import render
from web.pages.visitor import Visitor
from web.problems import not_found

DELIVERIES_SHOWN = 50
STATES = ("due", "sent", "dead")
# What an operator is told of; the rest concerns whoever runs a project or the installation.
OF_OPERATORS = ("node.", "workload.", "licence.", "dispute.answered", "points.", "announcement", "gap.")


class Place(msgspec.Struct, frozen=True):
    """Whose channels: `api` and `page` are where they are listed, `name` is what that page is called. `slug`:
    of the project, empty for one's own."""

    api: str
    page: str
    name: str
    slug: str = ""


class Shown(msgspec.Struct, frozen=True):
    """What a list of channels is shown with after its form was sent: refused, or with a secret, which is told
    this once."""

    attempt: Attempt = NONE
    chosen: tuple[str, ...] = ()
    made: dict[str, Any] | None = None


ShowAll = Callable[[Shown], Awaitable[Response]]


def kinds() -> tuple[list[str], list[str]]:
    """(what concerns operators, the rest) of all that a channel may be asked to take."""
    # A Literal of Literals: one level is flattened by the language itself.
    known = [str(kind) for kind in get_args(TakenKind)]
    mine = [kind for kind in known if kind.startswith(OF_OPERATORS)]
    return mine, [kind for kind in known if kind not in mine]


async def add_channel(visitor: Visitor, place: Place, show: ShowAll) -> Response:
    """Answered with a page and not by 303 where there is a secret: it is told once."""
    given, chosen = await given_fields(), tuple(await form_fields("event_kinds"))
    body = {
        "kind": given.get("kind", ""),
        "target": given.get("target", ""),
        "name": given.get("name", ""),
        "event_kinds": list(chosen),
    }
    try:
        made = await visitor.api.send("POST", place.api, body, key=given.get("once", ""))
    except ApiError as error:
        if error.status in (401, 404):
            raise
        return await show(Shown(refused("channel", given, error), chosen))
    return await show(Shown(made=made))


async def show_channel(visitor: Visitor, place: Place, channel_id: str, attempt: Attempt = NONE) -> Response:
    """What was told there, and what came of it."""
    args, path = request.args, f"{place.api}/{segment(channel_id)}"
    state = args.get("state") or None
    page = await visitor.api.get(
        f"{path}/deliveries", state=state, after=args.get("after"), limit=DELIVERIES_SHOWN
    )
    channels = (await visitor.api.get(place.api))["items"]
    channel = next((each for each in channels if each["channel_id"] == channel_id.lower()), None)
    if channel is None:
        raise not_found("channel")
    cursor = page["next_cursor"]
    here = f"{place.page}/{segment(channel_id)}"
    return render(
        "channel.html",
        attempt.status,
        visitor=visitor,
        place=place,
        channel=channel,
        deliveries=page["items"],
        state=state,
        states=STATES,
        next_page=link(here, state=state, after=cursor) if cursor else "",
        attempt=attempt,
        told=words.told(args.get("told")),
    )


async def _do(visitor: Visitor, place: Place, channel_id: str, method: str, what: str, then: str) -> Response:
    """One of the buttons of a channel."""

    async def send(given: Given) -> str:
        path = f"{place.api}/{segment(channel_id)}{what}"
        await visitor.api.send(method, path, key=given.get("once", ""))
        return then

    async def again(attempt: Attempt) -> Response:
        return await show_channel(visitor, place, channel_id, attempt)

    return await submit("channel", send, again=again)


async def send_test(visitor: Visitor, place: Place, channel_id: str) -> Response:
    then = f"{place.page}/{segment(channel_id)}?told=test-sent"
    return await _do(visitor, place, channel_id, "POST", "/test", then)


async def enable(visitor: Visitor, place: Place, channel_id: str) -> Response:
    then = f"{place.page}/{segment(channel_id)}?told=channel-enabled"
    return await _do(visitor, place, channel_id, "POST", "/enable", then)


async def disable(visitor: Visitor, place: Place, channel_id: str) -> Response:
    then = f"{place.page}/{segment(channel_id)}?told=channel-disabled"
    return await _do(visitor, place, channel_id, "POST", "/disable", then)


async def ask_again(visitor: Visitor, place: Place, channel_id: str) -> Response:
    then = f"{place.page}/{segment(channel_id)}?told=asked-again"
    return await _do(visitor, place, channel_id, "POST", "/confirm-again", then)


async def replay_all(visitor: Visitor, place: Place, channel_id: str) -> Response:
    then = f"{place.page}/{segment(channel_id)}?told=replayed"
    return await _do(visitor, place, channel_id, "POST", "/replay", then)


async def replay_one(visitor: Visitor, place: Place, channel_id: str, delivery_id: str) -> Response:
    then = f"{place.page}/{segment(channel_id)}?told=replayed"
    what = f"/deliveries/{segment(delivery_id)}/replay"
    return await _do(visitor, place, channel_id, "POST", what, then)


async def remove(visitor: Visitor, place: Place, channel_id: str) -> Response:
    return await _do(visitor, place, channel_id, "DELETE", "", f"{place.page}?told=channel-removed#channels")
