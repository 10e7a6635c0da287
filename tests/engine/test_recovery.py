"""Replay = live: from snapshot and journal a shard comes back as it was, and decides nothing twice."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine import snapshot
from engine.core.records import BASE_NONE, BASE_STOPPED, Event, Gap, Window
from engine.core.step import DOWN, FALLEN, MAINTENANCE, NEW, STOPPED, SUSPECT, UP
from engine.journal_blocks import Kind, encode, read, segments
from engine.rows import node_id
from engine.settings import LivenessSettings
from np1.codec import FLAG_STOPPING
from tests.engine.rows_world import T0, session, spec
from tests.engine.shard_world import Bench, events_in, intervals_in, snapshot_of

TTL = 90_000
ROWS = 8
_ROW_COLUMNS = (
    "state",
    "since_ms",
    "last_t_ms",
    "ttl_ms",
    "plane0",
    "plane1",
    "slots",
    "slots_now",
    "stopped",
    "window_end_ms",
    "known",
    "refused",
    "interval_ms",
    "node_hi",
    "node_lo",
    "slot_base",
    "slot_count",
)
_SLOT_COLUMNS = ("workload_hi", "workload_lo", "first_report_ms", "health", "turning_ms", "own_t_ms")
_OPEN_COLUMNS = ("open_ttl_ms", "started_ms")


def picture(bench: Bench) -> dict[str, list[Any]]:
    """Every column that matters, of what is in use."""
    table = bench.table
    found = {name: table.row.arrays[name][: table.rows].tolist() for name in _ROW_COLUMNS}
    found["before_window"] = [
        int(before) if state == MAINTENANCE or before in FALLEN else -1
        for state, before in zip(found["state"], table.row.before_window[: table.rows], strict=True)
    ]
    generations = table.generation
    for name in ("live", "key0", "key1", "last_seq", "map", "until_ms"):
        found[name] = generations.arrays[name][: 2 * table.rows].tolist()
    base = table.row.slot_base[: table.rows].tolist()
    count = table.row.slot_count[: table.rows].tolist()
    used = [b + number for b, c in zip(base, count, strict=True) for number in range(c)]
    for name in _SLOT_COLUMNS:
        found[name] = table.slot.arrays[name][used].tolist()
    opened = [slot for slot in used if _covered(bench, slot)]
    found["kind"] = [int(table.slot.kind[slot]) if slot in opened else BASE_NONE for slot in used]
    for name in _OPEN_COLUMNS:
        found[name] = table.slot.arrays[name][opened].tolist()
    found["detached"] = sorted(set(table.detached))
    found["gap_ends"] = list(table.gap_ends)
    return found


def _covered(bench: Bench, slot: int) -> bool:
    """An open row whose coverage has ended may be closed sooner or later: it ends at the same time."""
    kind, own_t = int(bench.table.slot.kind[slot]), int(bench.table.slot.own_t_ms[slot])
    said_ms = own_t or int(bench.table.row.last_t_ms[int(bench.table.slot.row_index[slot])])
    ended = said_ms + int(bench.table.slot.open_ttl_ms[slot]) <= bench.judge.judged_ms
    return kind == BASE_STOPPED or (kind != BASE_NONE and not ended)


class Play:
    """Random beats, stops, sessions, windows, gaps and judging, with commits in flight meanwhile."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bench = Bench(directory, liveness=LivenessSettings(degraded_rows_min=1_000))
        self.now_ms = T0
        self.counter = 0
        self.generation = [1] * ROWS
        self.workloads = [2] * ROWS
        self.overtook: set[tuple[str, int]] = set()  # (node, time of a beat) in flight in a window
        self.windows: list[list[Window]] = [[] for _ in range(ROWS)]
        for row in range(ROWS):
            self.tell_registry(row)
        self.bench.commit()

    def tell_registry(self, row: int) -> None:
        generation, workloads = self.generation[row], self.workloads[row]
        mask = (1 << workloads) - 1
        current = session(generation, slots=mask, opened_ms=self.now_ms - 1)
        previous = session(generation - 1, slots=mask) if generation > 1 else None
        self.bench.learn(
            spec(
                row,
                workloads=workloads,
                current=current,
                previous=previous,
                windows=tuple(self.windows[row]),
            )
        )

    def step(self) -> None:
        act = self.rng.choices(
            (self.beat, self.look, self.pause, self.reopen, self.window, self.gap, self.grow, self.tick),
            (50, 25, 12, 3, 4, 2, 1, 5),
        )[0]
        act()

    def beat(self) -> None:
        bench, rng = self.bench, self.rng
        if rng.random() < 0.5:
            self.now_ms = max(self.now_ms, self.next_edge_ms() + rng.randrange(1, 60))
        bench.look(self.now_ms - 60)  # the judge looks every 50 ms
        bench.commit()
        for row in rng.sample(range(ROWS), rng.randrange(1, ROWS)):
            self.counter += 1
            flags = FLAG_STOPPING if rng.random() < 0.05 else 0
            mask = (1 << self.workloads[row]) - 1
            bench.beat(
                row,
                self.now_ms,
                counter=self.counter % 65_536,
                plane0=rng.choice((mask, mask, mask, rng.randrange(4))),
                plane1=rng.choice((0, 0, 0, rng.randrange(4))),
                flags=flags,
                generation=self.generation[row],
            )
        commit = bench.begin()
        # While the disk works, silence before these beats is judged and time goes on.
        if rng.random() < 0.7:
            bench.look(max(bench.judge.judged_ms, self.now_ms - 1))
        for row in np.flatnonzero(bench.table.row.state[:ROWS] == MAINTENANCE).tolist():
            self.overtook.add((node_id(bench.table, row), self.now_ms))
        bench.end(commit)
        if rng.random() < 0.7:
            bench.commit()
        self.now_ms += rng.randrange(1, 2_000)

    def next_edge_ms(self) -> int:
        """The next deadline or edge of a window."""
        edges = self.bench.table.row.deadline_ms[:ROWS].tolist()
        edges += [at for held in self.windows for one in held for at in (one.from_ms, one.to_ms)]
        return min((at for at in edges if self.now_ms <= at < self.now_ms + 400_000), default=0)

    def look(self) -> None:
        self.bench.commit()
        self.now_ms += self.rng.randrange(1, 30_000)
        self.bench.look(self.now_ms)
        self.now_ms += 1
        if self.rng.random() < 0.7:
            self.bench.commit()

    def pause(self) -> None:
        self.now_ms += self.rng.randrange(60_000, 400_000)

    def reopen(self) -> None:
        row = self.rng.randrange(ROWS)
        self.generation[row] += 1
        self.tell_registry(row)

    def grow(self) -> None:
        row = self.rng.randrange(ROWS)
        self.workloads[row] += 1
        self.tell_registry(row)

    def window(self) -> None:
        row = self.rng.randrange(ROWS)
        begin = self.now_ms + self.rng.randrange(0, 60_000)
        window = Window(f"w{self.now_ms}", None, begin, begin + self.rng.randrange(1, 300_000), False)
        self.windows[row] = [one for one in self.windows[row] if one.to_ms > self.now_ms] + [window]
        self.tell_registry(row)

    def gap(self) -> None:
        self.bench.commit()
        end = self.now_ms + self.rng.randrange(1, 200_000)
        self.bench.gaps.record(Gap(0, self.now_ms, end, "stall"), self.bench.journal)
        self.now_ms = end

    def tick(self) -> None:
        self.bench.now_ms = self.now_ms
        self.bench.tick()


