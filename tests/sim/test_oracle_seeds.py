"""The oracle in random worlds: it agrees with itself, keeps the promises of LIVENESS.md, and the worlds are
rich enough that every bent rule shows in some of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from tests.sim.generate import generate
from tests.sim.history import Frame, History
from tests.sim.observed import KINDS
from tests.sim.oracle import Oracle, check
from tests.sim.play import play
from tests.sim.reference import run_reference
from tests.sim.script import ClockStep, EngineClock
from tests.sim.stories import TOLERANCE_MS
from tests.sim.test_oracle_bugs import BENT

SEEDS = range(12)


@cache
def world(seed: int) -> tuple[History, Oracle]:
    history = play(generate(seed))
    return history, Oracle(history, tolerance_ms=TOLERANCE_MS)


def test_a_seed_gives_the_same_script_and_the_same_history():
    assert generate(5) == generate(5)
    assert play(generate(5)) == play(generate(5))
    assert generate(5) != generate(6)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_engine_that_does_everything_right_passes(seed: int):
    history, oracle = world(seed)
    questions = [(q.workload_id, q.from_ms, q.to_ms) for q in generate(seed).questions]
    assert check(history, run_reference(oracle, questions), tolerance_ms=TOLERANCE_MS) == []


def test_the_worlds_contain_everything():
    codes: Counter[int | None] = Counter()
    kinds: Counter[str] = Counter()
    events: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for seed in SEEDS:
        _, oracle = world(seed)
        observed = run_reference(oracle)
        codes.update(one.code for one in oracle.judged())
        events.update(event.kind for event in observed.events or ())
        kinds.update(kind for answer in observed.answers for kind, ms in answer.ms.items() if ms)
        causes.update(gap.cause for _, gap in oracle.gaps())
    assert set(codes) == {None, 0, 1, 2, 3, 4, 5, 8}
    assert set(kinds) == set(KINDS)
    assert set(events) == {"node.down", "node.up", "node.stopped", "workload.down", "workload.up"}
    assert set(causes) == {"crash", "stall", "disk_full", "drops"}


@pytest.mark.parametrize("bent", sorted({bent for _, bent, _ in BENT}, key=lambda b: b.__name__))
def test_every_bent_rule_shows_in_some_world(bent: type):
    for seed in range(60):
        history, _ = world(seed)
        wrong = run_reference(Oracle(history, tolerance_ms=TOLERANCE_MS, rules=bent()))
        if check(history, wrong, tolerance_ms=TOLERANCE_MS):
            return
    pytest.fail(f"{bent.__name__} was never noticed")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_instant_is_one_kind_and_parts_sum_to_the_whole(seed: int):
    history, oracle = world(seed)
    for workload_id in oracle.workloads():
        _, slot = oracle.place(workload_id)
        start, end = slot.created_ms, history.as_of_ms
        whole = oracle.compose(workload_id, from_ms=start, to_ms=end)
        assert sum(whole.ms.values()) == whole.to_ms - whole.from_ms
        assert [i[1] for i in whole.intervals[1:]] == [i[2] for i in whole.intervals[:-1]]
        middle = (start + end) // 2
        halves = [
            oracle.compose(workload_id, from_ms=a, to_ms=b) for a, b in ((start, middle), (middle, end))
        ]
        for kind in KINDS:
            assert whole.ms[kind] == sum(half.ms[kind] for half in halves)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_instant_changes_between_two_edges(seed: int):
    """The shortcut of asking only each piece's first millisecond: its middle and its last say the same."""
    history, oracle = world(seed)
    for workload_id in oracle.workloads():
        records = oracle.records(workload_id, history.as_of_ms)
        composed = oracle.compose(workload_id, from_ms=0, to_ms=history.as_of_ms)
        for kind, a, b in composed.intervals:
            assert {records.kind_at(x)[0] for x in (a, (a + b) // 2, b - 1)} == {kind}


@pytest.mark.parametrize("seed", SEEDS)
def test_acknowledged_up_is_in_up_and_up_is_in_what_valid_beats_vouched_for(seed: int):
    history, oracle = world(seed)
    observed = run_reference(oracle)
    for workload_id in oracle.workloads():
        row, slot = oracle.place(workload_id)
        if any(lease.workload_id == workload_id for lease in row.leases):
            continue
        records = oracle.records(workload_id, history.as_of_ms)
        beats = oracle.beats(row)
        healthy = [b for b in beats if not b.stopping and (b.mask & b.plane0 & ~b.plane1) >> slot.slot & 1]
        for beat in healthy:
            ack = observed.acks.get(beat.frame_id)
            vouched = 0 if ack is None else ack.ttl_ms or 0
            later = [
                b.t_ms for b in beats if b.index > beat.index and (b.stopping or b.mask >> slot.slot & 1)
            ]
            end = min([beat.t_ms + vouched, *later[:1]])
            if beat.t_ms < end:
                assert records.kind_at(beat.t_ms)[0] == records.kind_at(end - 1)[0] == "up"
        up = oracle.compose(workload_id, from_ms=0, to_ms=history.as_of_ms).intervals
        for kind, a, b in up:
            if kind == "up":
                assert any(beat.t_ms <= a < beat.t_ms + beat.ttl_ms for beat in healthy)
                assert any(beat.t_ms < b <= beat.t_ms + beat.ttl_ms for beat in healthy)


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_a_second_copy_of_every_frame_changes_nothing(seed: int):
    history, oracle = world(seed)
    doubled = []
    for record in history.records:
        doubled.append(record)
        if isinstance(record, Frame) and record.seq is not None:
            doubled.append(replace(record, frame_id=record.frame_id + 1_000_000))
    again = Oracle(replace(history, records=tuple(doubled)), tolerance_ms=TOLERANCE_MS)
    for workload_id in oracle.workloads():
        want = oracle.compose(workload_id, from_ms=0, to_ms=history.as_of_ms)
        assert again.compose(workload_id, from_ms=0, to_ms=history.as_of_ms) == want


def test_recorded_time_never_runs_back_and_is_slewed():
    steps = (ClockStep(at_ms=100_000, by_ms=-5_000), ClockStep(at_ms=300_000, by_ms=9_000))
    clock = EngineClock(0, 600_000, drift_ppm=100, steps=steps, restarts_ms=(400_000,))
    times = [clock.recorded_ms(x) for x in range(0, 600_000, 10)]
    assert times == sorted(times)
    assert clock.recorded_ms(99_999) == 99_999 + 9
    assert clock.recorded_ms(200_000) == 200_000 + 9 - 101
    assert clock.recorded_ms(400_000) == 400_000 + 40 - 5_000 + 9_000
