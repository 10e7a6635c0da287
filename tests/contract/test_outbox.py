"""Notices become deliveries once, and each delivery has one owner at a time, on both stores."""

from __future__ import annotations

import pytest

from engine.core.news import notice_of
from engine.core.sending import HOUR_MS, Settled
from storage.ids import new_id
from tests.contract.given import NOW, batch, given_project, make_event


@pytest.fixture
async def channel(stores):
    project = await given_project(stores)
    return await stores.outbox.add_channel(
        project, kind="webhook", target="https://example.org/", secret="s", now_ms=NOW
    )


async def decided(stores, channel, count: int = 1):
    events = [make_event(number, project_id=channel.project_id) for number in range(count)]
    await stores.history.flush(batch(events=tuple(events)))
    await put(stores, *((event, channel) for event in events))
    return events


async def put(stores, *told):
    """(event, channel) each; how many deliveries are new."""
    notices = [(notice_of(event), channel.channel_id) for event, channel in told]
    return await stores.outbox.put(notices, now_ms=NOW)


async def claim(stores, *, limit=10, now_ms=NOW, lease_ms=1_000, kind="webhook"):
    return await stores.sending.claim(kind=kind, limit=limit, now_ms=now_ms, lease_ms=lease_ms)


async def settle(stores, delivery, state, *, retry_at_ms=0, attempted=True):
    one = Settled(delivery.delivery_id, state, "note", retry_at_ms, attempted)
    await stores.sending.settle([one], now_ms=NOW)


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
    assert await put(stores, *[(events[0], channel)] * 2) == 0
    assert len(await claim(stores)) == 1


async def test_the_cursor_never_moves_back(stores):
    assert await stores.outbox.notifier_cursor() == 0
    await stores.outbox.pass_over(5)
    await stores.outbox.pass_over(3)
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
        await settle(stores, delivery, "due", retry_at_ms=retry_at_ms)
    due = await claim(stores, now_ms=NOW + 25)
    assert [delivery.delivery_id for delivery in due] == [two.delivery_id, three.delivery_id]


async def test_what_was_sent_or_given_up_is_settled_for_good(stores, channel):
    await decided(stores, channel, 2)
    one, two = await claim(stores)
    await settle(stores, one, "sent")
    await settle(stores, two, "dead")
    for delivery in (one, two):  # a late word of a worker whose lease had ended
        await settle(stores, delivery, "due", retry_at_ms=NOW)
    assert await claim(stores, now_ms=NOW + 10_000) == []


async def test_each_kind_of_channel_is_claimed_for_itself(stores, channel):
    mail = await stores.outbox.add_channel(
        channel.project_id, kind="mail", target="a@example.org", secret="", now_ms=NOW
    )
    (event,) = await decided(stores, channel)
    await put(stores, (event, mail))
    assert [one.channel for one in await claim(stores, kind="mail")] == [mail]
    assert [one.channel for one in await claim(stores)] == [channel]


async def test_a_disabled_channel_gets_no_more_notices_and_its_due_ones_die(stores, channel):
    events = await decided(stores, channel, 2)
    sent, _ = await claim(stores)
    await settle(stores, sent, "sent")
    assert await stores.sending.disable_channel(channel.channel_id, now_ms=NOW, note="410") == 1
    assert await stores.sending.disable_channel(channel.channel_id, now_ms=NOW, note="410") == 0
    assert await stores.outbox.channels(channel.project_id) == []
    late = make_event(99, project_id=channel.project_id)
    await stores.history.flush(batch(events=(late,)))
    await put(stores, (late, channel))
    assert await claim(stores, now_ms=NOW + 10_000) == []
    assert len(events) == 2


async def test_the_notifier_keeps_its_lock(stores):
    assert await stores.outbox.take_notifier_lock()
    assert await stores.outbox.take_notifier_lock()


async def test_what_was_no_attempt_counts_as_none(stores, channel):
    await decided(stores, channel)
    (delivery,) = await claim(stores)
    await settle(stores, delivery, "due", retry_at_ms=NOW + 5, attempted=False)
    (again,) = await claim(stores, now_ms=NOW + 5)
    assert (again.attempts, again.wanted_ms) == (1, NOW + 5)


