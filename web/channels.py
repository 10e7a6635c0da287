"""Channels: where notices of a project, or of a person, go. Sending is the worker's.

A webhook's secret is shown once, when the channel is made; whether its address may be reached at all is
judged at each sending (worker/addresses.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import trio
from quart import Response

from engine.core.apprise_url import fault_of_service, schema_of, shown
from engine.core.mail_address import parse_mail_address
from engine.core.notices import CHANNELS_MAX, ChannelRecord, TakenKind, TooManyChannelsError
from engine.core.people import Principal
from storage.apprise_library import service_of
from storage.tokens import new_webhook_secret
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.consent_letter import question_of
from web.ids import canonical_uuid
from web.me import myself
from web.problems import Fault, RefusedError, not_found
from web.routing import Answer, Route, read_body, reply
from web.times import format_rfc3339

TARGET_CHARS_MAX = 2_048


class ChannelAnswer(msgspec.Struct, frozen=True):
    """A channel, without its secret; of a service's URL only the service is told. No `event_kinds`: all that
    are told at all. `disabled_at`: nothing goes there since then, and `disabled_because` says why (its
    receiver answered 410, its recipient unsubscribed); `announcements` false: none of those either.
    `state` unconfirmed: nothing is told there until whoever reads that address opens the link in the letter
    that they were sent and confirms; what happens meanwhile is not told later."""

    channel_id: str
    kind: str
    target: str
    name: str
    event_kinds: list[str]
    created_at: str
    state: Literal["on", "unconfirmed", "disabled"]
    disabled_at: str | None
    disabled_because: str
    announcements: bool


class ChannelsAnswer(msgspec.Struct, frozen=True):
    """All channels, by id. There are at most 100, so `next_cursor` is always null."""

    items: list[ChannelAnswer]
    next_cursor: str | None


class NewChannel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`target`: an http or https URL for a webhook, an address for mail, the URL of a chat or SMS service as
    apprise writes it (``discord://webhook_id/token``)."""

    kind: Literal["webhook", "mail", "apprise"]
    target: Annotated[str, msgspec.Meta(min_length=1, max_length=TARGET_CHARS_MAX)]
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    event_kinds: Annotated[list[TakenKind], msgspec.Meta(max_length=64)] = []


class MadeChannel(msgspec.Struct, frozen=True):
    """The new channel. `secret`: what its webhooks are signed with (Standard Webhooks), told here only; null
    for others."""

    channel: ChannelAnswer
    secret: str | None


def channel_answer(channel: ChannelRecord) -> ChannelAnswer:
    return ChannelAnswer(
        channel_id=channel.channel_id,
        kind=channel.kind,
        target=shown(channel.target) if channel.kind == "apprise" else channel.target,
        name=channel.name,
        event_kinds=list(channel.event_kinds),
        created_at=format_rfc3339(channel.created_ms),
        state=_state(channel),
        disabled_at=None if channel.disabled_ms is None else format_rfc3339(channel.disabled_ms),
        disabled_because=channel.disabled_note,
        announcements=channel.no_announcements_ms is None,
    )


def _state(channel: ChannelRecord) -> Literal["on", "unconfirmed", "disabled"]:
    if channel.unconfirmed_ms is not None:
        return "unconfirmed"
    return "on" if channel.disabled_ms is None else "disabled"


