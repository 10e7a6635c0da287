"""Snapshots: whole or not there, consistent with their place in the journal, and what they let go of."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine import snapshot
from engine.core.records import Window
from engine.core.step import DOWN, MAINTENANCE, NEW, UP
from engine.journal_blocks import Kind, read, segments
from tests.engine.rows_world import T0, spec
from tests.engine.shard_world import Bench, events_in, run_at_once, snapshot_of, snapshots_of

TTL = 90_000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.learn(*(spec(row) for row in range(4)))
    made.commit()
    return made


def written(bench: Bench) -> Path:
    captured = snapshot_of(bench)
    bench.commit()
    return snapshot.write(bench.directory, captured)


def test_what_is_written_is_read_back(bench: Bench):
    bench.beats(range(4), T0)
    captured = snapshot_of(bench)
    snapshot.write(bench.directory, captured)
    found = snapshot.load(bench.directory)
    assert found is not None
    assert msgspec.structs.replace(found.header, columns=[]) == captured.header
    for group, arrays in captured.columns.items():
        for name, array in arrays.items():
            assert found.columns[group][name].tolist() == array.tolist(), (group, name)


def test_without_snapshots_there_is_none(tmp_path: Path):
    assert snapshot.load(tmp_path) is None
    assert snapshot.oldest_position(tmp_path) == 0


@pytest.mark.parametrize("damage", ["a bit", "the end", "everything", "the header"])
def test_of_a_damaged_snapshot_the_older_one_is_used_and_the_journal_brings_the_rest(
    bench: Bench, damage: str
):
    bench.beats(range(4), T0)
    older = written(bench)
    bench.beats(range(4), T0 + 30_000)
    newer = written(bench)
    bench.beats([1], T0 + 50_000)
    data = bytearray(newer.read_bytes())
    if damage == "a bit":
        data[len(data) // 2] ^= 4
    elif damage == "the end":
        data = data[:-100]
    elif damage == "everything":
        data = bytearray()
    else:
        data[9] ^= 1
    newer.write_bytes(data)
    found = snapshot.load(bench.directory)
    assert found is not None
    assert found.header.position == int(older.stem)
    again = Bench(bench.directory)
    assert again.table.row.last_t_ms[:4].tolist() == [T0 + 30_000, T0 + 50_000, T0 + 30_000, T0 + 30_000]
    assert again.recovered.beats == 5


def test_columns_written_in_pieces_are_read_back_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.beats(range(4), T0)
    captured = snapshot_of(bench)
    monkeypatch.setattr(snapshot, "_ENTRIES_AT_ONCE", 3)
    snapshot.write(bench.directory, captured)
    found = snapshot.load(bench.directory)
    assert found is not None
    assert found.columns["row"]["last_t_ms"].tolist() == [T0] * 4
    assert found.columns["generation"]["key0"].tolist() == captured.columns["generation"]["key0"].tolist()


def test_pieces_are_written_as_they_are_made_and_never_held_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    captured = snapshot_of(bench)
    pieces_of, checked, ahead = snapshot._bytes_of, [], []
    crc32 = snapshot.zlib.crc32

    def counted(piece: Any, crc: int) -> int:
        checked.append(piece)
        return crc32(piece, crc)

    def watched(found: snapshot.Snapshot) -> Any:
        for number, piece in enumerate(pieces_of(found)):
            ahead.append(number - (len(checked) - 2))  # the header and its length come first
            yield piece

    monkeypatch.setattr(snapshot.zlib, "crc32", counted)
    monkeypatch.setattr(snapshot, "_bytes_of", watched)
    snapshot.write(bench.directory, captured)
    assert len(ahead) > 10
    assert set(ahead) == {0}


@pytest.mark.parametrize("grown", [False, True])
def test_copied_columns_are_those_of_that_moment_also_when_the_table_outgrew_the_room_made(
    bench: Bench, grown: bool
):
    room = bench.table.room()
    if grown:
        bench.learn(*(spec(row) for row in range(4, 9)))
    bench.beats(range(4), T0)
    copied = bench.table.copy_columns(room)
    bench.beats(range(4), T0 + 30_000)
    assert copied["row"]["last_t_ms"].tolist() == [T0] * 4 + [0] * (5 if grown else 0)
    assert copied["row"]["known"].tolist() == [1] * (9 if grown else 4)
    assert len(copied["generation"]["live"]) == 2 * len(copied["row"]["state"])
    assert copied["slot"]["row_index"].tolist() == bench.table.slot.row_index[: bench.table.slots].tolist()


def test_a_snapshot_of_another_version_is_passed_over(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    captured = snapshot_of(bench)
    other = msgspec.structs.replace(captured.header, version=snapshot.VERSION + 1)
    snapshot.write(bench.directory, captured._replace(header=other))
    assert snapshot.load(bench.directory) is None


def test_the_last_two_are_kept(bench: Bench):
    positions = []
    for second in range(5):
        bench.beats(range(4), T0 + second * 1_000)
        positions.append(int(written(bench).stem))
    left = sorted(int(path.stem) for path in bench.directory.glob("*.snapshot"))
    assert left == positions[-2:]
    assert snapshot.oldest_position(bench.directory) == positions[-2]


def test_what_could_not_be_written_leaves_the_older_one_and_no_litter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    older = written(bench)
    bench.beats(range(4), T0)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    captured = snapshot_of(bench)
    monkeypatch.setattr(snapshot.os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        snapshot.write(bench.directory, captured)
    assert list(bench.directory.glob("*.snapshot")) == [older]
    assert list(bench.directory.glob("*.new")) == []


def test_a_half_written_one_is_no_snapshot(bench: Bench):
    older = written(bench)
    (bench.directory / f"{bench.journal.committed:020d}.new").write_bytes(b"half")
    found = snapshot.load(bench.directory)
    assert found is not None
    assert found.header.position == int(older.stem)


class Gate:
    """Holds commits in flight until it is opened; memory for the snapshot is to be had."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.held = 0

    async def run_sync(self, function: Any, *args: Any) -> Any:
        if getattr(function, "__name__", "") == "room":
            return function(*args)
        self.held += 1
        await self.open.wait()
        return function(*args)


