"""PostgreSQL or the journal brought back to another time than the other's: nothing acknowledged goes."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.core.records import FlushBatch
from engine.journal import POSITION_PER_MS
from engine.journal_blocks import segments
from engine.rejoin import OutOfStepError, Span, goes_on_at
from engine.settings import JournalSettings
from engine.snapshots import HOLD_S_MAX
from np1.codec import Code
from storage.memory import MemoryWorld
from tests.engine.rows_world import T0, spec
from tests.engine.shard_world import Bench, run_at_once, snapshots_of
from tests.engine.test_flusher import Flushing, flushing
from tests.engine.test_registry_follow import Following

START = T0 * POSITION_PER_MS


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    run_at_once(monkeypatch)
    made = Bench(tmp_path / "1" / "0", segment_bytes=4_096)
    made.learn(*(spec(row) for row in range(3)))
    return made


def put_back(world: MemoryWorld, then: MemoryWorld) -> None:
    """What a restore of PostgreSQL does."""
    for name in ("positions", "watermarks", "intervals", "events", "event_ids", "gaps"):
        setattr(world, name, copy.deepcopy(getattr(then, name)))


def copy_of(world: MemoryWorld) -> Any:
    class Copy:
        pass

    then: Any = Copy()
    put_back(then, world)
    return then


@pytest.mark.parametrize(
    ("span", "stored", "at"),
    [
        (Span(START, START + 900), 0, START),  # a new shard, or a new journal of an old one
        (Span(START, START + 900), START - 5, START),
        (Span(START + 7, START + 900), START + 7, START + 7),
        (Span(START + 7, START + 900), START + 50, START + 50),
        (Span(START + 7, START + 900), START + 900, START + 900),
    ],
)
def test_outputs_go_on_where_history_ends(span: Span, stored: int, at: int):
    assert goes_on_at(span, stored) == at


@pytest.mark.parametrize(
    ("span", "stored", "says"),
    [
        (Span(START + 7, START + 900), START + 6, "a time that the journal no longer holds"),
        (Span(START + 7, START + 900), 0, "a time that the journal no longer holds"),
        (Span(START, START + 900), START + 901, "the journal is an older copy"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(span: Span, stored: int, says: str):
    with pytest.raises(OutOfStepError, match=says) as refused:
        goes_on_at(span, stored)
    assert "docs/operations.md#out-of-step" in str(refused.value)


async def test_history_restored_under_a_running_shard_gets_again_what_it_lacks(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        then = copy_of(flush.world)
        flush.fall_silent_and_return()
        await flush.cycles(2)
        await flush.check_whole()
        put_back(flush.world, then)
        assert not flush.world.intervals
        bench.now_ms += 2_000
        await flush.cycles(3)
        assert len(flush.world.intervals) == 6
        assert len(flush.world.events) == 6
        assert flush.world.positions[0] == bench.journal.committed
        assert not flush.flusher.out_of_step


async def test_no_partial_batch_tells_a_restored_history_of_more_than_it_brings(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench, history_rows_max=1) as flush:
        then = copy_of(flush.world)
        flush.fall_silent_and_return()
        await flush.cycles(2)
        put_back(flush.world, then)
        bench.now_ms += 2_000
        told: list[int] = []
        inner = flush.history.flush

        async def watched(batch: FlushBatch) -> None:
            await inner(batch)
            told.append(flush.world.watermarks[0])

        flush.flusher._history = SimpleNamespace(
            flush=watched, flushed_position=flush.history.flushed_position
        )
        await flush.cycles(2)
        assert len(told) > 2
        assert told[:-1] == [0] * len(told[:-1])
        assert told[-1] == bench.now_ms
        assert len(flush.world.events) == 6


async def test_history_older_than_the_journals_first_block_waits_for_an_operator_and_nothing_is_let_go(
    bench: Bench, autojump_clock: MockClock
):
    async with flushing(bench) as flush:
        then = copy_of(flush.world)
        flush.fall_silent_and_return()
        for second in range(30):
            bench.beats(range(3), T0 + 201_000 + second * 1_000, plane0=second % 4)
        await flush.cycles(2)
        bench.flushed = flush.flusher.flushed
        snapshots = snapshots_of(bench)
        for _ in range(3):
            await snapshots.take()
        first = bench.journal.first
        assert first > START
        put_back(flush.world, then)
        told: list[tuple[str, bool]] = []
        again = Flushing(bench, flush.world)
        again.flusher._tell_rejoining = lambda why, held: told.append((why, held))
        bench.beats(range(3), T0 + 240_000)
        await again.cycles(4)
        assert again.flusher.out_of_step
        assert again.flusher.statistics().out_of_step
        assert [held for _, held in told] == [True]
        assert again.flusher.flushed is None, "so that no snapshot trims"
        assert not flush.world.intervals
        flush.world.positions[0] = first  # the operator's word
        await again.cycles(2)
        assert not again.flusher.out_of_step
        assert flush.world.intervals


async def test_while_a_backup_holds_the_journal_no_segment_of_it_goes(
    bench: Bench, autojump_clock: MockClock, tmp_path: Path
):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for second in range(30):
            bench.beats(range(3), T0 + second * 1_000, plane0=second % 4)
        bench.flushed = bench.journal.committed
        snapshots, hold = snapshots_of(bench), tmp_path / "hold"
        hold.touch()
        many = len(segments(bench.directory))
        assert many > 3
        for _ in range(3):
            await snapshots.take()
        assert len(segments(bench.directory)) == many
        long_ago = bench.now_ms / 1_000 - HOLD_S_MAX - 1
        os.utime(hold, (long_ago, long_ago))
        await snapshots.take()
        assert len(segments(bench.directory)) < many, "one that was forgotten fills no disk"
        nursery.cancel_scope.cancel()


async def test_segments_are_kept_for_a_postgres_that_may_be_restored(bench: Bench, autojump_clock: MockClock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for second in range(30):
            bench.beats(range(3), T0 + second * 1_000, plane0=second % 4)
        bench.flushed = bench.journal.committed
        snapshots = snapshots_of(bench)
        snapshots._settings = JournalSettings(keep_s=600)
        old, *young = segments(bench.directory)
        long_ago = bench.now_ms / 1_000 - 601
        os.utime(old.path, (long_ago, long_ago))
        for _ in range(3):
            await snapshots.take()
        assert [each.position for each in segments(bench.directory)] == [each.position for each in young]
        nursery.cancel_scope.cancel()


async def test_a_registry_restored_to_an_earlier_time_is_loaded_anew(tmp_path: Path):
    following = Following(tmp_path)
    await following.add(2)
    await following.follower.load(seq_floor_ms=0)
    for _ in range(3):
        await following.open(0)
    await following.follower.catch_up()
    del following.world.changed_rows[3:]  # its numbers are given out again
    await following.open(1)
    assert len(following.world.changed_rows) < following.follower.position
    await following.follower.catch_up()
    assert following.follower.position == len(following.world.changed_rows)
    assert following.beat(1, T0 + 1) == Code.OK


async def test_after_a_restart_the_position_told_last_counts_and_not_the_highest(tmp_path: Path):
    following = Following(tmp_path)
    await following.add(4)
    await following.follower.load(seq_floor_ms=0)
    del following.world.changed_rows[2:]
    await following.follower.catch_up()
    following.revive(tmp_path)
    assert following.follower.position == 2
