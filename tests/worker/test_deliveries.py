"""Deliveries: claimed once while both workers live, sent before they are marked, never lost, never a loop."""

import pytest
import trio

from engine.core.news import notice_of
from engine.core.ports import StoreUnavailableError
from tests.worker.fakes import (
    T0,
    Failing,
    Killed,
    Memory,
    make_channel,
    make_event,
    wall_ms,
)
from worker.deliveries import Deliveries
from worker.outcome import Outcome, Result

HOOK = make_channel(1)
ACCEPTED = Outcome(Result.ACCEPTED, "HTTP 200")
FAILED = Outcome(Result.FAILED, "HTTP 500")
TIMEOUT_S = 20.0
MARGIN_S = 40.0


class Receiver:
    """A sender that takes `seconds` and answers by script, the last answer for ever."""

    def __init__(self, *script: Outcome | Exception, seconds: float = 0.0) -> None:
        self.script = list(script) or [ACCEPTED]
        self.seconds = seconds
        self.heard: list[str] = []
        self.times: list[float] = []
        self.at_once = self.at_once_max = 0

    async def __call__(self, delivery, *, now_ms, timeout_s):
        self.heard.append(delivery.notice.notice_id)
        self.times.append(trio.current_time())
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


async def memory_with(count: int = 1, *channels) -> Memory:
    """An outbox with `count` notices to each channel."""
    channels = channels or (HOOK,)
    memory = Memory(*channels)
    notices = [
        (notice_of(make_event(number)), channel.channel_id) for number in range(count) for channel in channels
    ]
    await memory.outbox.put(notices, now_ms=T0)
    return memory


def make_deliveries(memory, receiver, **more):
    options = {
        "sending": memory.sending,
        "kind": "webhook",
        "now_ms": wall_ms,
        "concurrency_max": 4,
        "endpoint_concurrency_max": 100,
        "lease_margin_s": MARGIN_S,
        "timeout_s": TIMEOUT_S,
        "attempts_max": 10,
        "poll_s": 0.25,
        "crashed": lambda error, delivery: None,
        "draw": lambda: 0.0,
    }
    return Deliveries(send=receiver, **options | more)