def dead_copy(bench: Bench, to: Path) -> Path:
    """The folder as a kill leaves it."""
    shutil.copytree(bench.directory, to)
    return to


def revived(play: Play, to: Path) -> Bench:
    """The shard after a kill, judged up to where it had been: rows in a window end as they had ended."""
    again = Bench(dead_copy(play.bench, to), now_ms=play.now_ms)
    assert again.journal.committed == play.bench.journal.committed
    again.look(play.bench.judge.judged_ms)
    return again


@pytest.mark.parametrize("seed", range(15))
def test_a_replay_brings_the_shard_back_as_it_was(seed: int, tmp_path: Path):
    play = Play(tmp_path / "live", seed)
    for _ in range(120):
        play.step()
    play.bench.commit()
    again = revived(play, tmp_path / "dead")
    assert picture(again) == picture(play.bench)
    assert again.position == play.bench.position


@pytest.mark.parametrize("seed", range(15))
def test_a_replay_raises_and_closes_nothing_that_was_not_raised_and_closed_before(seed: int, tmp_path: Path):
    play = Play(tmp_path / "live", 1_000 + seed)
    for _ in range(120):
        play.step()
    play.bench.commit()
    told = {event.event_id for event in events_in(play.bench.directory)}
    written = intervals_in(play.bench.directory)
    again = Bench(dead_copy(play.bench, tmp_path / "dead"))
    again.decisions.drain(again.journal, play.now_ms)
    again.commit()
    extra = [event for event in events_in(again.directory) if event.event_id not in told]
    # A row that was DOWN, and returned while the verdict that its window opens was being written: live it is
    # in its window first and silently back, after the replay it is told up first. It is up either way.
    assert {event.kind for event in extra} <= {"node.up"}
    assert all((event.node_id, event.since_ms) in play.overtook for event in extra)
    assert intervals_in(again.directory) == written


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_in_between_changes_nothing(seed: int, tmp_path: Path):
    play = Play(tmp_path / "live", 2_000 + seed)
    for _ in range(60):
        play.step()
    commit = play.bench.begin() if play.rng.random() < 0.5 else None
    captured = snapshot_of(play.bench)
    if commit is not None:
        play.bench.end(commit)
    play.bench.commit()
    snapshot.write(play.bench.directory, captured)
    for _ in range(60):
        play.step()
    play.bench.commit()
    whole = picture(play.bench)
    assert picture(revived(play, tmp_path / "with")) == whole
    for path in play.bench.directory.glob("*.snapshot"):
        path.unlink()
    assert picture(revived(play, tmp_path / "without")) == whole


