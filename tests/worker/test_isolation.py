"""One receiver's trouble is not another's: servers that hang, fail, redirect or are gone, and a good one."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from engine.core.news import notice_of
from tests.worker.fakes import T0, Memory, make_channel, make_event, wall_ms
from tests.worker.receivers import OK, HttpReceiver, serving
from tests.worker.test_deliveries import FAILED, HOOK, Receiver, make_deliveries, memory_with
from tests.worker.test_webhooks import answer
from worker.circuits import FAILURES_MAX
from worker.outcome import Outcome, Result
from worker.webhooks import WebhookSender

ERROR = Outcome(Result.FAILED, "HTTP 503", endpoint_failed=True)
HANGS = None


def real_ms() -> int:
    return T0 + 200_000 + int(trio.current_time() * 1000) % 10_000_000


async def test_a_receiver_that_hangs_delays_no_other_by_more_than_a_moment():
    slow, quick = HttpReceiver(HANGS), HttpReceiver(OK)
    async with AsyncExitStack() as stack:
        for receiver in (slow, quick):
            await stack.enter_async_context(serving(receiver))
        channels = [
            make_channel(number, target=f"http://127.0.0.1:{receiver.port}/{number}")
            for number, receiver in enumerate((slow, quick))
        ]
        memory = Memory(*channels)
        # The one that hangs has been waiting for longer, and has far more than there are slots.
        for number in range(200):
            told = [(notice_of(make_event(number)), channels[0].channel_id)]
            await memory.outbox.put(told, now_ms=T0 + number)
        for number in range(50):
            told = [(notice_of(make_event(1_000 + number)), channels[1].channel_id)]
            await memory.outbox.put(told, now_ms=T0 + 1_000 + number)
        sender = WebhookSender(allow_private=True)
        deliveries = make_deliveries(
            memory, sender, now_ms=real_ms, concurrency_max=8, endpoint_concurrency_max=4, timeout_s=30.0
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliveries.run)
            with trio.fail_after(5):
                while len(quick.requests) < 50:  # noqa: ASYNC110 - a real server is waited for
                    await trio.sleep(0.01)
            assert len(slow.requests) <= 4, "more in flight than one endpoint may have"
            nursery.cancel_scope.cancel()
    assert [row.state for row in memory.rows if row.channel_id == channels[1].channel_id].count("sent") >= 46


async def test_four_kinds_of_bad_receivers_and_a_good_one_each_get_what_they_deserve():
    location = "location: http://127.0.0.1:1/\r\n"
    receivers = {
        "hangs": HttpReceiver(HANGS),
        "fails": HttpReceiver(answer("500 Oops")),
        "redirects": HttpReceiver(answer("302 Found", location)),
        "gone": HttpReceiver(answer("410 Gone")),
        "good": HttpReceiver(OK),
    }
    async with AsyncExitStack() as stack:
        channels = {}
        for number, (name, receiver) in enumerate(receivers.items()):
            await stack.enter_async_context(serving(receiver))
            channels[name] = make_channel(number, target=f"http://127.0.0.1:{receiver.port}/")
        memory = Memory(*channels.values())
        told = [
            (notice_of(make_event(number)), channel.channel_id)
            for number in range(10)
            for channel in channels.values()
        ]
        await memory.outbox.put(told, now_ms=T0)
        sender = WebhookSender(allow_private=True)
        deliveries = make_deliveries(
            memory, sender, now_ms=real_ms, concurrency_max=16, endpoint_concurrency_max=4, timeout_s=0.5
        )
        with trio.move_on_after(2.5):
            await deliveries.run()
    states = {
        name: [r.state for r in memory.rows if r.channel_id == c.channel_id] for name, c in channels.items()
    }
    assert states["good"] == ["sent"] * 10
    assert states["gone"] == ["dead"] * 10
    assert states["hangs"] == states["fails"] == states["redirects"] == ["due"] * 10
    assert len(receivers["gone"].requests) <= 4, "after the first 410 only those under way arrive"
    # A redirect says something of this URL only; what fails or hangs as a whole is left alone.
    assert len(receivers["redirects"].requests) == 10
    assert len(receivers["hangs"].requests) <= FAILURES_MAX + 4
    assert len(receivers["fails"].requests) <= FAILURES_MAX + 4
    assert deliveries.statistics().circuits_open == 2


async def test_a_circuit_that_opened_is_probed_by_one_and_all_goes_on_when_that_succeeds(autojump_clock):
    memory = await memory_with(40)
    receiver = Receiver(*[ERROR] * FAILURES_MAX, ERROR, Outcome(Result.ACCEPTED, "HTTP 200"), seconds=0.1)
    deliveries = make_deliveries(memory, receiver, concurrency_max=1, poll_s=0.25)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(4)
        assert len(receiver.heard) == FAILURES_MAX
        assert [row.attempts for row in memory.rows].count(0) == 40 - FAILURES_MAX, "those waited untouched"
        await trio.sleep(3)
        assert len(receiver.heard) == FAILURES_MAX + 1, "one probe, which failed"
        await trio.sleep(20)
        deliveries.stop()
    assert deliveries.statistics().probes_total == 2
    assert [row.state for row in memory.rows].count("sent") >= 40 - FAILURES_MAX - 1
    assert deliveries.statistics().circuits_open == 0


async def test_an_open_circuit_takes_no_slot_from_others(autojump_clock):
    other = make_channel(2, target="http://other.example/")
    memory = await memory_with(30, HOOK, other)
    good: list[float] = []

    async def send(delivery, *, now_ms, timeout_s):
        if delivery.channel == other:
            good.append(trio.current_time())
            return Outcome(Result.ACCEPTED, "HTTP 200")
        await trio.sleep(20)
        return Outcome(Result.FAILED, "no answer", endpoint_failed=True)

    deliveries = make_deliveries(memory, send, concurrency_max=4, endpoint_concurrency_max=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(120)
        deliveries.stop()
    assert len(good) == 30
    assert max(good) < 5


async def test_what_waits_for_room_at_its_receiver_goes_as_soon_as_there_is_some(autojump_clock):
    memory, receiver = await memory_with(40), Receiver(seconds=0.02)

    class SlowClaims:
        """A store that takes longer than a send."""

        def __getattr__(self, name):
            method = getattr(memory.sending, name)

            async def call(*args, **kwargs):
                result = await method(*args, **kwargs)
                await trio.sleep({"claim": 0.03, "settle": 0.1}.get(name, 0))
                return result

            return call

    deliveries = make_deliveries(
        memory, receiver, sending=SlowClaims(), concurrency_max=100, endpoint_concurrency_max=4, poll_s=60.0
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(5)
        assert memory.states == ["sent"] * 40, "somebody waited for the poll"
        deliveries.stop()


async def test_failures_of_single_messages_open_nothing(autojump_clock):
    memory, receiver = await memory_with(20), Receiver(FAILED)
    deliveries = make_deliveries(memory, receiver)
    with trio.move_on_after(3):
        await deliveries.run()
    assert len(receiver.heard) == 20
    assert deliveries.statistics().circuits_opened_total == 0


async def test_what_may_be_sent_later_only_is_tried_then_and_was_no_attempt(autojump_clock):
    memory = await memory_with(1)
    later = Outcome(Result.LATER, "waiting", not_before_ms=wall_ms() + 60_000)
    receiver = Receiver(later, Outcome(Result.ACCEPTED, "HTTP 200"))
    deliveries = make_deliveries(memory, receiver, attempts_max=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(59)
        assert (memory.rows[0].attempts, memory.rows[0].note) == (0, "waiting")
        await trio.sleep(3)
        deliveries.stop()
    assert memory.states == ["sent"]
    assert deliveries.statistics().later_total == 1