async def list_channels(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    return await _list(backend, project_id=project.project_id)


async def create_channel(backend: Backend, caller: Principal, *, slug: str) -> Response:
    project = await sight.project(backend, caller, slug)
    return await _create(backend, caller, slug, project_id=project.project_id)


async def remove_channel(backend: Backend, caller: Principal, *, slug: str, channel_id: str) -> Response:
    project = await sight.project(backend, caller, slug)
    return await _remove(backend, caller, channel_id, project_id=project.project_id)


async def list_my_channels(backend: Backend, caller: Principal) -> Response:
    return await _list(backend, user_id=(await myself(backend, caller)).user_id)


async def create_my_channel(backend: Backend, caller: Principal) -> Response:
    return await _create(backend, caller, None, user_id=(await myself(backend, caller)).user_id)


async def remove_my_channel(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    account = await myself(backend, caller)
    return await _remove(backend, caller, channel_id, user_id=account.user_id)


async def _list(backend: Backend, **owner: str) -> Response:
    found = await backend.stores.notices.channels(**owner)
    return reply(ChannelsAnswer(items=[channel_answer(channel) for channel in found], next_cursor=None))


async def _create(backend: Backend, caller: Principal, slug: str | None, **owner: Any) -> Response:
    asked, _ = await read_body(NewChannel)
    await _check_target(backend, asked)
    try:
        made = await backend.stores.notices.create_channel(
            **owner,
            kind=asked.kind,
            target=asked.target,
            secret=new_webhook_secret() if asked.kind == "webhook" else "",
            name=asked.name,
            event_kinds=tuple(dict.fromkeys(asked.event_kinds)),
            question=None if caller.scope == "admin" else question_of(backend, caller, slug),
            act=act_of(backend, caller),
        )
    except TooManyChannelsError as error:
        raise RefusedError(409, "too_many", str(error)) from error
    return reply(MadeChannel(channel=channel_answer(made), secret=made.secret or None), 201)


async def _check_target(backend: Backend, asked: NewChannel) -> None:
    match asked.kind:
        case "webhook":
            fault = _fault_of_url(asked.target)
        case "mail":
            fault = _fault_of_address(asked.target)
        case "apprise":
            fault = await _fault_of_service(backend, asked.target)
    if fault is not None:
        raise RefusedError(422, "invalid", fault, errors=[Fault(fault, "/target")])


def _fault_of_url(target: str) -> str | None:
    try:
        parts = urlsplit(target)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well or any(ord(character) <= 32 for character in target):
        return "a webhook needs an http or https URL"
    return "a webhook's URL may not have a user name in it" if "@" in parts.netloc else None


async def _fault_of_service(backend: Backend, target: str) -> str | None:
    fault = fault_of_service(target, backend.services)
    if fault is not None:
        return fault
    if await trio.to_thread.run_sync(service_of, target) is None:
        return f"{schema_of(target)}:// needs more or other parts than this URL has: see apprise's own list"
    return None


def _fault_of_address(target: str) -> str | None:
    try:
        parse_mail_address(target)
    except ValueError as error:
        return str(error)
    return None


async def _remove(backend: Backend, caller: Principal, channel_id: str, **owner: Any) -> Response:
    key = canonical_uuid(channel_id)
    act = act_of(backend, caller)
    if key is None or not await backend.stores.notices.remove_channel(key, **owner, act=act):
        raise not_found("channel")
    return Response(b"", 204)


def _routes(path: str, *, what: str, of: tuple[Any, Any, Any], tag: str, missing: int) -> tuple[Route, ...]:
    """The three routes of an owner's channels. `missing`: what is answered when there is no such owner."""
    listing, creating, removing = of
    return (
        Route(
            method="GET",
            path=path,
            handler=listing,
            summary=f"Where notices of {what} go",
            tag=tag,
            answers={200: Answer(description="The channels", type=ChannelsAnswer)},
            refusals=(missing,),
        ),
        Route(
            method="POST",
            path=path,
            handler=creating,
            summary=f"Have notices of {what} sent to a URL, an address or a service; at most {CHANNELS_MAX}",
            tag=tag,
            body=NewChannel,
            creates=True,
            answers={201: Answer(description="The channel and its secret", type=MadeChannel)},
            refusals=tuple({400, 409, 422, missing}),
        ),
        Route(
            method="DELETE",
            path=f"{path}/{{channel_id}}",
            handler=removing,
            summary="Remove a channel; what was still to be told there is dropped",
            tag=tag,
            answers={204: Answer(description="It is gone")},
            refusals=tuple({404, missing}),
        ),
    )


ROUTES = (
    *_routes(
        "/v1/projects/{slug}/channels",
        what="a project",
        of=(list_channels, create_channel, remove_channel),
        tag="channels",
        missing=404,
    ),
    *_routes(
        "/v1/me/channels",
        what="one's own",
        of=(list_my_channels, create_my_channel, remove_my_channel),
        tag="me",
        missing=409,
    ),
)
