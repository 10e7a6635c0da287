"""When and where one is told: quiet hours and delay, and one's own channels (channels.py)."""

from __future__ import annotations

from quart import Response, request

from web.me import time_zones
from web.pages import channels, words
from web.pages.channels import Place, Shown
from web.pages.forms import NONE, Attempt, Given, fault, submit
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor

MINE = Place("/v1/me/channels", "/notifications", "Notifications")


async def show_notifications(
    visitor: Visitor, *, attempt: Attempt = NONE, shown: Shown | None = None
) -> Response:
    shown = shown or Shown(attempt)
    mine, others = channels.kinds()
    return render(
        "notifications.html",
        shown.attempt.status,
        visitor=visitor,
        place=MINE,
        settings=await visitor.api.get("/v1/me/notifications"),
        channels=(await visitor.api.get(MINE.api))["items"],
        kinds=mine,
        other_kinds=others,
        zones=sorted(time_zones()),
        attempt=shown.attempt,
        chosen=shown.chosen,
        made=shown.made,
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
    async def show(shown: Shown) -> Response:
        return await show_notifications(visitor, shown=shown)

    return await channels.add_channel(visitor, MINE, show)


async def show_channel(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.show_channel(visitor, MINE, channel_id)


async def send_test(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.send_test(visitor, MINE, channel_id)


async def enable(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.enable(visitor, MINE, channel_id)


async def disable(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.disable(visitor, MINE, channel_id)


async def ask_again(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.ask_again(visitor, MINE, channel_id)


async def replay_all(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.replay_all(visitor, MINE, channel_id)


async def replay_one(visitor: Visitor, *, channel_id: str, delivery_id: str) -> Response:
    return await channels.replay_one(visitor, MINE, channel_id, delivery_id)


async def remove(visitor: Visitor, *, channel_id: str) -> Response:
    return await channels.remove(visitor, MINE, channel_id)


_CHANNEL = "/notifications/{channel_id}"

PAGES = (
    Page(path="/notifications", handler=show_notifications),
    Page(path="/notifications", handler=keep_settings, method="POST"),
    Page(path="/notifications/channels", handler=add_channel, method="POST"),
    Page(path=_CHANNEL, handler=show_channel),
    Page(path=f"{_CHANNEL}/test", handler=send_test, method="POST"),
    Page(path=f"{_CHANNEL}/enable", handler=enable, method="POST"),
    Page(path=f"{_CHANNEL}/disable", handler=disable, method="POST"),
    Page(path=f"{_CHANNEL}/confirm-again", handler=ask_again, method="POST"),
    Page(path=f"{_CHANNEL}/replay", handler=replay_all, method="POST"),
    Page(path=f"{_CHANNEL}/deliveries/{{delivery_id}}/replay", handler=replay_one, method="POST"),
    Page(path=f"{_CHANNEL}/remove", handler=remove, method="POST"),
)