async def other_channel(stores, channel, target):
    return await stores.outbox.add_channel(
        channel.project_id, kind="webhook", target=target, secret="s", now_ms=NOW
    )


async def claim_bounded(stores, **more):
    options = {"kind": "webhook", "limit": 10, "now_ms": NOW, "lease_ms": 1_000, "in_flight_max": 2}
    return await stores.sending.claim(**options | more)


async def test_an_endpoint_gets_only_so_many_and_does_not_hide_the_others(stores, channel):
    await decided(stores, channel, 8)
    other = await other_channel(stores, channel, "https://other.example/x")
    late = make_event(99, project_id=channel.project_id)
    await put(stores, (late, other))
    first = await claim_bounded(stores, limit=4)
    assert sorted(one.endpoint for one in first) == ["https://example.org"] * 2 + ["https://other.example"]
    assert await claim_bounded(stores, in_flight={"https://example.org": 2}) == []
    assert len(await claim_bounded(stores, in_flight={"https://example.org": 1})) == 1
    assert len(await claim_bounded(stores, in_flight_max=0)) == 5


async def test_endpoints_are_told_apart_by_origin_in_any_letters(stores, channel):
    await decided(stores, channel)
    for target in ("HTTPS://Example.org/other?x", "https://example.org:8443/", "http://example.org/"):
        made = await other_channel(stores, channel, target)
        event = make_event(7, project_id=channel.project_id)
        await put(stores, (event, made))
    found = await claim(stores)
    assert sorted(one.endpoint for one in found) == [
        "http://example.org",
        "https://example.org",
        "https://example.org",
        "https://example.org:8443",
    ]
    assert {one.circuit for one in found} == {f"{channel.project_id} {one.endpoint}" for one in found}


async def test_an_open_circuit_is_left_alone_held_and_probed_with_its_oldest(stores, channel):
    events = await decided(stores, channel, 3)
    (first,) = await claim(stores, limit=1)
    circuit = first.circuit
    assert await claim_bounded(stores, without=[circuit]) == []
    assert await stores.sending.hold(circuit, now_ms=NOW, until_ms=NOW + 500) == 2
    assert await claim(stores, now_ms=NOW + 499) == []
    probing = {"kind": "webhook", "now_ms": NOW + 500, "lease_ms": 1_000}
    probes = await stores.sending.probe(circuits=[circuit, "nobody's"], **probing)
    assert [one.notice for one in probes] == [notice_of(events[1])]
    assert [one.notice for one in await claim(stores, now_ms=NOW + 500)] == [notice_of(events[2])]
    assert await stores.sending.probe(circuits=[circuit], **probing) == []


async def test_an_address_gets_only_so_many_mails_in_any_hour(stores):
    async def take(at_ms, address="Ann@example.org", owner="p"):
        return await stores.sending.take_budget(address, owner=owner, per_hour_max=2, now_ms=at_ms)

    assert await take(NOW) == (True, NOW)
    assert await take(NOW, "ann@EXAMPLE.org") == (True, NOW + 1)
    assert await take(NOW + 5) == (False, NOW + HOUR_MS)
    assert await take(NOW, "bob@example.org") == (True, NOW)
    assert await take(NOW + 5, owner="another") == (True, NOW + 5)
    await stores.sending.give_back_budget("ann@example.org", owner="p", taken_ms=NOW + 1)
    assert await take(NOW + 7) == (True, NOW + 7)
    assert await take(NOW + HOUR_MS - 1) == (False, NOW + HOUR_MS)
    assert await take(NOW + HOUR_MS) == (True, NOW + HOUR_MS)
    assert await take(NOW + HOUR_MS) == (False, NOW + HOUR_MS + 7)
    assert await stores.sending.prune(now_ms=NOW + HOUR_MS + 5, limit=10) == 2
    assert await stores.sending.prune(now_ms=NOW + 2 * HOUR_MS, limit=10) == 1
