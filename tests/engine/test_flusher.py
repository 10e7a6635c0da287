"""From journal and table to the stores: in order, in bounded batches, and whole again after any outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import engine.pages
from engine.core.ports import StoreUnavailableError
from engine.core.records import BASE_NONE, BaseInterval, Gap, Say, SlotSpec
from engine.flusher import Flusher, HeadSource
from engine.journal_blocks import Kind
from engine.settings import FlushSettings
from storage.memory import MemoryWorld, memory_stores_of
from tests.engine.rows_world import T0, frame, spec, workload
from tests.engine.shard_world import Bench, run_at_once

TTL = 90_000


class Store:
    """A store that keeps the order of its calls and fails at call `fail_at`, before or after it."""

    def __init__(self, inner: Any, calls: list[str], plan: dict[str, Any]) -> None:
        self._inner, self._calls, self._plan = inner, calls, plan

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._calls.append(name)
            if name in self._plan:
                raise self._plan[name]
            failing = self._plan.get("fail_at") == len(self._calls)
            if failing and self._plan.get("before", True):
                raise StoreUnavailableError(name)
            answer = await inner(*args, **kwargs)
            if failing:
                raise StoreUnavailableError(name)
            return answer

        return call


class Flushing:
    """A bench with a flusher on memory twins."""

    def __init__(self, bench: Bench, world: MemoryWorld, **settings: int) -> None:
        self.bench, self.world = bench, world
        stores = memory_stores_of(world)
        self.live: Any = stores.live
        self.history = stores.history
        self.calls: list[str] = []
        self.plan: dict[str, Any] = {}
        self.away: list[tuple[str, bool]] = []
        self.failures: list[BaseException] = []
        self.registry_position = 7
        self.flusher = Flusher(
            bench.table,
            bench.journal,
            bench.committer,
            bench.decisions,
            Store(stores.history, self.calls, self.plan),
            Store(stores.live, self.calls, self.plan),
            FlushSettings(**settings),
            epoch="first",
            source=HeadSource(
                lambda: bench.now_ms,
                lambda: self.registry_position,
                lambda: False,
                lambda: bench.committer.undecided_from_ms,
                lambda: bench.now_ms,
                lambda watermark_ms: watermark_ms,
            ),
            away=lambda store, away: self.away.append((store, away)),
            failed=self.failures.append,
        )

    async def told(self) -> tuple[int, int]:
        """(registry position, watermark) as the live view has them."""
        head = (await self.live.heads())[0]
        return head.registry_position, head.watermark_ms

    async def cycles(self, number: int = 1, *, apart_s: float = 10.0) -> None:
        for _ in range(number):
            await self.flusher.cycle()
            await trio.sleep(apart_s)

    def fall_silent_and_return(self) -> None:
        """Rows 0..2 beat, are silent, and return: three base rows of two workloads, one down and up each."""
        bench = self.bench
        bench.beats(range(3), T0)
        for second in range(100, 200, 20):
            bench.look(T0 + second * 1_000)
            bench.commit()
        bench.beats(range(3), T0 + 200_000, plane0=0b01)

    async def check_whole(self) -> None:
        """The stores hold all that there is to be known of `fall_silent_and_return`, each once."""
        for row in range(3):
            for slot in range(2):
                rows = self.world.intervals[workload(row, slot)]
                assert rows == {T0: BaseInterval(1, T0, T0 + TTL, TTL)}
        kinds = sorted((event.kind, event.since_ms - T0) for event in self.world.events)
        assert kinds == [("node.down", TTL)] * 3 + [("node.up", 200_000)] * 3
        for row in range(3):
            found = await self.live.read(row, shards=1)
            assert found is not None
            head, node = found
            assert head.watermark_ms == self.bench.now_ms
            assert (node.state, node.last_t_ms) == ("up", T0 + 200_000)
            assert [slot.kind for slot in node.slots.values()] == [1, 2]
            assert node.slots[0].started_ms == T0 + 200_000


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    run_at_once(monkeypatch)
    made = Bench(tmp_path)
    made.learn(*(spec(row) for row in range(3)))
    return made


@asynccontextmanager
async def flushing(bench: Bench, **settings: int) -> AsyncIterator[Flushing]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        yield Flushing(bench, MemoryWorld(), **settings)
        nursery.cancel_scope.cancel()


async def test_everything_committed_stands_in_the_stores_after_a_cycle_each_once(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        flush.fall_silent_and_return()
        await flush.cycles(2)
        await flush.check_whole()
        assert flush.flusher.flushed == bench.journal.committed
        assert flush.world.positions[0] == bench.journal.committed
        assert flush.away == []


async def test_history_is_written_before_the_live_view_says_that_it_is_over(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        flush.calls.clear()
        bench.beats([1], T0 + 1_000, plane0=0)
        await flush.cycles()
        assert flush.calls == ["flush", "write"]


async def test_registry_changes_are_told_at_once_by_a_header_alone_and_not_with_the_next_cycle(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench, live_interval_ms=10_000) as flush, trio.open_nursery() as nursery:
        nursery.start_soon(flush.flusher.run)
        await trio.sleep(15)
        watermark_ms = bench.now_ms
        assert await flush.told() == (7, watermark_ms)
        bench.beats([1], T0 + 1_000)
        flush.calls.clear()
        for position in (8, 9):
            flush.registry_position = position
            flush.flusher.tell_registry()
            await trio.sleep(0.01)
            assert await flush.told() == (position, watermark_ms), "of the beat nothing is told yet"
        assert flush.calls == ["write", "write"]
        await trio.sleep(10)
        assert await flush.told() == (9, T0 + 1_000)
        nursery.cancel_scope.cancel()


async def test_registry_changes_that_the_journal_does_not_have_yet_are_not_told(
    bench: Bench, autojump_clock: MockClock
):
    async with trio.open_nursery() as nursery:
        async with flushing(bench, live_interval_ms=10_000) as flush:  # the committer ends with this block
            nursery.start_soon(flush.flusher.run)
            await trio.sleep(15)
        bench.journal.append(Kind.REGISTRY, T0, b"change")
        flush.registry_position = 8
        flush.flusher.tell_registry()
        await trio.sleep(1)
        assert (await flush.told())[0] == 7
        nursery.start_soon(bench.committer.run)
        bench.committer.wake()
        await trio.sleep(1)
        assert (await flush.told())[0] == 8
        nursery.cancel_scope.cancel()


async def test_an_odd_answer_to_such_a_header_does_not_end_the_flusher(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench, live_interval_ms=10_000) as flush, trio.open_nursery() as nursery:
        nursery.start_soon(flush.flusher.run)
        await trio.sleep(15)
        flush.plan["write"] = LookupError("a script that nobody knows")
        flush.flusher.tell_registry()
        await trio.sleep(1)
        assert [type(error) for error in flush.failures] == [LookupError]
        del flush.plan["write"]
        flush.registry_position = 8
        await trio.sleep(30)
        assert (await flush.told())[0] == 8
        nursery.cancel_scope.cancel()


async def test_in_no_order_of_reading_is_a_closed_row_missed(bench: Bench, autojump_clock: MockClock):
    """Live view first, history second: what is no longer open in the one is in the other."""
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        bench.beats([1], T0 + 1_000, plane0=0)

        async def reader() -> None:
            for _ in range(30):
                found = await flush.live.read(1, shards=1)
                rows = await flush.history.intervals(workload(1, 0), 0, 2**60)
                assert found is not None
                opened = found[1].slots[0].started_ms
                assert opened == T0 or [row.started_ms for row in rows] == [T0]
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            nursery.start_soon(flush.flusher.cycle)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("fail_at", range(1, 12))
async def test_a_store_that_fails_at_any_call_loses_nothing_and_doubles_nothing(
    bench: Bench, autojump_clock: MockClock, fail_at: int, before: bool
):
    async with flushing(bench, history_rows_max=3) as flush:
        flush.plan.update(fail_at=fail_at, before=before)
        await flush.cycles()
        flush.fall_silent_and_return()
        await flush.cycles(5)
        assert len(flush.calls) >= fail_at, "the fault was met"
        await flush.check_whole()
        assert flush.away in ([], [("history", True), ("history", False)], [("live", True), ("live", False)])
        assert flush.flusher.away == {"history": False, "live": False}


async def test_without_postgres_the_live_view_says_that_the_shard_lives_but_tells_nothing_newer(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        watermark_ms = bench.now_ms
        flush.world.postgres_away = True
        bench.beats([0], T0 + 5_000, plane0=0)
        await flush.cycles(4)
        head, node = await flush.live.read(0, shards=1)
        assert (head.watermark_ms, head.wall_ms) == (watermark_ms, T0 + 5_000)
        assert node.last_t_ms == T0
        flush.world.postgres_away = False
        await flush.cycles(2)
        head, node = await flush.live.read(0, shards=1)
        assert (head.watermark_ms, node.last_t_ms) == (T0 + 5_000, T0 + 5_000)
        assert flush.away == [("history", True), ("history", False)]


async def test_an_outage_of_postgres_costs_no_memory(bench: Bench, autojump_clock: MockClock):
    async with flushing(bench) as flush:
        flush.world.postgres_away = True
        for second in range(200):
            bench.beats(range(3), T0 + second * 1_000, plane0=second % 4)
            await flush.cycles(apart_s=1.0)
        assert bench.table.closed == []
        assert bench.journal.pending_bytes == 0
        flush.world.postgres_away = False
        await flush.cycles(3)
        assert sum(len(rows) for rows in flush.world.intervals.values()) == 3 * (199 + 99)


async def test_a_redis_that_was_flushed_is_written_anew_and_tells_no_watermark_until_it_is_whole(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine.pages, "_BYTES_PER_WRITE", 96)  # a page is 1 KB: many writes per cycle
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(3)
        flush.live.shards.clear()
        read: list[tuple[int, Any]] = []
        inner = flush.live.write

        async def watched(head: Any, **pages: Any) -> Any:
            wrote = await inner(head, **pages)
            found = await flush.live.read(2, shards=1)
            if found is not None:
                read.append((found[0].watermark_ms, found[1]))
            return wrote

        flush.live.write = watched
        await flush.cycles(4)
        assert len(read) > 3
        for watermark_ms, node in read:
            whole = node is not None and len(node.slots) == 2 and node.slots[1].kind != BASE_NONE
            assert watermark_ms == 0 or whole
        assert read[-1][0] == bench.now_ms


async def test_a_redis_flushed_while_postgres_is_away_claims_nothing_that_it_does_not_hold(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        flush.world.postgres_away = True
        flush.live.shards.clear()
        bench.beats([1], T0 + 5_000, plane0=0)
        await flush.cycles(4)
        head, node = await flush.live.read(0, shards=1)
        assert node is None
        assert head.watermark_ms == 0
        flush.world.postgres_away = False
        await flush.cycles(2)
        head, node = await flush.live.read(0, shards=1)
        assert node.last_t_ms == T0
        assert head.watermark_ms == bench.now_ms


async def test_a_live_view_of_another_epoch_is_taken_over_whole(bench: Bench, autojump_clock: MockClock):
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        other = Flushing(bench, flush.world)
        other.flusher._epoch = "second"
        other.flusher._live = flush.flusher._live
        await other.flusher.cycle()
        await other.flusher.cycle()
        head, node = await flush.live.read(0, shards=1)
        assert (head.epoch, node.last_t_ms) == ("second", T0)


async def test_a_row_is_never_seen_pointing_to_slots_that_are_not_written(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine.pages, "_BYTES_PER_WRITE", 96)
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        inner = flush.live.write

        async def watched(head: Any, **pages: Any) -> Any:
            wrote = await inner(head, **pages)
            _, node = await flush.live.read(1, shards=1)
            assert node.slots[0].kind != BASE_NONE
            return wrote

        flush.live.write = watched
        bench.learn(spec(1, workloads=9))  # its slots move to a larger room
        bench.commit()
        await flush.cycles(2)
        _, node = await flush.live.read(1, shards=1)
        assert len(node.slots) == 9


async def test_batches_to_history_are_bounded_and_each_says_how_far_it_reaches(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench, history_rows_max=10) as flush:
        for second in range(40):
            bench.beats(range(3), T0 + second * 1_000, plane0=second % 4)
        sizes: list[int] = []
        positions: list[int] = []
        inner = flush.flusher._history.flush

        async def watched(batch: Any) -> None:
            sizes.append(len(batch.intervals))
            positions.append(batch.position)
            if batch.position < bench.journal.committed:
                assert batch.watermark_ms == 0, "only the last says that all is there"
            await inner(batch)

        flush.flusher._history = type("Watched", (), {"flush": staticmethod(watched)})()
        flush.flusher.flushed = bench.journal.first
        await flush.cycles()
        assert max(sizes) <= 10 + 6, "a block is not cut: one commit's rows may stand over the bound"
        assert positions == sorted(set(positions))
        assert sum(sizes) == 3 * (39 + 19)


async def test_what_is_captured_when_the_shard_stops_is_written_by_the_last_cycle(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        await flush.cycles(2)
        bench.beats([1], T0 + 1_000, plane0=0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await flush.flusher.cycle()
        await flush.cycles()
        _, node = await flush.live.read(1, shards=1)
        assert node.last_t_ms == T0 + 1_000


async def test_an_idle_shard_moves_the_watermark_of_history_once_a_second(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        bench.beats(range(3), T0)
        for tenth in range(50):
            bench.now_ms = T0 + tenth * 100
            await flush.cycles(apart_s=0.1)
        assert flush.calls.count("flush") <= 6
        assert flush.world.watermarks[0] >= T0 + 4_000


async def test_gaps_and_first_reports_reach_history(bench: Bench, autojump_clock: MockClock):
    async with flushing(bench) as flush:
        project = await memory_stores_of(flush.world).directory.create_project("p", now_ms=T0)
        assert project.slug == "p"
        bench.gaps.record(Gap(0, T0 - 5_000, T0, "stall"), bench.journal)
        bench.beats(range(3), T0)
        batch_reports: list[Any] = []
        inner = flush.history.flush

        async def watched(batch: Any) -> None:
            batch_reports.extend(batch.first_reports)
            await inner(batch)

        flush.history.flush = watched  # type: ignore[method-assign]
        await flush.cycles()
        assert list(flush.world.gaps.values()) == [Gap(0, T0 - 5_000, T0, "stall")]
        assert {(report.workload_id, report.at_ms) for report in batch_reports} == {
            (workload(row, slot), T0) for row in range(3) for slot in range(2)
        }


async def test_a_flusher_that_starts_goes_on_where_history_ends(bench: Bench, autojump_clock: MockClock):
    async with flushing(bench) as flush:
        flush.fall_silent_and_return()
        await flush.cycles()
        flushed = bench.journal.committed
        bench.beats([0], T0 + 201_000)
        again = Flushing(bench, flush.world)
        starts: list[int] = []
        inner = again.flusher._read_batch

        def watched(start: int, end: int) -> Any:
            starts.append(start)
            return inner(start, end)

        again.flusher._read_batch = watched  # type: ignore[method-assign]
        await again.cycles()
        assert starts == [flushed]


async def test_the_loop_flushes_at_its_interval(bench: Bench, autojump_clock: MockClock):
    async with flushing(bench, live_interval_ms=100) as flush:
        bench.beats(range(3), T0)
        with trio.move_on_after(1.05):
            await flush.flusher.run()
        assert 9 <= flush.calls.count("write") <= 11
        await wait_all_tasks_blocked()
        assert flush.flusher.statistics().cycle_ms_last < 100


async def test_an_answer_nobody_expected_is_told_and_tried_again(bench: Bench, autojump_clock: MockClock):
    async with flushing(bench) as flush:
        flush.fall_silent_and_return()
        flush.plan["flush"] = RuntimeError('column "shards" does not exist')
        with trio.move_on_after(3):
            await flush.flusher.run()
        assert flush.failures
        assert flush.flusher.statistics().failures == len(flush.failures)
        assert not flush.world.intervals
        flush.plan.clear()
        with trio.move_on_after(10):
            await flush.flusher.run()
        assert flush.world.intervals


async def test_refused_beats_arrive_and_a_flush_that_seemed_to_fail_counts_them_once(
    bench: Bench, autojump_clock: MockClock
):
    flushing = Flushing(bench, MemoryWorld())
    bench.beats(range(3), T0)
    node_id = spec(1).node_id
    day = "2023-11-14"
    for count in (1, 2):
        bench.send(frame(1, T0), at_ms=T0 + count)
        bench.commit()
        bench.intake.refusals.drain(bench.journal, T0 + count)
        bench.commit()
        flushing.plan = {"fail_at": len(flushing.calls) + 2, "before": False}  # written, but nobody knows
        await flushing.cycles(3)
    assert await flushing.history.refused_during([node_id], day) == {node_id: {"stale": 2}}


async def test_an_idle_shard_tells_how_far_it_is_more_often_while_somebody_waits_for_a_lease(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        await flush.cycles(2)
        flush.calls.clear()
        for waited, expected in ((False, 0), (True, 2)):
            flush.flusher.leases_awaited = waited
            for _ in range(6):
                bench.now_ms += 100
                await flush.cycles()
            assert flush.calls.count("flush") == expected
        assert flush.world.leases_ms[0] > bench.now_ms - 250


async def test_what_is_said_of_licences_is_in_history_with_the_time_up_to_which_it_is_complete(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        licensed = (SlotSpec(0, workload(0, 0), 0, None, licensed=True), SlotSpec(1, workload(0, 1), 0, None))
        bench.learn(spec(0, slots=licensed))
        bench.beats([0], T0 + 5)
        await flush.cycles(2)
        assert list(flush.world.says) == [Say(workload(0, 0), T0 + 5, "claim")]
        assert flush.world.leases_ms[0] == T0 + 5
