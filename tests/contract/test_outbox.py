"""Notices become deliveries once, and each delivery has one owner at a time, on both stores."""

from __future__ import annotations

import pytest

from engine.core.news import notice_of
from storage.ids import new_id
from tests.contract.given import NOW, batch, given_project, make_event


@pytest.fixture
async def channel(stores):
    project = await given_project(stores)
    return await stores.outbox.add_channel(
        project, kind="webhook", target="https://example.org/", secret="s", now_ms=NOW
    )


async def decided(stores, channel, count: int = 1, *, cursor: int = 1):
    events = [make_event(number, project_id=channel.project_id) for number in range(count)]
    await stores.history.flush(batch(events=tuple(events)))
    await stores.outbox.decide(
        cursor=cursor, notices=[(notice_of(event), channel) for event in events], now_ms=NOW
    )
    return events


async def claim(stores, *, limit=10, now_ms=NOW, lease_ms=1_000, kind="webhook"):
    return await stores.outbox.claim(kind=kind, limit=limit, now_ms=now_ms, lease_ms=lease_ms)


async def test_channels_are_of_their_project(stores, channel):
    assert await stores.outbox.channels(channel.project_id) == [channel]
    assert await stores.outbox.channels(new_id()) == []
    assert await stores.outbox.channels("no-id") == []


async def test_a_notice_becomes_one_delivery_that_is_due_at_once(stores, channel):
    (event,) = await decided(stores, channel)
    (delivery,) = await claim(stores)
    assert (delivery.channel, delivery.notice, delivery.attempts) == (channel, notice_of(event), 1)
    assert delivery.due_ms == NOW + 1_000


async def test_a_notice_decided_again_is_no_second_delivery(stores, channel):
    events = await decided(stores, channel)
    await stores.outbox.decide(cursor=1, notices=[(notice_of(events[0]), channel)] * 2, now_ms=NOW)
    assert len(await claim(stores)) == 1


async def test_the_cursor_never_moves_back(stores, channel):
    assert await stores.outbox.notifier_cursor() == 0
    await stores.outbox.decide(cursor=5, notices=[], now_ms=NOW)
    await stores.outbox.decide(cursor=3, notices=[], now_ms=NOW)
    assert await stores.outbox.notifier_cursor() == 5


async def test_what_is_claimed_is_nobody_elses_until_the_lease_ends(stores, channel):
    await decided(stores, channel, 3)
    first = await claim(stores, limit=2)
    second = await claim(stores, limit=2)
    assert (len(first), len(second)) == (2, 1)
    assert await claim(stores, now_ms=NOW + 999) == []
    again = await claim(stores, now_ms=NOW + 1_000)
    assert {one.delivery_id for one in again} == {one.delivery_id for one in first + second}
    assert {one.attempts for one in again} == {2}


async def test_the_oldest_due_is_claimed_first(stores, channel):
    await decided(stores, channel, 3)
    one, two, three = await claim(stores)
    for delivery, retry_at_ms in ((one, NOW + 30), (two, NOW + 10), (three, NOW + 20)):
        await stores.outbox.failed(delivery.delivery_id, now_ms=NOW, note="", retry_at_ms=retry_at_ms)
    due = await claim(stores, now_ms=NOW + 25)
    assert [delivery.delivery_id for delivery in due] == [two.delivery_id, three.delivery_id]


async def test_what_was_sent_or_given_up_is_settled_for_good(stores, channel):
    await decided(stores, channel, 2)
    one, two = await claim(stores)
    await stores.outbox.sent(one.delivery_id, now_ms=NOW, note="200")
    await stores.outbox.failed(two.delivery_id, now_ms=NOW, note="gave up", retry_at_ms=None)
    for delivery in (one, two):  # a late word of a worker whose lease had ended
        await stores.outbox.failed(delivery.delivery_id, now_ms=NOW, note="late", retry_at_ms=NOW)
    assert await claim(stores, now_ms=NOW + 10_000) == []


async def test_each_kind_of_channel_is_claimed_for_itself(stores, channel):
    mail = await stores.outbox.add_channel(
        channel.project_id, kind="mail", target="a@example.org", secret="", now_ms=NOW
    )
    (event,) = await decided(stores, channel)
    await stores.outbox.decide(cursor=1, notices=[(notice_of(event), mail)], now_ms=NOW)
    assert [one.channel for one in await claim(stores, kind="mail")] == [mail]
    assert [one.channel for one in await claim(stores)] == [channel]


async def test_a_disabled_channel_gets_no_more_notices_and_its_due_ones_die(stores, channel):
    events = await decided(stores, channel, 2)
    sent, _ = await claim(stores)
    await stores.outbox.sent(sent.delivery_id, now_ms=NOW, note="200")
    assert await stores.outbox.disable_channel(channel.channel_id, now_ms=NOW, note="410") == 1
    assert await stores.outbox.disable_channel(channel.channel_id, now_ms=NOW, note="410") == 0
    assert await stores.outbox.channels(channel.project_id) == []
    late = make_event(99, project_id=channel.project_id)
    await stores.history.flush(batch(events=(late,)))
    await stores.outbox.decide(cursor=2, notices=[(notice_of(late), channel)], now_ms=NOW)
    assert await claim(stores, now_ms=NOW + 10_000) == []
    assert len(events) == 2


async def test_the_notifier_keeps_its_lock(stores):
    assert await stores.outbox.take_notifier_lock()
    assert await stores.outbox.take_notifier_lock()
