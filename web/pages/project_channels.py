"""Where notices of a project go: its webhooks, addresses and chats, for whoever runs it."""

from __future__ import annotations

from quart import Response, request

from web.pages import channels, words
from web.pages.channels import Place, Shown
from web.pages.links import segment
from web.pages.pages import Page
from web.pages.rendering import render
from web.pages.visitor import Visitor


def _place(slug: str) -> Place:
    return Place(
        f"/v1/projects/{segment(slug)}/channels", f"/projects/{segment(slug)}/channels", "Channels", slug
    )


async def show_channels(visitor: Visitor, *, slug: str, shown: Shown | None = None) -> Response:
    place, shown = _place(slug), shown or Shown()
    of_machines, of_projects = channels.kinds()
    return render(
        "project_channels.html",
        shown.attempt.status,
        visitor=visitor,
        place=place,
        slug=slug,
        channels=(await visitor.api.get(place.api))["items"],
        kinds=of_machines,
        other_kinds=of_projects,
        attempt=shown.attempt,
        chosen=shown.chosen,
        made=shown.made,
        told=words.told(request.args.get("told")),
    )


async def add_channel(visitor: Visitor, *, slug: str) -> Response:
    async def show(shown: Shown) -> Response:
        return await show_channels(visitor, slug=slug, shown=shown)

    return await channels.add_channel(visitor, _place(slug), show)


async def show_channel(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.show_channel(visitor, _place(slug), channel_id)


async def send_test(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.send_test(visitor, _place(slug), channel_id)


async def enable(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.enable(visitor, _place(slug), channel_id)


async def disable(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.disable(visitor, _place(slug), channel_id)


async def ask_again(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.ask_again(visitor, _place(slug), channel_id)


async def replay_all(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.replay_all(visitor, _place(slug), channel_id)


async def replay_one(visitor: Visitor, *, slug: str, channel_id: str, delivery_id: str) -> Response:
    return await channels.replay_one(visitor, _place(slug), channel_id, delivery_id)


async def remove(visitor: Visitor, *, slug: str, channel_id: str) -> Response:
    return await channels.remove(visitor, _place(slug), channel_id)


_ALL = "/projects/{slug}/channels"
_CHANNEL = f"{_ALL}/{{channel_id}}"
PAGES = (
    Page(path=_ALL, handler=show_channels),
    Page(path=_ALL, handler=add_channel, method="POST"),
    Page(path=_CHANNEL, handler=show_channel),
    Page(path=f"{_CHANNEL}/test", handler=send_test, method="POST"),
    Page(path=f"{_CHANNEL}/enable", handler=enable, method="POST"),
    Page(path=f"{_CHANNEL}/disable", handler=disable, method="POST"),
    Page(path=f"{_CHANNEL}/confirm-again", handler=ask_again, method="POST"),
    Page(path=f"{_CHANNEL}/replay", handler=replay_all, method="POST"),
    Page(path=f"{_CHANNEL}/deliveries/{{delivery_id}}/replay", handler=replay_one, method="POST"),
    Page(path=f"{_CHANNEL}/remove", handler=remove, method="POST"),
)