@pytest.mark.parametrize("applied", [0, 1, 3])
async def test_a_snapshot_taken_while_a_commit_is_in_flight_has_every_applied_beat_and_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, applied: int
):
    for row in range(applied):
        bench.beats([row], T0 + row)
    gate = Gate()
    monkeypatch.setattr(trio.to_thread, "run_sync", gate.run_sync)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        bench.beat(3, T0 + 10)
        bench.committer.wake()
        await wait_all_tasks_blocked()
        assert gate.held == 1, "the beat is on its way to the disk"
        nursery.start_soon(snapshots_of(bench).take)
        await wait_all_tasks_blocked()
        assert snapshot.load(bench.directory) is None, "it does not count before what follows is committed"
        gate.open.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    found = snapshot.load(bench.directory)
    assert found is not None
    heard = [T0 + row if row < applied else 0 for row in range(3)]
    assert found.columns["row"]["last_t_ms"].tolist() == [*heard, 0]
    after = [block.kind for block in read(bench.directory, found.header.position)]
    assert after.count(Kind.BEATS) == 1
    again = Bench(bench.directory)
    assert again.recovered.beats == 1
    assert again.table.row.last_t_ms[:4].tolist() == [*heard, T0 + 10]


async def test_a_snapshot_waits_until_what_is_applied_is_decided(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    run_at_once(monkeypatch)
    bench.beats(range(4), T0)
    for second in (91, 181):
        bench.look(T0 + second * 1_000)
        bench.commit()
    assert bench.states() == [DOWN] * 4
    told: list[Any] = []
    at_once = bench.committer._actors
    monkeypatch.setattr(
        at_once, "tell", lambda heard, said: told.append((list(heard), list(said))), raising=False
    )
    bench.beats([0], T0 + 200_000)
    snapshots = snapshots_of(bench)
    snapshots._settled = lambda: not told
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        nursery.start_soon(snapshots.take)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert snapshot.load(bench.directory) is None
        monkeypatch.undo()
        run_at_once(monkeypatch)
        at_once.tell(*told[0])
        told.clear()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    again = Bench(bench.directory)
    assert again.states() == [UP, DOWN, DOWN, DOWN]
    kinds = [(event.kind, event.since_ms - T0) for event in events_in(bench.directory)]
    assert kinds.count(("node.up", 200_000)) == 1


async def test_the_journal_goes_only_when_the_oldest_snapshot_and_postgres_have_passed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_at_once(monkeypatch)
    bench = Bench(tmp_path, segment_bytes=4_096)
    bench.learn(*(spec(row) for row in range(4)))
    snapshots = snapshots_of(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for second in range(30):
            bench.beats(range(4), T0 + second * 1_000, plane0=second % 4)
        many = len(segments(bench.directory))
        assert many > 3
        await snapshots.take()
        await snapshots.take()
        assert len(segments(bench.directory)) == many, "nobody knows what Postgres has"
        bench.flushed = segments(bench.directory)[2].position
        await snapshots.take()
        assert len(segments(bench.directory)) == many - 2
        bench.flushed = bench.journal.committed
        bench.beats(range(4), T0 + 2_001_000)
        await snapshots.take()
        assert len(segments(bench.directory)) == 1
        nursery.cancel_scope.cancel()
    assert snapshots.statistics().taken == 4
    again = Bench(bench.directory)
    assert again.table.row.last_t_ms[:4].tolist() == [T0 + 2_001_000] * 4


async def test_a_snapshot_that_fails_is_told_and_nothing_is_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    run_at_once(monkeypatch)
    failures: list[OSError] = []
    snapshots = snapshots_of(bench, failed=failures.append)
    bench.flushed = bench.journal.committed

    def refuse(_directory: Path, _snapshot: Any) -> None:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(snapshot, "write", refuse)
    first = segments(bench.directory)[0]
    await snapshots.take()
    assert [error.errno for error in failures] == [errno.EIO]
    assert segments(bench.directory)[0] == first
    assert snapshots.statistics().failed == 1


def test_windows_gaps_and_what_is_detached_come_back(bench: Bench):
    window = Window("w", None, T0 + 10_000, T0 + 20_000, False)
    bench.learn(spec(1, windows=(window,)))
    bench.beats(range(4), T0)
    bench.look(T0 + 10_000)
    written(bench)
    again = Bench(bench.directory)
    assert again.states() == [UP, MAINTENANCE, UP, UP]
    assert again.table.row.before_window[1] == UP
    again.look(T0 + 20_000)
    assert again.states() == [UP] * 4
    again.look(T0 + 20_000 + TTL)
    again.commit()
    assert events_in(bench.directory) == []


def test_a_window_that_was_open_at_the_snapshot_is_not_entered_twice(bench: Bench):
    """The verdict stands in the snapshot and, committed after it, in the journal behind it."""
    bench.learn(spec(1, windows=(Window("w", None, T0, T0 + 20_000, False),)))
    bench.look(T0)
    captured = snapshot_of(bench)
    bench.commit()
    snapshot.write(bench.directory, captured)
    again = Bench(bench.directory)
    assert again.states() == [NEW, MAINTENANCE, NEW, NEW]
    again.look(T0 + 20_000)
    again.look(T0 + 2_000_000)
    again.commit()
    assert again.states() == [NEW] * 4, "it never beat: it is not UP, and never DOWN"
    assert events_in(bench.directory) == []
