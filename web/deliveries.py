"""What was told at a channel, and what to do about it: its history, a test, dead letters sent again.

The same routes for a project's channels and for one's own. Sending is the worker's.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from quart import Response

from engine.core.news import NoticeForm
from engine.core.notices import ChannelRecord
from engine.core.people import Principal
from engine.core.told import (
    ChannelOffError,
    DeliveryRecord,
    DeliveryState,
    TooManyTestsError,
    notice_of_test,
)
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.channels import ChannelAnswer, channel_answer
from web.consent_letter import question_of
from web.ids import canonical_uuid
from web.lists import choice_parameter
from web.me import myself
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import RefusedError, not_found
from web.routing import Answer, Parameter, Route, reply
from web.times import format_rfc3339

STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)


class DeliveryItem(msgspec.Struct, frozen=True):
    """One message to this channel. `state`: due (waiting, being sent, or to be tried again at `due_at`),
    sent, or dead (given up; it can be replayed). `note`: what came of the newest attempt. `notice_id` is what
    the receiver gets as well (webhook-id); `events`: how many are told in it."""

    delivery_id: str
    state: DeliveryState
    attempts: int
    replays: int
    note: str
    created_at: str
    due_at: str | None
    attempted_at: str | None
    settled_at: str | None
    notice_id: str
    form: NoticeForm
    kind: str
    title: str
    events: int


class DeliveriesAnswer(msgspec.Struct, frozen=True):
    """A page, the newest first."""

    items: list[DeliveryItem]
    next_cursor: str | None


class TestAnswer(msgspec.Struct, frozen=True):
    """A test is on its way. `look_at`: where to see what came of it."""

    delivery_id: str
    look_at: str


class ReplayAnswer(msgspec.Struct, frozen=True):
    """How many dead letters are due again; at most 10,000 at once."""

    replayed: int


async def list_deliveries(backend: Backend, caller: Principal, **of: str) -> Response:
    return await _list(backend, await projects_channel(backend, caller, **of))


async def list_my_deliveries(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    return await _list(backend, await my_channel(backend, caller, channel_id))


async def test_channel(backend: Backend, caller: Principal, **of: str) -> Response:
    return await _test(
        backend,
        caller,
        await projects_channel(backend, caller, **of),
        f"/v1/projects/{of['slug']}/channels/{of['channel_id']}",
    )


async def test_my_channel(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    channel = await my_channel(backend, caller, channel_id)
    return await _test(backend, caller, channel, f"/v1/me/channels/{channel.channel_id}")


async def replay_deliveries(backend: Backend, caller: Principal, **of: str) -> Response:
    return await _replay(backend, caller, await projects_channel(backend, caller, **of), None)


async def replay_my_deliveries(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    return await _replay(backend, caller, await my_channel(backend, caller, channel_id), None)


async def replay_delivery(backend: Backend, caller: Principal, *, delivery_id: str, **of: str) -> Response:
    return await _replay(backend, caller, await projects_channel(backend, caller, **of), delivery_id)


async def replay_my_delivery(
    backend: Backend, caller: Principal, *, channel_id: str, delivery_id: str
) -> Response:
    return await _replay(backend, caller, await my_channel(backend, caller, channel_id), delivery_id)


async def enable_channel(backend: Backend, caller: Principal, **of: str) -> Response:
    return await _enable(backend, caller, await projects_channel(backend, caller, **of), of["slug"])


async def enable_my_channel(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    return await _enable(backend, caller, await my_channel(backend, caller, channel_id), None)


async def disable_channel(backend: Backend, caller: Principal, **of: str) -> Response:
    return await _disable(backend, caller, await projects_channel(backend, caller, **of))


async def disable_my_channel(backend: Backend, caller: Principal, *, channel_id: str) -> Response:
    return await _disable(backend, caller, await my_channel(backend, caller, channel_id))


async def projects_channel(
    backend: Backend, caller: Principal, *, slug: str, channel_id: str
) -> ChannelRecord:
    """A channel of a project that the caller may see. RefusedError 404."""
    project = await sight.project(backend, caller, slug)
    return await _channel(backend, channel_id, project_id=project.project_id)


async def my_channel(backend: Backend, caller: Principal, channel_id: str) -> ChannelRecord:
    """A channel of the caller's own. RefusedError 404."""
    account = await myself(backend, caller)
    return await _channel(backend, channel_id, user_id=account.user_id)


async def _channel(backend: Backend, channel_id: str, **owner: str) -> ChannelRecord:
    key = canonical_uuid(channel_id)
    found = None if key is None else await backend.stores.told.channel(key, **owner)
    if found is None:
        raise not_found("channel")
    return found


async def _list(backend: Backend, channel: ChannelRecord) -> Response:
    state: Any = choice_parameter("state", STATES)
    limit = limit_parameter()
    found = await backend.stores.told.deliveries(
        channel.channel_id, state=state, before=id_cursor(), limit=limit + 1
    )
    page, next_cursor = cut(found, limit, lambda one: one.delivery_id)
    items = [_item(one) for one in page]
    return reply(DeliveriesAnswer(items, next_cursor), headers=link_headers(next_cursor))


