"""The notifier: who is told of what, and exactly once whatever dies in between."""

from typing import get_args

import msgspec
import pytest
import trio

from engine.core.news import notice_of
from engine.core.notices import EventKind
from engine.core.ports import StoreUnavailableError
from storage.memory_outbox import MemoryOutbox
from tests.worker.fakes import PROJECT, T0, Failing, Killed, Memory, make_channel, make_event
from worker.notifier import TOLD_KINDS, Notifier, decide

OTHER = "01900000-0000-7000-8000-00000000bbbb"
HOOK, MAIL = make_channel(1), make_channel(2, kind="mail")
STRANGE = make_channel(3, project_id=OTHER)


@pytest.mark.parametrize(
    ("kind", "project_id", "told"),
    [
        ("node.down", PROJECT, [HOOK, MAIL]),
        ("node.up", PROJECT, [HOOK, MAIL]),
        ("workload.down", PROJECT, [HOOK, MAIL]),
        ("workload.up", PROJECT, [HOOK, MAIL]),
        ("node.stopped", PROJECT, []),  # stopped in order: no alert
        ("clock.stepped", None, []),  # of the installation, not of a project
        ("node.down", None, []),
        ("node.down", OTHER, [STRANGE]),
    ],
)
def test_an_event_is_told_once_to_each_channel_of_its_project(kind, project_id, told):
    event = make_event(kind=kind, project_id=project_id)
    assert decide(event, [HOOK, MAIL, STRANGE]) == [(event, channel) for channel in told]


def test_a_silent_node_is_one_notice_however_many_workloads_it_has():
    event = make_event(workloads=tuple(f"w{number}" for number in range(64)))
    assert len(decide(event, [HOOK])) == 1


def make_notifier(memory, **more):
    options = {"outbox": memory.outbox, "history": memory.history, "live": memory.live}
    options |= {"now_ms": lambda: 1, "batch_max": 2, "poll_s": 5.0}
    return Notifier(**options | more)


async def test_a_hint_wakes_it_before_the_poll(autojump_clock):
    memory, decided, event = Memory(HOOK), trio.Event(), make_event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_notifier(memory, decided=decided.set).run)
        await trio.sleep(1)
        await memory.happen(event)
        await memory.live.announce_events([event])
        with trio.fail_after(0.1):
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
        await memory.happen(*[make_event(number) for number in range(5)])
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    assert len(memory.rows) == 5
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
        await memory.happen(make_event(1))
        ended = await nursery.start(run_until_ended, first, outboxes[0])
        await trio.sleep(10)
        nursery.start_soon(second.run)
        await trio.sleep(10)
        assert (first.statistics().active, second.statistics().active) == (1, 0)
        assert (first.statistics().events_total, second.statistics().events_total) == (1, 0)
        ended.cancel()
        await memory.happen(make_event(2))
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
            while memory.world.notifier_cursor < count:  # noqa: ASYNC110 - a store announces nothing
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [Killed(), StoreUnavailableError("gone")], ids=["killed", "store gone"])
@pytest.mark.parametrize("at", range(1, 14))
async def test_killed_or_cut_off_at_any_step_each_notice_is_written_exactly_once(
    autojump_clock, at, error, after
):
    memory, count = Memory(HOOK, MAIL), [0]
    events = [make_event(number) for number in range(5)]
    await memory.happen(*events)
    outbox, history = (
        Failing(store, at=at, after=after, error=error, count=count)
        for store in (memory.outbox, memory.history)
    )
    try:
        await run_until_caught_up(make_notifier(memory, outbox=outbox, history=history), memory, 5)
    except BaseExceptionGroup as group:
        assert group.subgroup(Killed) is not None  # noqa: PT017 - nothing else may come out
        await memory.outbox.close()  # the dead process's connection, and with it its lock
        memory.outbox = MemoryOutbox(memory.world)
        await run_until_caught_up(make_notifier(memory), memory, 5)
    assert count[0] >= at, "the failpoint was never reached"
    written = sorted((row.notice.since_ms, row.channel_id) for row in memory.rows)
    assert written == sorted(
        (event.since_ms, channel.channel_id) for event in events for channel in (HOOK, MAIL)
    )
    assert memory.world.notifier_cursor == 5


@pytest.mark.parametrize("moment", range(1, 5))
async def test_a_notifier_that_lost_its_lock_unawares_neither_doubles_nor_loses_a_notice(
    autojump_clock, moment
):
    """Stopped before its n-th call while another takes over, it then goes on as if nothing had been."""
    memory, count = Memory(HOOK), [0]
    await memory.happen(*[make_event(number) for number in range(5)])
    slow = MemoryOutbox(memory.world)

    async def freeze():
        await slow.close()
        await trio.sleep(30)

    outbox, history = (
        Failing(store, at=moment, after=False, pause=freeze, count=count) for store in (slow, memory.history)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_notifier(memory, outbox=outbox, history=history).run)
        await trio.sleep(1)
        nursery.start_soon(make_notifier(memory).run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert sorted(row.notice.since_ms for row in memory.rows) == [T0 + number for number in range(5)]
    assert memory.world.notifier_cursor == 5


def test_a_channel_that_names_kinds_is_told_those_only():
    some = msgspec.structs.replace(HOOK, event_kinds=("node.up", "workload.up"))
    told = [decide(make_event(kind=kind), [some, MAIL]) for kind in ("node.up", "node.down")]
    assert [[channel for _, channel in notices] for notices in told] == [[some, MAIL], [MAIL]]


def test_a_persons_channel_is_not_told_by_project():
    mine = msgspec.structs.replace(HOOK, project_id=None)
    assert decide(make_event(), [mine]) == []


def test_a_channel_may_name_each_kind_that_is_told_and_no_other():
    assert set(get_args(EventKind)) == TOLD_KINDS


async def test_a_bug_escapes_to_whoever_keeps_the_task(autojump_clock):
    memory = Memory()
    broken = Failing(memory.history, at=1, after=False, error=RuntimeError("bug"), count=[0])
    with pytest.raises(RuntimeError, match="bug"):
        await make_notifier(memory, history=broken).run()
