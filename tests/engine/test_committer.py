"""Journal, table, answer, in this order; and what becomes of everybody when the disk refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.core.records import Gap
from engine.journal_blocks import Kind, read
from engine.settings import JournalSettings
from np1.codec import Code
from tests.engine.rows_world import T0, beat, spec
from tests.engine.shard_world import Bench, run_at_once


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, journal=JournalSettings(retry_s=1.0))
    made.learn(spec(0), spec(1), spec(2))
    made.commit()
    return made


def kinds(bench: Bench) -> list[int]:
    return [block.kind for block in read(bench.directory, 0)]


def test_an_answer_leaves_only_when_the_beat_is_in_the_journal_and_in_the_table(bench: Bench):
    bench.beat(1, T0)
    commit = bench.begin()
    assert bench.replies == []
    assert bench.table.row.last_t_ms[1] == 0, "the table changes only after the commit"
    bench.journal.commit(commit.blocks)
    assert Kind.BEATS in kinds(bench)
    assert bench.replies == []
    bench.committer.written(commit)
    assert bench.codes() == [Code.OK]
    assert bench.table.row.last_t_ms[1] == T0
    assert bench.committer.applied_position == bench.journal.committed


def test_all_that_waits_goes_into_one_commit(bench: Bench):
    for row in range(3):
        bench.beat(row, T0 + row)
    commit = bench.begin()
    assert len(commit.beats) == 3
    assert [kind for kind, _ in commit.blocks] == [Kind.BEATS]
    bench.end(commit)
    assert bench.codes() == [Code.OK] * 3


def test_what_follows_from_beats_is_committed_by_the_next_commit(bench: Bench):
    bench.beats([0], T0)
    assert Kind.FIRST_REPORTS in kinds(bench)
    assert bench.journal.pending_bytes == 0


def test_a_disk_that_refuses_gives_the_beats_back_with_busy_and_changes_nothing(bench: Bench):
    bench.beats([0], T0)
    bench.files.full = True
    bench.beats([0, 1], T0 + 1_000)
    assert bench.codes() == [Code.OK, Code.BUSY, Code.BUSY]
    assert bench.table.row.last_t_ms[:2].tolist() == [T0, 0]
    assert len(bench.failures) == 1
    assert bench.intake.busy
    assert bench.committer.undecided_from_ms == T0, "since the last committed beat"
    bench.beats([2], T0 + 2_000)
    assert bench.codes()[3:] == [Code.BUSY]
    assert len(bench.failures) == 1, "told once"


def test_when_it_takes_beats_again_the_time_between_is_a_gap_of_ours(bench: Bench):
    bench.beats([0], T0)
    bench.files.full = True
    bench.beats([0], T0 + 1_000)
    bench.files.full = False
    bench.now_ms = T0 + 30_000
    bench.tick()
    assert not bench.intake.busy
    assert bench.committer.undecided_from_ms is None
    assert bench.gaps.recent == [Gap(0, T0, T0 + 30_000, "disk_full")]
    assert bench.gaps.holding_end_ms == T0 + 30_000
    bench.beats([0], T0 + 31_000, counter=1)
    assert bench.codes() == [Code.OK, Code.BUSY, Code.OK]
    assert kinds(bench).count(Kind.BEATS) == 2, "the beat that was refused is not in the journal"


def test_what_is_not_a_beat_waits_for_the_disk_and_is_written_in_its_order(bench: Bench):
    bench.files.full = True
    bench.tick()
    bench.learn(spec(1, workloads=3))
    bench.tick()
    bench.files.full = False
    bench.now_ms += 5_000
    before = len(kinds(bench))
    bench.commit()
    assert [kind for kind in kinds(bench)[before:] if kind != Kind.OPENING] == [
        Kind.TICK,
        Kind.REGISTRY,
        Kind.TICK,
        Kind.GAP,
    ]


def test_short_of_disk_refuses_beats_while_the_journal_can_still_be_written(bench: Bench):
    bench.beats([0], T0)
    bench.committer.set_short_of_disk(True, T0 + 1_000)
    bench.committer.set_short_of_disk(True, T0 + 2_000)
    assert [str(error.errno) for error in bench.failures] == ["28"]
    bench.beats([1], T0 + 3_000)
    assert bench.codes() == [Code.OK, Code.BUSY]
    assert bench.committer.undecided_from_ms == T0 + 1_000
    bench.tick()
    assert bench.intake.busy, "a tick that could be written does not mean that there is room"
    bench.committer.set_short_of_disk(False, T0 + 9_000)
    assert bench.gaps.recent == [Gap(0, T0 + 1_000, T0 + 9_000, "disk_full")]
    bench.beats([1], T0 + 10_000)
    assert bench.codes()[-1] == Code.OK


def test_a_disk_that_fails_while_short_stays_busy_until_both_are_over(bench: Bench):
    bench.committer.set_short_of_disk(True, T0 + 1_000)
    bench.files.full = True
    bench.tick()
    bench.files.full = False
    bench.now_ms = T0 + 5_000
    bench.commit()
    assert bench.intake.busy
    bench.committer.set_short_of_disk(False, T0 + 6_000)
    assert not bench.intake.busy


async def serve(bench: Bench, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> None:
    run_at_once(monkeypatch)
    nursery.start_soon(bench.committer.run)
    await wait_all_tasks_blocked()


async def test_the_loop_tries_again_by_itself_each_retry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
):
    async with trio.open_nursery() as nursery:
        await serve(bench, monkeypatch, nursery)
        bench.files.full = True
        bench.beat(0, T0)
        bench.journal.append(Kind.TICK, T0, b"\x80")
        bench.committer.wake()
        await trio.sleep(10.5)
        assert bench.codes() == [Code.BUSY]
        assert 10 <= bench.journal.statistics().failures <= 12
        bench.files.full = False
        await trio.sleep(1.1)
        assert not bench.intake.busy
        bench.beat(0, T0 + 20_000)
        bench.committer.wake()
        await trio.sleep(0.1)
        assert bench.codes() == [Code.BUSY, Code.OK]
        nursery.cancel_scope.cancel()


async def test_frames_that_come_while_the_disk_refuses_are_answered_busy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
):
    async with trio.open_nursery() as nursery:
        await serve(bench, monkeypatch, nursery)
        bench.files.full = True
        for second in range(5):
            bench.beat(0, T0 + second * 1_000)
            bench.committer.wake()
            await trio.sleep(1.5)
        assert bench.codes() == [Code.BUSY] * 5
        nursery.cancel_scope.cancel()


async def test_finish_asks_a_refusing_disk_once_and_returns(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
):
    run_at_once(monkeypatch)
    bench.files.full = True
    bench.beat(0, T0)
    with trio.fail_after(5):
        await bench.committer.finish()
    assert bench.codes() == [Code.BUSY]


def disk_behind_a_gate(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """No commit gets to the disk before this is set."""
    gate = trio.Event()

    async def gated(function: Any, *args: Any) -> Any:
        await gate.wait()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", gated)
    return gate


async def test_a_commit_once_begun_is_brought_to_its_end_although_the_shard_is_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    gate = disk_behind_a_gate(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        bench.beat(0, T0)
        bench.committer.wake()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        gate.set()
    assert bench.codes() == [Code.OK]
    assert bench.table.row.last_t_ms[0] == T0
    assert bench.committer.oldest_unapplied_ms() is None


async def test_a_fault_of_ours_behind_a_commit_ends_the_shard_and_no_callback_keeps_it_to_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_args: Any) -> Any:
        raise AssertionError("planted")

    monkeypatch.setattr(bench.table, "apply", broken)
    bench.beat(0, T0)
    with trio.fail_after(5), pytest.raises(AssertionError, match="planted"):
        await bench.committer.run()
    assert bench.codes() == [], "what is in doubt is not answered"


async def test_what_comes_while_a_commit_is_in_flight_is_committed_without_a_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    gate = disk_behind_a_gate(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        bench.beat(0, T0)
        await wait_all_tasks_blocked()
        bench.beat(1, T0 + 1)
        await wait_all_tasks_blocked()
        assert bench.codes() == []
        gate.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert bench.codes() == [Code.OK, Code.OK]
    kinds = [block.kind for block in read(bench.directory, bench.journal.first)]
    assert kinds.count(Kind.BEATS) == 2


async def test_whoever_waits_until_it_is_settled_is_woken_also_when_beats_are_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
):
    async with trio.open_nursery() as nursery:
        await serve(bench, monkeypatch, nursery)
        bench.files.full = True
        bench.beat(0, T0)
        bench.intake.verify_queued()
        bench.committer.wake()
        appended = bench.journal.appended + 1
        with trio.fail_after(5):
            await bench.committer.wait_settled(appended)
        assert bench.codes() == [Code.BUSY]
        nursery.cancel_scope.cancel()


def test_statistics_count_what_is_in_flight_and_whether_it_fails(bench: Bench):
    bench.beat(0, T0)
    commit = bench.begin()
    assert bench.committer.statistics().in_flight_beats == 1
    bench.end(commit)
    assert bench.committer.statistics().in_flight_beats == 0
    assert bench.committer.statistics().listened_ms == T0
    bench.files.full = True
    bench.tick()
    assert bench.committer.statistics().failing
    assert len(beat(0, T0)) == 1
