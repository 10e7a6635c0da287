"""The notifier: who is told of what, and exactly once whatever dies in between."""

import pytest
import trio

from engine.core.ports import StoreUnavailableError
from tests.worker.fakes import (
    PROJECT,
    Failing,
    FakeHistory,
    FakeLive,
    FakeOutbox,
    Killed,
    make_channel,
    make_event,
)
from worker.notifier import Notifier, decide

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


def make_notifier(outbox, history, live, **more):
    options = {"now_ms": lambda: 1, "batch_max": 2, "poll_s": 5.0}
    return Notifier(outbox=outbox, history=history, live=live, **options | more)


async def test_a_hint_wakes_it_before_the_poll(autojump_clock):
    outbox, history, live = FakeOutbox([HOOK]), FakeHistory(), FakeLive()
    decided = trio.Event()
    notifier = make_notifier(outbox, history, live, decided=decided.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.sleep(1)
        history.rows.append(make_event())
        live.announce()
        with trio.fail_after(0.1):
            await decided.wait()
        nursery.cancel_scope.cancel()
    assert [row.event for row in outbox.rows.values()] == history.rows


async def test_with_redis_away_events_are_found_by_polling(autojump_clock):
    outbox, history, live = FakeOutbox([HOOK]), FakeHistory(), FakeLive()
    live.away = True
    history.rows += [make_event(number) for number in range(5)]
    notifier = make_notifier(outbox, history, live)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert len(outbox.rows) == 5
    assert notifier.statistics().events_total == 5


async def test_postgres_away_is_waited_for_and_told_once(autojump_clock):
    outbox, history, live = FakeOutbox([HOOK]), FakeHistory(), FakeLive()
    notifier = make_notifier(outbox, history, live)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        outbox.away = history.away = True
        history.rows.append(make_event())
        await trio.sleep(60)
        assert not outbox.rows
        assert notifier.statistics().store_away == 1
        outbox.away = history.away = False
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert len(outbox.rows) == 1
    assert notifier.statistics().outages_total == 1
    assert notifier.statistics().store_away == 0


class Seat(FakeOutbox):
    """One process's connection to a shared outbox: only the holder of the lock is the notifier."""

    def __init__(self, shared):
        self.__dict__ = shared.__dict__
        self.lock_calls = 0

    async def take_notifier_lock(self):
        if self.holder is None:
            self.holder = id(self)
        return False


async def test_without_the_lock_nothing_is_read_or_decided(autojump_clock):
    outbox, history = Seat(FakeOutbox([HOOK])), FakeHistory()
    history.rows.append(make_event())
    notifier = make_notifier(outbox, history, FakeLive())
    with trio.move_on_after(10):
        await notifier.run()
    assert not outbox.rows
    assert notifier.statistics().active == 0


async def run_until_caught_up(notifier, outbox, count):
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.run)
            while outbox.cursor < count:  # noqa: ASYNC110 - a store announces nothing
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [Killed(), StoreUnavailableError("gone")], ids=["killed", "store gone"])
@pytest.mark.parametrize("at", range(1, 14))
async def test_killed_or_cut_off_at_any_step_each_notice_is_written_exactly_once(
    autojump_clock, at, error, after
):
    outbox, history, live = FakeOutbox([HOOK, MAIL]), FakeHistory(), FakeLive()
    history.rows += [make_event(number) for number in range(5)]
    count = [0]
    failing = [Failing(store, at=at, after=after, error=error, count=count) for store in (outbox, history)]
    try:
        await run_until_caught_up(make_notifier(*failing, live), outbox, 5)
    except BaseExceptionGroup as group:
        assert group.subgroup(Killed) is not None  # noqa: PT017 - the others must not come out at all
        await run_until_caught_up(make_notifier(outbox, history, live), outbox, 5)
    assert count[0] >= at, "the failpoint was never reached"
    written = sorted((row.event.since_ms, row.channel.channel_id) for row in outbox.rows.values())
    assert written == sorted(
        (event.since_ms, channel.channel_id) for event in history.rows for channel in (HOOK, MAIL)
    )
    assert outbox.cursor == 5


async def test_a_bug_escapes_to_whoever_keeps_the_task(autojump_clock):
    class Broken(FakeHistory):
        async def events(self, **_):
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        await make_notifier(FakeOutbox(), Broken(), FakeLive()).run()