@pytest.mark.parametrize("seed", range(12))
def test_a_torn_tail_is_cut_and_what_lies_before_it_is_all_there(seed: int, tmp_path: Path):
    """Wherever the last write was torn: nothing of it, or blocks of it in their order, never half of one."""
    play = Play(tmp_path / "live", 3_000 + seed)
    for _ in range(60):
        play.step()
    play.bench.commit()
    before, committed = picture(play.bench), play.bench.journal.committed
    judged_ms = play.bench.judge.judged_ms
    play.now_ms += 200_000
    play.beat()
    play.bench.commit()
    dead = dead_copy(play.bench, tmp_path / "dead")
    last = segments(dead)[-1]
    cut = play.rng.randrange(committed, play.bench.journal.committed) - last.position
    if cut < 0:
        return
    with last.path.open("r+b") as file:
        file.seek(cut)
        file.write(bytes(64))
        file.truncate()
    again = Bench(dead)
    again.judge.judged_ms = judged_ms
    assert committed <= again.journal.committed <= play.bench.journal.committed
    if again.journal.committed == committed:
        assert picture(again) == before
    positions = [block.end for block in read(play.bench.directory, 0)]
    assert again.journal.committed in positions


def test_nothing_behind_a_torn_block_is_applied_although_it_looks_whole(tmp_path: Path):
    bench = Bench(tmp_path / "live")
    bench.learn(spec(0))
    bench.beats([0], T0)
    torn = bytearray(encode(Kind.INTERVALS, T0, bytes(37)))
    torn[-1] ^= 1
    last = segments(bench.directory)[-1]
    with last.path.open("r+b") as file:
        file.seek(bench.journal.committed - last.position)
        file.write(bytes(torn) + encode(Kind.GAP, T0, msgspec.msgpack.encode(Gap(0, 1, 2, "stall"))))
    recovered = Bench(bench.directory)
    assert recovered.gaps.recent == []
    assert recovered.journal.committed == bench.journal.committed


