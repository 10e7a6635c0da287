"""Maintenance windows of whole nodes: when a row enters them, leaves them, and what they do to deadlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.core.records import BASE_UP, Window
from engine.core.step import DOWN, MAINTENANCE, NEW, STOPPED, SUSPECT, UP, WindowClosed, WindowOpened
from engine.windows import Windows
from np1.codec import FLAG_STOPPING
from tests.engine.rows_world import T0, spec, workload
from tests.engine.shard_world import Bench, events_in, intervals_in

TTL, INTERVAL = 90_000, 60_000
MINUTE = 60_000


def window(from_ms: int, to_ms: int, *, workload_id: str | None = None) -> Window:
    return Window(f"w{from_ms}", workload_id, T0 + from_ms, T0 + to_ms, False)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.learn(spec(0), spec(1))
    made.beats([0, 1], T0)
    return made


def told(bench: Bench) -> list[tuple[str, int]]:
    bench.commit()
    return [(event.kind, event.since_ms - T0) for event in events_in(bench.directory)]


def test_a_row_is_in_maintenance_exactly_while_a_window_is_open(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 20_000),)))
    for at, state in ((9_999, UP), (10_000, MAINTENANCE), (19_999, MAINTENANCE), (20_000, UP)):
        bench.look(T0 + at)
        assert bench.states() == [state, UP], at
    assert told(bench) == []


def test_windows_that_touch_or_overlap_are_one_stay(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 20_000), window(20_000, 30_000), window(25_000, 40_000))))
    for at in range(10_000, 40_000, 2_500):
        bench.look(T0 + at)
        assert bench.states()[0] == MAINTENANCE
    bench.look(T0 + 40_000)
    assert bench.states()[0] == UP


def test_a_window_of_one_workload_does_nothing_to_the_verdict(bench: Bench):
    bench.learn(spec(0, windows=(window(0, 1_000_000, workload_id=workload(0, 1)),)))
    bench.look(T0 + 10)
    assert bench.states() == [UP, UP]


def test_who_is_silent_in_a_window_is_not_judged_and_its_deadlines_start_afresh_after_it(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 600_000),)))
    bench.look(T0 + 10_000)
    bench.look(T0 + 599_999)
    assert bench.states() == [MAINTENANCE, DOWN]
    steps = ((0, UP), (TTL - 1, UP), (TTL, SUSPECT), (3 * INTERVAL - 1, SUSPECT), (3 * INTERVAL, DOWN))
    for after, state in steps:
        bench.look(T0 + 600_000 + after)
        assert bench.states()[0] == state, after
    assert ("node.down", TTL) in told(bench), "since is the end of coverage, windows ignored"


def test_what_the_last_beat_vouched_for_ends_in_time_also_inside_a_window(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 600_000),)))
    bench.look(T0 + 10_000)
    bench.look(T0 + TTL - 1)
    bench.commit()
    assert intervals_in(bench.directory) == set()
    bench.look(T0 + TTL)
    bench.commit()
    ended = {(row[2], row[3] - T0, row[4] - T0) for row in intervals_in(bench.directory)}
    assert ended == {(BASE_UP, 0, TTL)}


def test_a_node_that_beats_through_its_window_is_up_after_it_without_a_word(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 200_000),)))
    bench.look(T0 + 10_000)
    for at in range(60_000, 240_000, 60_000):
        bench.beats([0, 1], T0 + at)
        bench.look(T0 + at + 1)
    bench.look(T0 + 200_000)
    assert bench.states() == [UP, UP]
    assert told(bench) == []


@pytest.mark.parametrize("stopped", [True, False])
def test_who_never_beat_or_had_stopped_is_so_again_after_a_window(bench: Bench, stopped: bool):
    bench.learn(spec(2))
    if stopped:
        bench.beats([2], T0 + 1, flags=FLAG_STOPPING)
    bench.learn(spec(2, windows=(window(10_000, 20_000),)))
    bench.look(T0 + 10_000)
    assert bench.states()[2] == MAINTENANCE
    bench.look(T0 + 20_000)
    assert bench.states()[2] == (STOPPED if stopped else NEW)
    bench.look(T0 + 10_000_000)
    assert bench.states()[2] == (STOPPED if stopped else NEW)


def test_a_stop_inside_a_window_is_told_and_the_window_goes_on(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 100_000),)))
    bench.look(T0 + 10_000)
    bench.beats([0], T0 + 30_000, flags=FLAG_STOPPING)
    bench.look(T0 + 30_001)
    assert bench.states()[0] == MAINTENANCE
    bench.look(T0 + 100_000)
    assert bench.states()[0] == STOPPED
    assert told(bench) == [("node.stopped", 30_000)]


def test_a_window_that_is_taken_away_while_it_is_open_is_closed_at_once(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 10_000_000),)))
    bench.look(T0 + 10_000)
    bench.learn(spec(0))
    bench.look(T0 + 30_000)
    assert bench.states()[0] == UP
    bench.look(T0 + 30_000 + TTL)
    assert bench.states()[0] == SUSPECT
    assert bench.windows.held() == {}


def test_after_a_window_that_was_over_before_anybody_looked_deadlines_start_afresh(bench: Bench):
    bench.learn(spec(0, windows=(window(10_000, 20_000),)))
    bench.look(T0 + 30_000)
    assert bench.states()[0] == UP
    assert bench.windows.held() == {}
    bench.look(T0 + 20_000 + TTL - 1)
    assert bench.states() == [UP, SUSPECT]
    bench.commit()
    again = Bench(bench.directory)
    for at, state in ((TTL - 1, UP), (TTL, SUSPECT), (3 * INTERVAL - 1, SUSPECT), (3 * INTERVAL, DOWN)):
        again.look(T0 + 20_000 + at)
        assert again.states()[0] == state, at


@pytest.mark.parametrize(("returns_at", "up"), [(650_000, MAINTENANCE), (950_000, UP)])
def test_who_was_told_down_hears_of_the_return_in_a_window_or_after_it(
    bench: Bench, tmp_path: Path, returns_at: int, up: int
):
    bench.learn(spec(0, windows=(window(600_000, 900_000),)))
    bench.beats([1], T0 + 60_000)
    for at in (TTL, 3 * INTERVAL, 600_000):
        bench.look(T0 + at)
    assert told(bench)[0] == ("node.down", TTL)
    if returns_at > 900_000:
        bench.look(T0 + 900_000)
        assert bench.states()[0] == UP, "deadlines began afresh"
    bench.beats([0], T0 + returns_at)
    bench.beats([0], T0 + returns_at + 1_000)
    assert bench.states()[0] == up
    bench.look(T0 + 960_000)
    expected = {("node.down", TTL), ("node.up", returns_at)}
    assert set(told(bench)) - {("node.down", 60_000 + TTL)} == expected
    again = Bench(bench.directory)
    again.decisions.drain(again.journal, T0 + 960_000)
    again.beats([0], T0 + 970_000)
    assert set(told(again)) - {("node.down", 60_000 + TTL)} == expected


def test_a_window_told_of_again_after_its_end_is_not_taken_twice(bench: Bench):
    old = window(10_000, 20_000)
    bench.learn(spec(0, windows=(old,)))
    bench.look(T0 + 10_000)
    bench.look(T0 + 20_000)
    bench.commit()
    verdicts = bench.decisions.statistics().transitions[MAINTENANCE]
    bench.learn(spec(0, windows=(old,)))
    bench.look(T0 + 50_000)
    assert bench.decisions.statistics().transitions[MAINTENANCE] == verdicts == 1


def test_a_window_that_nobody_saw_does_nothing_to_one_that_never_beat_or_stopped_or_beat_since(bench: Bench):
    bench.learn(*(spec(row, windows=(window(10_000, 20_000),)) for row in range(3)))
    bench.beats([0], T0 + 5_000, flags=FLAG_STOPPING)
    bench.beats([1], T0 + 20_000)
    bench.look(T0 + 30_000)
    assert bench.states() == [STOPPED, UP, NEW]
    assert MAINTENANCE not in bench.decisions.statistics().transitions


def test_a_closed_window_is_forgotten_and_nothing_grows():
    windows = Windows()
    states = np.zeros(100, np.uint8)
    for index in range(100):
        windows.replace(index, (window(index, index + 10), window(50, 60, workload_id="w")))
    for at in range(0, 200):
        for index, change in windows.changes(T0 + at, states, lambda _index: T0 + 1_000):
            states[index] = MAINTENANCE if isinstance(change, WindowOpened) else UP
    assert (states == UP).all()
    assert windows.held() == {}


def test_each_change_names_the_edge_not_the_look():
    windows = Windows()
    windows.replace(3, (window(1_000, 2_000),))
    states = np.zeros(4, np.uint8)
    assert windows.changes(T0 + 1_500, states, lambda _index: T0) == [(3, WindowOpened(T0 + 1_000))]
    states[3] = MAINTENANCE
    assert windows.changes(T0 + 2_900, states, lambda _index: T0) == [(3, WindowClosed(T0 + 2_000))]
