"""The notifier's loop: whatever dies in between, each event is told exactly once.

Who is told of what is in test_decisions.py.
"""

from collections import Counter

import pytest
import trio

from engine.core.news import notice_of
from engine.core.newsroom import Policy, Waiting
from engine.core.ports import StoreUnavailableError
from storage.ids import new_id
from storage.memory_outbox import MemoryOutbox
from tests.worker.fakes import Failing, Killed, Memory, make_channel, make_event, wall_ms
from worker.notifier import Notifier

HOOK, MAIL = make_channel(1), make_channel(2, kind="mail")


def falls(count: int):
    """Of as many nodes."""
    return [make_event(number, node_id=new_id()) for number in range(count)]


def told(memory):
    """Of how many falls each channel was told, alone or in digests, in sum and one by one."""
    counts = Counter()
    for row in memory.rows:
        counts[row.channel_id] += row.notice.count
    believed = [(channel, item.told.event_id) for (_, channel), item in beliefs(memory) if item.told]
    return counts, sorted(believed)


def beliefs(memory):
    return memory.world.newsroom.items.items()


def each_once(events, *channels):
    believed = sorted((channel.channel_id, event.event_id) for event in events for channel in channels)
    return {channel.channel_id: len(events) for channel in channels}, believed


def make_notifier(memory, **more):
    options = {"outbox": memory.outbox, "newsroom": memory.newsroom, "live": memory.live}
    options |= {"now_ms": wall_ms, "batch_max": 2, "poll_s": 5.0, "policy": Policy(project_delay_ms=0)}
    return Notifier(**options | more)


async def test_a_hint_wakes_it_before_the_poll(autojump_clock):
    memory, decided, event = Memory(HOOK), trio.Event(), make_event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_notifier(memory, decided=decided.set).run)
        await trio.sleep(1)
        await memory.happen(event)
        await memory.live.announce_events([event])
        with trio.fail_after(0.3):
            await decided.wait()
        nursery.cancel_scope.cancel()
    assert [row.notice for row in memory.rows] == [notice_of(event)]


class NoHints:
    """A live view of which nothing is to be had."""

    async def wait_events(self, timeout_s):
        await trio.lowlevel.checkpoint()
        raise StoreUnavailableError("redis is away")


async def test_with_redis_away_events_are_found_by_polling(autojump_clock):
    memory = Memory(HOOK)
    notifier = make_notifier(memory, live=NoHints())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.sleep(7)
        events = falls(5)
        await memory.happen(*events)
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    assert told(memory) == each_once(events, HOOK)
    assert notifier.statistics().events_total == 5


async def test_postgres_away_is_waited_for_and_told_once(autojump_clock):
    memory = Memory(HOOK)
    notifier = make_notifier(memory)
    await memory.happen(make_event())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        memory.world.postgres_away = True
        await trio.sleep(60)
        assert not memory.rows
        assert notifier.statistics().store_away == 1
        memory.world.postgres_away = False
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert len(memory.rows) == 1
    assert notifier.statistics().outages_total == 1
    assert notifier.statistics().store_away == 0


async def test_of_two_processes_one_decides_and_the_other_follows_when_it_ends(autojump_clock):
    memory = Memory(HOOK)
    outboxes = [MemoryOutbox(memory.world) for _ in range(2)]
    first, second = (make_notifier(memory, outbox=outbox) for outbox in outboxes)
    async with trio.open_nursery() as nursery:
        await memory.happen(*falls(1))
        ended = await nursery.start(run_until_ended, first, outboxes[0])
        await trio.sleep(10)
        nursery.start_soon(second.run)
        await trio.sleep(10)
        assert (first.statistics().active, second.statistics().active) == (1, 0)
        assert (first.statistics().events_total, second.statistics().events_total) == (1, 0)
        ended.cancel()
        await memory.happen(*falls(1))
        await trio.sleep(10)
        assert (second.statistics().active, second.statistics().events_total) == (1, 1)
        nursery.cancel_scope.cancel()
    assert len(memory.rows) == 2


async def run_until_ended(notifier, outbox, task_status):
    """A process that can be ended: its connections close, and with them goes its lock."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await notifier.run()
    await outbox.close()


async def run_until_caught_up(notifier, memory, count):
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.run)
            while sum(told(memory)[0].values()) < count or memory.world.newsroom.telling:  # noqa: ASYNC110 - a store announces nothing
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [Killed(), StoreUnavailableError("gone")], ids=["killed", "store gone"])
@pytest.mark.parametrize("at", range(1, 8))
async def test_killed_or_cut_off_at_any_step_each_notice_is_written_exactly_once(
    autojump_clock, at, error, after
):
    memory, count = Memory(HOOK, MAIL), [0]
    events = falls(5)
    await memory.happen(*events)
    outbox, newsroom = (
        Failing(store, at=at, after=after, error=error, count=count)
        for store in (memory.outbox, memory.newsroom)
    )
    try:
        await run_until_caught_up(make_notifier(memory, outbox=outbox, newsroom=newsroom), memory, 10)
    except BaseExceptionGroup as group:
        assert group.subgroup(Killed) is not None  # noqa: PT017 - nothing else may come out
        await memory.outbox.close()  # the dead process's connection, and with it its lock
        memory.outbox = MemoryOutbox(memory.world)
        await run_until_caught_up(make_notifier(memory), memory, 10)
    assert count[0] >= at, "the failpoint was never reached"
    assert told(memory) == each_once(events, HOOK, MAIL)
    assert memory.world.notifier_cursor == 5


@pytest.mark.parametrize("moment", range(1, 5))
async def test_a_notifier_that_lost_its_lock_unawares_neither_doubles_nor_loses_a_notice(
    autojump_clock, moment
):
    """Stopped before its n-th call while another takes over, it then goes on as if nothing had been."""
    memory, count = Memory(HOOK), [0]
    events = falls(5)
    await memory.happen(*events)
    slow = MemoryOutbox(memory.world)

    async def freeze():
        await slow.close()
        await trio.sleep(30)

    outbox, newsroom = (
        Failing(store, at=moment, after=False, pause=freeze, count=count) for store in (slow, memory.newsroom)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_notifier(memory, outbox=outbox, newsroom=newsroom).run)
        await trio.sleep(1)
        nursery.start_soon(make_notifier(memory).run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert told(memory) == each_once(events, HOOK)
    assert memory.world.notifier_cursor == 5


async def test_what_is_held_is_told_when_it_is_due_though_nothing_happens(autojump_clock):
    memory, policy = Memory(HOOK), Policy(project_delay_ms=300_000)
    notifier = make_notifier(memory, policy=policy, poll_s=3_600.0)
    event = make_event(150_000)  # noticed 40 s after the clock's beginning
    await memory.happen(event)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.sleep(300)
        assert not memory.rows
        assert await memory.newsroom.waiting() == Waiting(held=1, flapping=0)
        await trio.sleep(50)
        nursery.cancel_scope.cancel()
    assert told(memory) == each_once([event], HOOK)


async def test_a_bug_escapes_to_whoever_keeps_the_task(autojump_clock):
    memory = Memory()
    broken = Failing(memory.newsroom, at=1, after=False, error=RuntimeError("bug"), count=[0])
    with pytest.raises(RuntimeError, match="bug"):
        await make_notifier(memory, newsroom=broken).run()