async def _test(backend: Backend, caller: Principal, channel: ChannelRecord, path: str) -> Response:
    act = act_of(backend, caller)
    notice = notice_of_test(channel, act)
    try:
        delivery_id = await backend.stores.told.send_test(channel, notice, act=act)
    except ChannelOffError as error:
        raise _off(error) from error
    except TooManyTestsError as error:
        raise RefusedError(429, "too_many_tests", str(error)) from error
    return reply(TestAnswer(delivery_id, f"{path}/deliveries"), 202)


async def _replay(
    backend: Backend, caller: Principal, channel: ChannelRecord, delivery_id: str | None
) -> Response:
    key = None if delivery_id is None else canonical_uuid(delivery_id)
    if delivery_id is not None and key is None:
        raise not_found("dead letter")
    try:
        count = await backend.stores.told.replay(channel, key, act=act_of(backend, caller))
    except ChannelOffError as error:
        raise _off(error) from error
    if delivery_id is not None and not count:
        raise not_found("dead letter")
    return reply(ReplayAnswer(count))


async def _enable(backend: Backend, caller: Principal, channel: ChannelRecord, slug: str | None) -> Response:
    question = question_of(backend, caller, slug)
    enabled = await backend.stores.told.enable(channel, question=question, act=act_of(backend, caller))
    return reply(channel_answer(enabled))


async def _disable(backend: Backend, caller: Principal, channel: ChannelRecord) -> Response:
    return reply(channel_answer(await backend.stores.told.disable(channel, act=act_of(backend, caller))))


def _off(error: ChannelOffError) -> RefusedError:
    return RefusedError(409, "channel_disabled", str(error))


def _item(one: DeliveryRecord) -> DeliveryItem:
    notice = one.notice
    return DeliveryItem(
        delivery_id=one.delivery_id,
        state=one.state,
        attempts=one.attempts,
        replays=one.replays,
        note=one.note,
        created_at=format_rfc3339(one.created_ms),
        due_at=format_rfc3339(one.due_ms) if one.state == "due" else None,
        attempted_at=None if one.attempted_ms is None else format_rfc3339(one.attempted_ms),
        settled_at=None if one.settled_ms is None else format_rfc3339(one.settled_ms),
        notice_id=notice.notice_id,
        form=notice.form,
        kind=notice.kind,
        title=notice.title,
        events=max(notice.count, len(notice.events)),
    )


_STATE = Parameter(
    name="state", description="Those in this state", schema={"type": "string", "enum": list(STATES)}
)


def _replaying(path: str, handler: Any, summary: str, tag: str, refusals: tuple[int, ...]) -> Route:
    return Route(
        method="POST",
        path=path,
        handler=handler,
        summary=summary,
        tag=tag,
        answers={200: Answer(description="They are due again", type=ReplayAnswer)},
        refusals=tuple({409, *refusals}),
    )


def _routes(path: str, *, tag: str, missing: int, handlers: tuple[Any, ...]) -> tuple[Route, ...]:
    """The routes over an owner's channel. `missing`: what is answered when there is no such owner."""
    listing, testing, replaying, replaying_one, enabling, disabling = handlers
    refusals = tuple({404, missing})
    return (
        Route(
            method="GET",
            path=f"{path}/deliveries",
            handler=listing,
            summary="What was told there, and what came of it; ?state=dead: dead letters",
            tag=tag,
            parameters=(_STATE, *PARAMETERS),
            answers={200: Answer(description="A page of deliveries", type=DeliveriesAnswer)},
            refusals=tuple({400, *refusals}),
        ),
        Route(
            method="POST",
            path=f"{path}/test",
            handler=testing,
            summary="Send a test there, on the way that all notices go",
            tag=tag,
            creates=True,
            answers={202: Answer(description="It is on its way", type=TestAnswer)},
            refusals=tuple({400, 409, 422, 429, *refusals}),
        ),
        _replaying(f"{path}/replay", replaying, "Send all dead letters of the channel again", tag, refusals),
        _replaying(
            f"{path}/deliveries/{{delivery_id}}/replay",
            replaying_one,
            "Send a dead letter again",
            tag,
            refusals,
        ),
        Route(
            method="POST",
            path=f"{path}/enable",
            handler=enabling,
            summary="Have notices sent there again after its receiver wanted no more; a mail asks them",
            tag=tag,
            answers={200: Answer(description="The channel as it is now", type=ChannelAnswer)},
            refusals=refusals,
        ),
        Route(
            method="POST",
            path=f"{path}/disable",
            handler=disabling,
            summary="Have nothing sent there until it is enabled again; what was due is given up",
            tag=tag,
            answers={200: Answer(description="The channel as it is now", type=ChannelAnswer)},
            refusals=refusals,
        ),
    )


ROUTES = (
    *_routes(
        "/v1/projects/{slug}/channels/{channel_id}",
        tag="channels",
        missing=404,
        handlers=(
            list_deliveries,
            test_channel,
            replay_deliveries,
            replay_delivery,
            enable_channel,
            disable_channel,
        ),
    ),
    *_routes(
        "/v1/me/channels/{channel_id}",
        tag="me",
        missing=409,
        handlers=(
            list_my_deliveries,
            test_my_channel,
            replay_my_deliveries,
            replay_my_delivery,
            enable_my_channel,
            disable_my_channel,
        ),
    ),
)
