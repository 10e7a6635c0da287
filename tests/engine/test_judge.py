"""Judging silence: when, whom not yet, and when the judge suspects itself (LIVENESS.md 3 and 4)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine import snapshot
from engine.core.records import BASE_UP, Gap
from engine.core.step import DOWN, LOST, STOPPED, SUSPECT, UP
from engine.judge import BreakerBlock
from engine.settings import LivenessSettings
from np1.codec import FLAG_STOPPING
from tests.engine.rows_world import T0, session, spec
from tests.engine.shard_world import Bench, events_in, intervals_in, snapshot_of

TTL, INTERVAL = 90_000, 60_000
GRACE = 300_000


def bench_of(directory: Path, rows: int, *, canaries: int = 0, **liveness: int) -> Bench:
    settings = LivenessSettings(**{"degraded_rows_min": 1_000, **liveness})
    made = Bench(directory, liveness=settings)
    kinds = ["node"] * rows + ["canary"] * canaries
    made.learn(*(spec(row, workloads=1, kind=kind) for row, kind in enumerate(kinds)))
    made.beats(range(rows + canaries), T0, plane0=1)
    return made


def told(bench: Bench) -> list[tuple[str, int]]:
    bench.commit()
    return sorted((event.kind, event.since_ms - T0) for event in events_in(bench.directory))


def look(bench: Bench, at: int) -> list[int]:
    bench.look(T0 + at)
    bench.commit()
    return bench.states()


def test_silence_makes_up_suspect_down_and_lost_each_at_its_deadline_and_tells_down_once(tmp_path: Path):
    bench = bench_of(tmp_path, 1)
    for at, state in (
        (TTL - 1, UP),
        (TTL, SUSPECT),
        (3 * INTERVAL - 1, SUSPECT),
        (3 * INTERVAL, DOWN),
        (10 * INTERVAL - 1, DOWN),
        (10 * INTERVAL, LOST),
        (100 * INTERVAL, LOST),
    ):
        assert look(bench, at) == [state], at
    assert told(bench) == [("node.down", TTL)]
    assert {(row[2], row[3] - T0, row[4] - T0) for row in intervals_in(tmp_path)} == {(BASE_UP, 0, TTL)}


def test_one_that_stopped_is_never_judged(tmp_path: Path):
    bench = bench_of(tmp_path, 1)
    bench.beats([0], T0 + 1_000, flags=FLAG_STOPPING)
    assert look(bench, 100 * INTERVAL) == [STOPPED]
    assert told(bench) == [("node.stopped", 1_000)]


def test_beats_move_the_deadline_without_being_looked_at_one_by_one(tmp_path: Path):
    bench = bench_of(tmp_path, 3)
    for minute in range(1, 30):
        bench.beats([0, 2], T0 + minute * INTERVAL, plane0=1)
        look(bench, minute * INTERVAL)
    assert bench.states() == [UP, LOST, UP]
    assert told(bench) == [("node.down", TTL)]


def test_time_never_runs_back_for_the_judge(tmp_path: Path):
    bench = bench_of(tmp_path, 1)
    look(bench, TTL)
    bench.judge.look(T0)
    assert bench.judge.judged_ms == T0 + TTL


def test_the_passes_are_bounded_and_go_on_until_nobody_is_due(tmp_path: Path):
    bench = bench_of(tmp_path, 25, wake_slice=10)
    passes = []
    while bench.judge.look(T0 + TTL):
        passes.append(bench.states().count(SUSPECT))
    assert passes == [10, 20]
    assert bench.states() == [SUSPECT] * 25


@pytest.mark.parametrize("cause", ["stall", "crash", "restart", "disk_full"])
def test_the_grace_after_a_gap_holds_back_down_but_not_suspect(tmp_path: Path, cause: str):
    bench = bench_of(tmp_path, 1)
    bench.gaps.record(Gap(0, T0 + 10_000, T0 + 20_000, cause), bench.journal)
    assert look(bench, TTL) == [SUSPECT]
    assert look(bench, 20_000 + GRACE - 1) == [SUSPECT]
    assert look(bench, 20_000 + GRACE) == [DOWN]
    assert told(bench)[0][0] == "node.down"


def test_the_grace_holds_back_lost_as_well(tmp_path: Path):
    bench = bench_of(tmp_path, 1)
    look(bench, TTL)
    assert look(bench, 9 * INTERVAL) == [DOWN]
    bench.gaps.record(Gap(0, T0 + 9 * INTERVAL, T0 + 9 * INTERVAL + 5_000, "stall"), bench.journal)
    assert look(bench, 9 * INTERVAL + 5_000 + GRACE - 1) == [DOWN]
    assert look(bench, 9 * INTERVAL + 5_000 + GRACE) == [LOST]


def test_the_grace_is_a_minute_at_least_for_rows_that_beat_fast(tmp_path: Path):
    bench = Bench(tmp_path, liveness=LivenessSettings(degraded_rows_min=1_000))
    fast = session(ttl_ms=1_500, slots=1, interval_ms=1_000)
    bench.learn(spec(0, workloads=1, interval_ms=1_000, current=fast))
    bench.beats([0], T0, plane0=1)
    bench.gaps.record(Gap(0, T0 + 100, T0 + 1_200, "stall"), bench.journal)
    assert look(bench, 1_200 + 59_999) == [SUSPECT]
    assert look(bench, 1_200 + 60_000) == [LOST], "it was silent for ten intervals all the while"
    assert [kind for kind, _ in told(bench)] == ["node.down"]


def test_who_returns_within_the_grace_is_not_told_of(tmp_path: Path):
    bench = bench_of(tmp_path, 1)
    bench.gaps.record(Gap(0, T0 + 10_000, T0 + 400_000, "crash"), bench.journal)
    look(bench, 400_000)
    bench.beats([0], T0 + 400_000 + GRACE - 10, plane0=1)
    assert look(bench, 400_000 + GRACE) == [UP]
    assert told(bench) == []


def test_drops_hold_back_nothing(tmp_path: Path):
    bench = bench_of(tmp_path, 1)
    look(bench, TTL)
    bench.gaps.record(Gap(0, T0 + 179_000, T0 + 179_250, "drops"), bench.journal)
    assert look(bench, 3 * INTERVAL) == [DOWN]
    assert told(bench) == [("node.down", TTL)]


def test_a_retired_row_is_not_judged_any_more_but_what_it_vouched_for_ends(tmp_path: Path):
    bench = bench_of(tmp_path, 2)
    bench.learn(spec(0, workloads=1, retired=True))
    assert look(bench, 100 * INTERVAL) == [UP, LOST]
    assert told(bench) == [("node.down", TTL)]
    assert len(intervals_in(tmp_path)) == 2
    assert {row[4] - T0 for row in intervals_in(tmp_path)} == {TTL}


def test_nobody_is_judged_by_what_waits_or_is_being_committed(tmp_path: Path):
    """`oldest_unapplied_ms` is what `complete_ms` stands before: frames, datagrams, commits in flight."""
    bench = bench_of(tmp_path, 2)
    assert bench.committer.oldest_unapplied_ms() is None
    bench.beat(1, T0 + 70_000, plane0=1)
    assert bench.committer.oldest_unapplied_ms() == T0 + 70_000
    bench.beat(0, T0 + 60_000, plane0=1)
    bench.intake.verify_queued()
    assert bench.committer.oldest_unapplied_ms() == T0 + 60_000
    commit = bench.begin()
    assert bench.committer.oldest_unapplied_ms() == T0 + 60_000, "streams bring beats out of order"
    bench.beat(0, T0 + 65_000, counter=3, plane0=1)
    assert bench.committer.oldest_unapplied_ms() == T0 + 60_000
    bench.end(commit)
    assert bench.committer.oldest_unapplied_ms() == T0 + 65_000
    bench.commit()
    assert bench.committer.oldest_unapplied_ms() is None


# -- mass silence -------------------------------------------------------------------------------------


def fallen(bench: Bench, *states: int) -> int:
    return sum(bench.states().count(state) for state in states)


def test_twenty_silent_rows_of_many_are_no_mass_silence(tmp_path: Path):
    bench = bench_of(tmp_path, 134, degraded_rows_min=20)
    for minute in (1, 2):
        bench.beats(range(20, 134), T0 + minute * INTERVAL, plane0=1)
    look(bench, TTL)
    assert not bench.judge.degraded, "20 of 134 are less than 15 %"
    look(bench, 3 * INTERVAL - 1)
    assert fallen(bench, SUSPECT) == 20


def test_nineteen_of_a_few_are_no_mass_silence(tmp_path: Path):
    bench = bench_of(tmp_path, 19, degraded_rows_min=20)
    look(bench, TTL)
    assert not bench.judge.degraded
    assert look(bench, 3 * INTERVAL) == [DOWN] * 19


def test_mass_silence_is_told_once_and_holds_back_down_and_lost(tmp_path: Path):
    bench = bench_of(tmp_path, 100, degraded_rows_min=20)
    for minute in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        bench.beats(range(50, 100), T0 + minute * INTERVAL, plane0=1)
        look(bench, minute * INTERVAL + 30_000)
        assert fallen(bench, DOWN, LOST) == 0
        assert bench.judge.degraded == (minute >= 1)
    assert fallen(bench, SUSPECT) == 50
    assert told(bench) == [("shard.degraded", TTL)]
    assert bench.phases == ["degraded"]


def test_rows_that_come_back_end_it_and_nobody_was_told_down(tmp_path: Path):
    bench = bench_of(tmp_path, 100, degraded_rows_min=20)
    bench.beats(range(50, 100), T0 + INTERVAL, plane0=1)
    look(bench, TTL)
    bench.beats(range(100), T0 + 2 * INTERVAL, plane0=1, counter=1)
    look(bench, 2 * INTERVAL + 1)
    assert bench.phases == ["degraded", "normal"]
    assert [kind for kind, _ in told(bench)] == ["shard.degraded", "shard.recovered"]
    assert bench.states() == [UP] * 100


def test_after_ten_intervals_verdicts_are_released_at_most_a_share_per_interval_in_random_order(
    tmp_path: Path,
):
    rows, silent = 200, 100
    bench = bench_of(tmp_path, rows, degraded_rows_min=20)
    down_at: list[tuple[int, int]] = []
    at = 0
    while bench.states().count(DOWN) + bench.states().count(LOST) < silent:
        at += 5_000
        if at % INTERVAL == 0:
            bench.beats(range(silent, rows), T0 + at, plane0=1)
        look(bench, at)
        down_at.append((at, fallen(bench, DOWN, LOST)))
        assert at < 40 * INTERVAL
    begun = TTL + 10 * INTERVAL
    assert all(number == 0 for when, number in down_at if when <= begun)
    share = 0.15 * rows
    for when, number in down_at:
        if bench.phases and when > begun and number < silent:
            normal = rows - number - (silent - number)
            over = (silent - number) <= 0.15 * (normal + silent - number)
            assert over or number <= share * (when - begun) / INTERVAL + 1
    assert bench.phases == ["degraded", "releasing", "normal"]
    first = [event.node_id for event in events_in(tmp_path) if event.kind == "node.down"]
    assert len(first) == silent
    assert first != sorted(first), "in random order"
    assert [kind for kind, _ in told(bench) if kind.startswith("shard")] == [
        "shard.degraded",
        "shard.recovered",
    ]


def released_until(bench: Bench, rows: int, silent: int, until: int) -> None:
    """The others beat on; `silent` rows do not, up to `until`."""
    for at in range(bench.now_ms - T0 + 5_000, until + 1, 5_000):
        if at % INTERVAL == 0:
            bench.beats(range(silent, rows), T0 + at, plane0=1)
        look(bench, at)


def test_a_grace_in_the_midst_of_the_release_saves_up_nothing(tmp_path: Path):
    bench = bench_of(tmp_path, 200, degraded_rows_min=20)
    released_until(bench, 200, 100, TTL + 11 * INTERVAL)
    assert bench.phases == ["degraded", "releasing"]
    down = fallen(bench, DOWN, LOST)
    assert 20 <= down <= 31
    now = bench.now_ms - T0
    bench.gaps.record(Gap(0, T0 + now, T0 + now + 2_000, "stall"), bench.journal)
    released_until(bench, 200, 100, now + 2_000 + GRACE + 5_000)
    assert fallen(bench, DOWN, LOST) <= down + 31, "at most a share in the interval after the grace"
    released_until(bench, 200, 100, now + GRACE + 2 * INTERVAL)
    assert fallen(bench, DOWN, LOST) > down + 15


@pytest.mark.parametrize("from_snapshot", [True, False])
def test_a_restart_in_the_midst_of_the_release_goes_on_counting(tmp_path: Path, from_snapshot: bool):
    bench = bench_of(tmp_path, 200, degraded_rows_min=20)
    released_until(bench, 200, 100, TTL + 10 * INTERVAL + 45_000)
    assert bench.judge.breaker.phase == "releasing"
    assert bench.judge.breaker.released == fallen(bench, DOWN, LOST) > 10
    if from_snapshot:
        snapshot.write(tmp_path, snapshot_of(bench))
    again = Bench(tmp_path)
    assert again.judge.breaker == bench.judge.breaker


def test_what_was_journaled_before_releases_were_counted_is_still_read():
    block = msgspec.msgpack.encode({"phase": "releasing", "since_ms": 7})
    assert msgspec.msgpack.decode(block, type=BreakerBlock) == BreakerBlock("releasing", 7, 0)


def canary_gap(bench: Bench) -> list[Gap]:
    return [gap for gap in bench.gaps.recent if gap.cause == "degraded"]


def test_only_a_canary_that_was_missed_and_returned_makes_mass_silence_a_gap(tmp_path: Path):
    bench = bench_of(tmp_path, 60, canaries=2, degraded_rows_min=20)
    look(bench, TTL)
    assert bench.judge.degraded
    assert canary_gap(bench) == []
    bench.beats(range(62), T0 + 150_000, plane0=1)
    look(bench, 150_001)
    (gap,) = canary_gap(bench)
    assert (gap.from_ms - T0, gap.to_ms - T0) == (INTERVAL, 150_000)
    assert bench.phases == ["degraded", "normal"]


def test_without_canaries_mass_silence_is_no_gap(tmp_path: Path):
    bench = bench_of(tmp_path, 60, degraded_rows_min=20)
    look(bench, TTL)
    bench.beats(range(60), T0 + 150_000, plane0=1)
    look(bench, 150_001)
    assert bench.phases == ["degraded", "normal"]
    assert bench.gaps.recent == []


def test_canaries_that_are_heard_prove_that_we_listen(tmp_path: Path):
    bench = bench_of(tmp_path, 60, canaries=2, degraded_rows_min=20)
    for minute in (1, 2, 3):
        bench.beats([60, 61], T0 + minute * INTERVAL, plane0=1)
        look(bench, minute * INTERVAL + 30_000)
    assert bench.judge.degraded
    bench.beats(range(62), T0 + 4 * INTERVAL, plane0=1)
    look(bench, 4 * INTERVAL + 1)
    assert bench.gaps.recent == []


def test_of_a_canary_nobody_is_told(tmp_path: Path):
    bench = bench_of(tmp_path, 1, canaries=1)
    look(bench, TTL)
    look(bench, 3 * INTERVAL)
    assert told(bench) == [("node.down", TTL)]


def test_a_row_whose_actor_is_set_aside_is_not_judged_but_what_it_vouched_for_ends(tmp_path: Path):
    bench = bench_of(tmp_path, 2)
    bench.actors.aside = [0]
    bench.table.row.hot[0] = 1  # as a crash leaves it
    look(bench, TTL)
    look(bench, TTL + 1_000)
    assert len(intervals_in(tmp_path)) == 2
    bench.beats([0], T0 + 200_000, plane0=1)
    for at in range(201_000, 200_000 + 20 * INTERVAL, 500):
        bench.look(T0 + at)
    bench.commit()
    assert bench.states() == [UP, LOST]
    vouched = {(row[3] - T0, row[4] - T0) for row in intervals_in(tmp_path)}
    assert vouched == {(0, TTL), (200_000, 200_000 + TTL)}, "all is in history before its hour is over"
    assert told(bench) == [("node.down", TTL)]
    bench.actors.aside = []
    bench.judge.let_in(0)
    assert look(bench, 200_000 + 20 * INTERVAL) == [LOST, LOST]
    assert told(bench) == [("node.down", TTL), ("node.down", 200_000 + TTL)]


@pytest.mark.parametrize(
    ("before", "stopping", "after", "expected"),
    [
        (DOWN, False, UP, "node.up"),
        (UP, True, STOPPED, "node.stopped"),
        (UP, False, UP, None),
        (DOWN, None, DOWN, None),
    ],
)
def test_one_that_is_let_in_again_hears_of_the_beats_it_missed(
    tmp_path: Path, before: int, stopping: bool | None, after: int, expected: str | None
):
    bench = bench_of(tmp_path, 1)
    at = 30_000
    if before == DOWN:
        at = 3 * INTERVAL + 1_000
        look(bench, TTL)
        look(bench, 3 * INTERVAL)
    bench.actors.aside = [0]
    bench.table.row.hot[0] = 1
    if stopping is not None:
        bench.beats([0], T0 + at, plane0=1, flags=FLAG_STOPPING if stopping else 0)
    assert bench.states() == [before]
    bench.actors.aside = []
    bench.judge.let_in(0)
    assert look(bench, at + 1_000) == [after]
    down = [("node.down", TTL)] if before == DOWN else []
    assert told(bench) == down + ([(expected, at)] if expected else [])


def test_a_row_whose_change_was_lost_is_looked_at_again(tmp_path: Path):
    bench = bench_of(tmp_path, 2)
    look(bench, TTL)
    bench.table.row.deadline_ms[:2] = 2**62
    bench.judge.look_again(0)
    assert look(bench, 3 * INTERVAL) == [DOWN, SUSPECT]


def test_statistics_name_the_phase_and_how_many_are_silent(tmp_path: Path):
    bench = bench_of(tmp_path, 30, degraded_rows_min=20)
    look(bench, TTL)
    figures = bench.judge.statistics()
    assert (figures.phase, figures.suspect, figures.watched) == ("degraded", 30, 30)
    assert np.isfinite(figures.judged_ms)