async def test_what_is_due_is_sent_and_then_marked_sent_with_a_note(autojump_clock):
    memory, receiver = await memory_with(3), Receiver(seconds=1)
    deliveries = make_deliveries(memory, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(0.5)
        assert memory.states == ["due"] * 3, "marked before the receiver had answered"
        await trio.sleep(1)
        assert memory.states == ["sent"] * 3
        deliveries.stop()
    assert len(receiver.heard) == len(set(receiver.heard)) == 3
    assert {row.note for row in memory.rows} == {"HTTP 200"}
    assert deliveries.statistics().sent_total == 3


async def test_never_more_at_once_than_allowed_and_nothing_is_claimed_that_cannot_start(autojump_clock):
    memory, receiver = await memory_with(50), Receiver(seconds=3)
    deliveries = make_deliveries(memory, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(2)
        assert sum(row.attempts for row in memory.rows) == 4
        await trio.sleep(60)
        deliveries.stop()
    assert receiver.at_once_max == 4
    assert memory.states == ["sent"] * 50
    assert max(receiver.times) - min(receiver.times) < 40  # a free slot is filled at once, not at the poll


async def test_two_live_workers_never_send_one_delivery_twice(autojump_clock):
    memory = await memory_with(60)
    receiver = Receiver(seconds=TIMEOUT_S)  # as slow as a send may be
    both = [make_deliveries(memory, receiver) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for deliveries in both:
            nursery.start_soon(deliveries.run)
        await trio.sleep(60 / 8 * TIMEOUT_S + 60)
        for deliveries in both:
            deliveries.stop()
    assert memory.states == ["sent"] * 60
    assert sorted(receiver.heard) == sorted(row.notice.notice_id for row in memory.rows)


async def test_what_a_killed_worker_had_in_hand_is_sent_again_after_its_lease(autojump_clock):
    memory, receiver = await memory_with(1), Receiver(seconds=5)
    with trio.move_on_after(2):  # killed while it waits for the answer
        await make_deliveries(memory, receiver).run()
    next_worker = make_deliveries(memory, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(next_worker.run)
        await trio.sleep(TIMEOUT_S + MARGIN_S - 5)
        assert len(receiver.heard) == 1, "sent again while the first worker could still have been sending"
        await trio.sleep(20)
        next_worker.stop()
    assert len(receiver.heard) == 2
    assert memory.states == ["sent"]


async def test_a_failing_receiver_is_tried_on_the_ladder_and_then_given_up(autojump_clock):
    memory, receiver = await memory_with(1), Receiver(FAILED)
    deliveries = make_deliveries(memory, receiver, attempts_max=4, poll_s=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(4 * 3600)
        deliveries.stop()
    waits = [int(b - a) for a, b in zip(receiver.times, receiver.times[1:], strict=False)]
    assert waits == [5, 300, 1800]
    assert memory.states == ["dead"]
    assert [row.note for row in memory.rows] == ["HTTP 500"]
    assert deliveries.statistics().dead_total == 1


async def test_410_stops_the_channel_and_all_that_waits_for_it(autojump_clock):
    other = make_channel(2)
    memory = await memory_with(20, HOOK, other)

    async def receiver(delivery, *, now_ms, timeout_s):
        if delivery.channel == HOOK:
            return Outcome(Result.GONE, "HTTP 410")
        return ACCEPTED

    deliveries = make_deliveries(memory, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(30)
        deliveries.stop()
    assert await memory.outbox.channels(HOOK.project_id) == [other]
    assert {(row.channel_id, row.state) for row in memory.rows} == {
        (HOOK.channel_id, "dead"),
        (other.channel_id, "sent"),
    }


async def test_a_sender_with_a_bug_is_reported_and_its_delivery_set_aside(autojump_clock):
    memory = await memory_with(2)
    crashes = []
    receiver = Receiver(RuntimeError("bug"), ACCEPTED)
    deliveries = make_deliveries(memory, receiver, crashed=lambda error, _: crashes.append(str(error)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(1)
        assert sorted(memory.states) == ["due", "sent"]
        assert "internal error: RuntimeError" in {row.note for row in memory.rows}
        await trio.sleep(6)
        deliveries.stop()
    assert crashes == ["bug"]
    assert memory.states == ["sent", "sent"]


async def test_a_delivery_that_kills_its_workers_is_not_tried_for_ever(autojump_clock):
    memory, tries = await memory_with(1), []

    async def receiver(delivery, *, now_ms, timeout_s):
        tries.append(delivery.attempts)
        raise Killed

    for _ in range(3):
        with pytest.raises(BaseExceptionGroup):
            await make_deliveries(memory, receiver, attempts_max=3).run()
        await trio.sleep(3600)
    last = make_deliveries(memory, receiver, attempts_max=3)
    with trio.move_on_after(5):
        await last.run()
    assert tries == [1, 2, 3]
    assert memory.states == ["dead"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 4))
async def test_killed_at_any_step_nothing_is_lost_and_only_the_unmarked_is_sent_again(
    autojump_clock, at, after
):
    memory, receiver = await memory_with(2), Receiver()
    count = [0]
    failing = Failing(memory.sending, at=at, after=after, error=Killed(), count=count)
    try:
        with trio.move_on_after(5):
            await make_deliveries(memory, receiver, sending=failing).run()
    except BaseExceptionGroup as group:
        assert group.subgroup(Killed) is not None  # noqa: PT017 - nothing else may come out
    assert count[0] >= at, "the failpoint was never reached"
    marked = memory.states.count("sent")
    heard_before = len(receiver.heard)
    with trio.move_on_after(120):
        await make_deliveries(memory, receiver).run()
    assert memory.states == ["sent", "sent"]
    assert len(receiver.heard) == heard_before + (2 - marked)


async def test_postgres_away_after_the_send_the_result_is_still_written_and_not_sent_twice(autojump_clock):
    memory, receiver = await memory_with(1), Receiver(seconds=5)
    deliveries = make_deliveries(memory, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(1)
        memory.world.postgres_away = True
        await trio.sleep(30)
        assert deliveries.statistics().store_away == 1
        memory.world.postgres_away = False
        await trio.sleep(60)
        assert deliveries.statistics().store_away == 0
        deliveries.stop()
    assert len(receiver.heard) == 1
    assert memory.states == ["sent"]


async def test_a_failure_that_could_not_be_written_within_the_lease_is_left_to_the_lease(autojump_clock):
    memory, slow, quick = await memory_with(1), Receiver(FAILED, seconds=1), Receiver(seconds=TIMEOUT_S)
    deliveries, other = make_deliveries(memory, slow), make_deliveries(memory, quick)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(0.5)
        deliveries.stop()  # it only has its result to write now
        memory.world.postgres_away = True
        await trio.sleep(TIMEOUT_S + MARGIN_S)
        nursery.start_soon(other.run)
        memory.world.postgres_away = False
        await trio.sleep(3 * TIMEOUT_S)
        other.stop()
    assert len(slow.heard) == len(quick.heard) == 1
    assert memory.states == ["sent"]


async def test_a_claim_that_fails_is_made_again(autojump_clock):
    memory, receiver = await memory_with(1), Receiver()
    failing = Failing(memory.sending, at=1, after=False, error=StoreUnavailableError("gone"), count=[0])
    with trio.move_on_after(5):
        await make_deliveries(memory, receiver, sending=failing).run()
    assert memory.states == ["sent"]


async def test_only_channels_of_its_own_kind_are_claimed(autojump_clock):
    memory, receiver = await memory_with(1, HOOK, make_channel(2, kind="mail")), Receiver()
    with trio.move_on_after(5):
        await make_deliveries(memory, receiver).run()
    assert {kind: row.state for kind, row in memory.by_kind().items()} == {"webhook": "sent", "mail": "due"}


async def test_woken_it_does_not_wait_for_its_poll(autojump_clock):
    memory, receiver = Memory(HOOK), Receiver()
    deliveries = make_deliveries(memory, receiver, poll_s=60.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(1)
        await memory.outbox.put([(notice_of(make_event()), HOOK.channel_id)], now_ms=T0)
        deliveries.wake()
        await trio.sleep(0.1)
        assert memory.states == ["sent"]
        deliveries.stop()


async def test_stopped_it_finishes_what_it_has_and_claims_no_more(autojump_clock):
    memory, receiver = await memory_with(10), Receiver(seconds=5)
    deliveries = make_deliveries(memory, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(1)
        deliveries.stop()
    assert sorted(memory.states) == ["due"] * 6 + ["sent"] * 4