def test_a_down_whose_event_was_torn_off_is_told_after_the_restart(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.learn(spec(0))
    bench.beats([0], T0)
    for second in (91, 181):
        bench.look(T0 + second * 1_000)
        bench.commit()
    (event,) = events_in(tmp_path)
    block = next(block for block in read(tmp_path, 0) if block.kind == Kind.EVENTS)
    last = segments(tmp_path)[-1]
    with last.path.open("r+b") as file:
        file.truncate(block.position - last.position + 30)
    again = Bench(tmp_path)
    assert again.states() == [DOWN]
    again.decisions.drain(again.journal, T0 + 200_000)
    again.commit()
    (told,) = events_in(tmp_path)
    assert (told.event_id, told.kind, told.since_ms) == (event.event_id, "node.down", T0 + TTL)


def crossing(bench: Bench, *, first_ms: int, then_ms: int) -> list[Event]:
    """Silence up to `then_ms` is judged while a beat received after it is being committed."""
    bench.learn(spec(0))
    bench.beats([0], T0)
    if first_ms:
        bench.look(first_ms)
        bench.commit()
    bench.beat(0, then_ms + 1)
    commit = bench.begin()
    bench.look(then_ms)
    bench.end(commit)
    bench.commit()
    return events_in(bench.directory)


def test_a_down_overtaken_by_a_beat_in_flight_is_told_down_and_up_and_the_replay_agrees(tmp_path: Path):
    live = Bench(tmp_path / "live")
    told = crossing(live, first_ms=T0 + 91_000, then_ms=T0 + 180_000)
    assert [(event.kind, event.since_ms) for event in told] == [
        ("node.down", T0 + TTL),
        ("node.up", T0 + 180_001),
    ]
    again = Bench(dead_copy(live, tmp_path / "dead"))
    again.judge.judged_ms = live.judge.judged_ms
    assert picture(again) == picture(live)
    again.decisions.drain(again.journal, T0 + 190_000)
    again.commit()
    assert {event.event_id for event in events_in(again.directory)} == {event.event_id for event in told}


def test_a_suspicion_overtaken_by_a_beat_in_flight_dates_the_return_by_that_beat(tmp_path: Path):
    live = Bench(tmp_path / "live")
    assert crossing(live, first_ms=0, then_ms=T0 + 100_000) == []
    assert live.states() == [UP]
    assert live.table.row.since_ms[0] == T0 + 100_001
    again = Bench(dead_copy(live, tmp_path / "dead"))
    again.judge.judged_ms = live.judge.judged_ms
    assert picture(again) == picture(live)


@pytest.mark.parametrize("before", [NEW, STOPPED])
def test_a_window_that_closes_while_a_beat_is_committed_ends_in_up(before: int, tmp_path: Path):
    live = Bench(tmp_path / "live")
    window = Window("w", None, T0 + 10_000, T0 + 20_000, False)
    live.learn(spec(0, windows=(window,)))
    if before == STOPPED:
        live.beats([0], T0, flags=FLAG_STOPPING)
    live.look(T0 + 10_000)
    live.commit()
    assert live.states() == [MAINTENANCE]
    live.beat(0, T0 + 20_001, counter=5)
    commit = live.begin()
    live.look(T0 + 20_000)
    live.end(commit)
    live.commit()
    assert live.states() == [UP]
    again = Bench(dead_copy(live, tmp_path / "dead"))
    assert again.states() == [UP]
    assert again.table.row.since_ms[0] == live.table.row.since_ms[0]
    again.decisions.drain(again.journal, T0 + 30_000)
    again.commit()
    assert events_in(again.directory) == events_in(live.directory)


def test_a_restart_judges_nobody_by_itself(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.learn(*(spec(row) for row in range(3)))
    bench.beats(range(3), T0)
    bench.look(T0 + TTL)
    bench.commit()
    again = Bench(tmp_path, now_ms=T0 + 10_000_000)
    assert again.states() == [SUSPECT] * 3
    assert events_in(tmp_path) == []


def test_the_last_that_was_committed_is_the_last_tick_or_beat(tmp_path: Path):
    bench = Bench(tmp_path)
    assert bench.recovered.last_ms is None
    bench.learn(spec(0))
    bench.beats([0], T0 + 500)
    assert Bench(dead_copy(bench, tmp_path.parent / "a")).recovered.last_ms == T0 + 500
    bench.now_ms = T0 + 1_000
    bench.tick()
    recovered = Bench(dead_copy(bench, tmp_path.parent / "b")).recovered
    assert (recovered.last_ms, recovered.orderly) == (T0 + 1_000, False)
    bench.tick(last=True)
    assert Bench(dead_copy(bench, tmp_path.parent / "c")).recovered.orderly


def test_a_replayed_frame_is_stale_after_a_restart_too(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.learn(spec(0))
    bench.beats([0], T0, counter=7)
    again = Bench(tmp_path)
    again.beats([0], T0, counter=7)
    again.beats([0], T0, counter=8)
    assert again.codes() == [2, 1]


def test_degraded_survives_a_restart(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.learn(*(spec(row) for row in range(30)))
    bench.beats(range(30), T0)
    bench.look(T0 + TTL)
    bench.commit()
    assert bench.judge.breaker.phase == "degraded"
    again = Bench(tmp_path)
    assert again.judge.breaker == bench.judge.breaker
