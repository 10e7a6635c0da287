"""When and where one is told: quiet hours and delay, channels, what was sent there, and what failed."""

from __future__ import annotations

from typing import Any, get_args

from quart import Response, request

from engine.core.notices import TakenKind
from web.me import time_zones
from web.pages import words
from web.pages.asking import ApiError
from web.pages.forms import NONE, Attempt, Given, fault, given_fields, refused, submit
from web.pages.links import link, segment
from web.pages.pages import Page, form_fields
from web.pages.rendering import render
from web.pages.visitor import Visitor
from web.problems import not_found

DELIVERIES_SHOWN = 50
STATES = ("due", "sent", "dead")
CHANNELS = "/v1/me/channels"
# What an operator is told of; the rest concerns whoever runs a project or the installation.
OF_OPERATORS = ("node.", "workload.", "licence.", "dispute.answered", "points.", "announcement", "gap.")


def _kinds() -> tuple[list[str], list[str]]:
    """(what concerns operators, the rest) of all that a channel may be asked to take."""
    # A Literal of Literals: one level is flattened by the language itself.
    kinds = [str(kind) for kind in get_args(TakenKind)]
    mine = [kind for kind in kinds if kind.startswith(OF_OPERATORS)]
    return mine, [kind for kind in kinds if kind not in mine]


async def show_notifications(
    visitor: Visitor,
    *,
    attempt: Attempt = NONE,
    chosen: tuple[str, ...] = (),
    made: dict[str, Any] | None = None,
) -> Response:
    """`made`: the channel that was just made, with its secret, which is shown this once."""
    mine, others = _kinds()
    return render(
        "notifications.html",
        attempt.status,
        visitor=visitor,
        settings=await visitor.api.get("/v1/me/notifications"),
        channels=(await visitor.api.get(CHANNELS))["items"],
        kinds=mine,
        other_kinds=others,
        zones=sorted(time_zones()),
        attempt=attempt,
        chosen=chosen,
        made=made,
        told=words.told(request.args.get("told")),
    )


async def keep_settings(visitor: Visitor) -> Response:
    async def send(given: Given) -> str:
        delay = given.get("down_delay_s", "")
        if not (delay.isascii() and delay.isdigit() and len(delay) < 10):
            raise fault("say it in whole seconds", "down_delay_s")
        body = {
            "down_delay_s": int(delay),
            "quiet_from": given.get("quiet_from") or None,
            "quiet_to": given.get("quiet_to") or None,
            "time_zone": given.get("time_zone") or "UTC",
            "daily_report": "daily_report" in given,
            "weekly_report": "weekly_report" in given,
        }
        await visitor.api.send("PUT", "/v1/me/notifications", body)
        return "/notifications?told=settings-kept"

    async def again(attempt: Attempt) -> Response:
        return await show_notifications(visitor, attempt=attempt)

    return await submit("settings", send, again=again)


async def add_channel(visitor: Visitor) -> Response:
    """Answered with a page and not by 303 where there is a secret: it is told once."""
    given, chosen = await given_fields(), tuple(await form_fields("event_kinds"))
    body = {
        "kind": given.get("kind", ""),
        "target": given.get("target", ""),
        "name": given.get("name", ""),
        "event_kinds": list(chosen),
    }
    try:
        made = await visitor.api.send("POST", CHANNELS, body, key=given.get("once", ""))
    except ApiError as error:
        if error.status == 401:
            raise
        attempt = refused("channel", given, error)
        return await show_notifications(visitor, attempt=attempt, chosen=chosen)
    return await show_notifications(visitor, made=made)


async def show_channel(visitor: Visitor, *, channel_id: str, attempt: Attempt = NONE) -> Response:
    """What was told there, and what came of it."""
    args, path = request.args, f"{CHANNELS}/{segment(channel_id)}"
    state = args.get("state") or None
    page = await visitor.api.get(
        f"{path}/deliveries", state=state, after=args.get("after"), limit=DELIVERIES_SHOWN
    )
    channels = (await visitor.api.get(CHANNELS))["items"]
    channel = next((each for each in channels if each["channel_id"] == channel_id.lower()), None)
    if channel is None:
        raise not_found("channel")
    cursor = page["next_cursor"]
    here = f"/notifications/{segment(channel_id)}"
    return render(
        "channel.html",
        attempt.status,
        visitor=visitor,
        channel=channel,
        deliveries=page["items"],
        state=state,
        states=STATES,
        next_page=link(here, state=state, after=cursor) if cursor else "",
        attempt=attempt,
        told=words.told(args.get("told")),
    )


async def _do(visitor: Visitor, channel_id: str, method: str, what: str, then: str) -> Response:
    """One of the buttons of a channel."""

    async def send(given: Given) -> str:
        path = f"{CHANNELS}/{segment(channel_id)}{what}"
        await visitor.api.send(method, path, key=given.get("once", ""))
        return then

    async def again(attempt: Attempt) -> Response:
        return await show_channel(visitor, channel_id=channel_id, attempt=attempt)

    return await submit("channel", send, again=again)


async def send_test(visitor: Visitor, *, channel_id: str) -> Response:
    then = f"/notifications/{segment(channel_id)}?told=test-sent"
    return await _do(visitor, channel_id, "POST", "/test", then)


async def enable(visitor: Visitor, *, channel_id: str) -> Response:
    then = f"/notifications/{segment(channel_id)}?told=channel-enabled"
    return await _do(visitor, channel_id, "POST", "/enable", then)


async def replay_all(visitor: Visitor, *, channel_id: str) -> Response:
    then = f"/notifications/{segment(channel_id)}?told=replayed"
    return await _do(visitor, channel_id, "POST", "/replay", then)


async def replay_one(visitor: Visitor, *, channel_id: str, delivery_id: str) -> Response:
    then = f"/notifications/{segment(channel_id)}?told=replayed"
    return await _do(visitor, channel_id, "POST", f"/deliveries/{segment(delivery_id)}/replay", then)


async def remove(visitor: Visitor, *, channel_id: str) -> Response:
    return await _do(visitor, channel_id, "DELETE", "", "/notifications?told=channel-removed#channels")


_CHANNEL = "/notifications/{channel_id}"

PAGES = (
    Page(path="/notifications", handler=show_notifications),
    Page(path="/notifications", handler=keep_settings, method="POST"),
    Page(path="/notifications/channels", handler=add_channel, method="POST"),
    Page(path=_CHANNEL, handler=show_channel),
    Page(path=f"{_CHANNEL}/test", handler=send_test, method="POST"),
    Page(path=f"{_CHANNEL}/enable", handler=enable, method="POST"),
    Page(path=f"{_CHANNEL}/replay", handler=replay_all, method="POST"),
    Page(path=f"{_CHANNEL}/deliveries/{{delivery_id}}/replay", handler=replay_one, method="POST"),
    Page(path=f"{_CHANNEL}/remove", handler=remove, method="POST"),
)
