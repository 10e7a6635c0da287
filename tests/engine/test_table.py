"""What a batch of beats does to the table (LIVENESS.md 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.records import BASE_NONE, BASE_STOPPED, BASE_UNHEALTHY, BASE_UP, BASE_UPDATING
from engine.core.step import UP
from engine.rows import apply_spec, halves
from engine.table import Table
from np1.codec import Code
from tests.engine.rows_world import SECRETS, T0, beat, beats, session, spec, table, workload

TTL = 90_000


def closed(rows: Table) -> list[tuple[int, int, int]]:
    """(kind, started, ended) relative to T0, of workload (1, 0)."""
    mine = halves(workload(1, 0))
    return sorted(
        (int(r["kind"]), int(r["started_ms"]) - T0, int(r["ended_ms"]) - T0)
        for r in rows.take_closed()
        if (int(r["hi"]), int(r["lo"])) == tuple(map(int, mine))
    )


def calm(rows: Table) -> None:
    """All actors have decided: everybody is up and nothing is counted."""
    rows.row.state[: rows.rows] = UP
    rows.row.hot[:] = 0
    rows.row.counting[:] = 0
    rows.slot.health[:] = 1
    rows.slot.turning_ms[:] = 0


def test_a_first_beat_opens_a_base_row_for_each_slot_and_is_heard():
    rows = table()
    applied = rows.apply(beat(1, T0, plane0=0b01, plane1=0b10))
    base = int(rows.row.slot_base[1])
    assert rows.slot.kind[base : base + 2].tolist() == [BASE_UP, BASE_UNHEALTHY]
    assert [(index, change.t_ms) for index, change in applied.heard] == [(1, T0)]
    assert applied.codes.tolist() == [Code.OK]
    assert rows.take_first_reports()["at_ms"].tolist() == [T0, T0]


def test_beats_that_say_the_same_in_time_only_move_the_coverage():
    rows = table()
    rows.apply(beat(1, T0))
    calm(rows)
    applied = rows.apply(beats(beat(1, T0 + 60_000), beat(1, T0 + 100_000)))
    assert (applied.heard, applied.said) == ([], [])
    assert rows.row.last_t_ms[1] == T0 + 100_000
    assert closed(rows) == []


def test_a_lapse_ends_the_row_at_its_ttl_and_the_next_beat_begins_another():
    rows = table()
    rows.apply(beat(1, T0))
    calm(rows)
    rows.apply(beat(1, T0 + TTL))
    assert closed(rows) == [(BASE_UP, 0, TTL)]
    assert rows.slot.started_ms[int(rows.row.slot_base[1])] == T0 + TTL


def test_a_differing_beat_a_new_ttl_and_the_end_of_a_gap_each_begin_a_new_row():
    rows = table()
    rows.apply(beat(1, T0))
    rows.apply(beat(1, T0 + 10, plane0=0b00, plane1=0b01))
    rows.apply(beat(1, T0 + 20, plane0=0b00, plane1=0b01, ttl_ms=100_000))
    rows.end_gap(T0 + 25)
    rows.apply(beat(1, T0 + 25, plane0=0b00, plane1=0b01, ttl_ms=100_000))
    assert closed(rows) == [(BASE_UP, 0, 10), (BASE_UNHEALTHY, 10, 20), (BASE_UNHEALTHY, 20, 25)]


def test_a_gap_noticed_after_a_beat_was_received_does_not_cut_it():
    rows = table()
    rows.apply(beat(1, T0))
    rows.end_gap(T0 + 500)
    rows.apply(beat(1, T0 + 400))
    assert closed(rows) == []
    rows.apply(beat(1, T0 + 600))
    assert closed(rows) == [(BASE_UP, 0, 500 + 100)]


def test_a_stop_covers_every_slot_without_ttl_until_the_next_beat():
    rows = table()
    rows.apply(beat(1, T0))
    rows.apply(beat(1, T0 + 10, stopping=True, plane0=0))
    rows.apply(beat(1, T0 + 10 * TTL))
    assert closed(rows) == [(BASE_UP, 0, 10), (BASE_STOPPED, 10, 10 * TTL)]


def test_a_stop_and_the_beat_after_it_in_one_batch_are_both_heard():
    rows = table()
    rows.apply(beat(1, T0))
    calm(rows)
    applied = rows.apply(beats(beat(1, T0 + 10, stopping=True), beat(1, T0 + 20)))
    assert [(c.t_ms - T0, c.stopping) for _, c in applied.heard] == [(10, True), (20, False)]  # type: ignore[union-attr]


def test_two_beats_that_confirm_or_contradict_in_one_batch_are_both_said():
    rows = table()
    rows.apply(beat(1, T0))
    calm(rows)
    ill = {"plane0": 0b10, "plane1": 0b01}
    applied = rows.apply(beats(beat(1, T0 + 10, **ill), beat(1, T0 + 20), beat(1, T0 + 30, **ill)))
    first = int(rows.row.slot_base[1])
    assert [s.kind for at, s in applied.said if at == first] == [BASE_UNHEALTHY, BASE_UP, BASE_UNHEALTHY]


def test_a_slot_that_the_map_leaves_out_holds_until_its_own_end():
    rows = table()
    rows.apply(beat(1, T0))
    rows.apply(beat(1, T0 + 1_000, slots=0b10, plane0=0b10))
    rows.apply(beat(1, T0 + 80_000, slots=0b10, plane0=0b10))
    rows.close_detached(T0 + TTL - 1)
    assert closed(rows) == []
    rows.close_detached(T0 + TTL)
    assert closed(rows) == [(BASE_UP, 0, TTL)]
    assert rows.detached == []


def test_time_of_a_row_never_runs_back():
    rows = table()
    applied = rows.apply(beats(beat(1, T0 + 50), beat(1, T0), beat(1, T0 + 60)))
    assert (applied.t_ms - T0).tolist() == [50, 50, 60]
    assert rows.row.last_t_ms[1] == T0 + 60


def test_codes_tell_early_resync_and_rekey_in_their_order():
    rows = table()
    rows.apply(beats(beat(1, T0), beat(2, T0)))
    apply_spec(rows, spec(1, workloads=3, current=session(slots=0b11)), SECRETS)
    rekey = session(slots=0b11, opened_ms=T0 - 90, expires_ms=T0 + 10)
    apply_spec(rows, spec(2, workloads=3, current=rekey), SECRETS)
    codes = rows.apply(
        beats(beat(1, T0 + 5), beat(2, T0 + 5), beat(3, T0), beat(3, T0 + 14_999), beat(3, T0 + 30_000))
    ).codes
    assert codes.tolist() == [Code.RESYNC, Code.REKEY, Code.OK, Code.EARLY, Code.OK]


def test_resync_is_no_longer_told_to_an_old_generation_once_a_newer_one_was_heard():
    rows = table()
    new = session(2, slots=0b111, opened_ms=T0)
    apply_spec(rows, spec(1, workloads=3, current=new, previous=session(1)), SECRETS)
    assert rows.apply(beat(1, T0)).codes.tolist() == [Code.RESYNC]
    rows.generation.heard[2 * 1 + 0] = 1
    assert rows.apply(beat(1, T0 + 30_000)).codes.tolist() == [Code.OK]


def test_a_manager_is_told_to_fetch_the_desired_state_until_the_registry_says_it_has():
    rows = table(2)
    apply_spec(rows, spec(0, resync=True), SECRETS)
    both = np.concatenate([beat(0, T0), beat(1, T0)])
    assert rows.apply(both).codes.tolist() == [Code.RESYNC, Code.OK]
    assert rows.apply(beat(0, T0 + 1_000)).codes.tolist() == [Code.RESYNC]  # over EARLY
    apply_spec(rows, spec(0, resync=True, current=session(expires_ms=T0 + 60_000)), SECRETS)
    assert rows.apply(beat(0, T0 + 59_000)).codes.tolist() == [Code.REKEY]  # which is over RESYNC
    apply_spec(rows, spec(0), SECRETS)
    assert rows.apply(beat(0, T0 + 100_000)).codes.tolist() == [Code.OK]


def test_a_silent_row_is_closed_in_bulk_at_the_end_of_its_coverage():
    rows = table()
    rows.apply(beats(beat(1, T0), beat(2, T0 + 5)))
    rows.close_silent(np.array([1, 2]))
    found = rows.take_closed()
    assert sorted((found["ended_ms"] - T0).tolist()) == [TTL, TTL, TTL + 5, TTL + 5]
    base = int(rows.row.slot_base[1])
    assert rows.slot.kind[base : base + 2].tolist() == [BASE_NONE, BASE_NONE]


def test_growing_keeps_what_was_said():
    rows = table(1)
    rows.apply(beat(0, T0))
    for row in range(1, 200):
        apply_spec(rows, spec(row, workloads=3), SECRETS)
    apply_spec(rows, spec(0, workloads=40, current=session(slots=0b11)), SECRETS)
    base = int(rows.row.slot_base[0])
    assert rows.row.last_t_ms[0] == T0
    assert rows.slot.kind[base : base + 3].tolist() == [BASE_UP, BASE_UP, BASE_NONE]
    assert rows.slot.row_index[base + 39] == 0


SAY = st.tuples(
    st.integers(0, 2),
    st.integers(1, 40_000),
    st.sampled_from([0b11, 0b01, 0b00]),
    st.sampled_from([0, 0b10]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SAY, min_size=1, max_size=25), st.integers(1, 24))
def test_one_batch_or_many_make_the_same_rows(plan: list[Any], cut: int):
    t, each = T0, []
    for row, pause, plane0, plane1, stopping in plan:
        t += pause
        each.append(beat(row, t, plane0=plane0, plane1=plane1, stopping=stopping and plane0 == 0))
    whole, parts = table(3), table(3)
    whole.apply(beats(*each))
    for start in range(0, len(each), cut):
        parts.apply(beats(*each[start : start + cut]))
    assert sorted(whole.take_closed().tolist()) == sorted(parts.take_closed().tolist())
    for name in ("kind", "started_ms", "own_t_ms", "open_ttl_ms", "first_report_ms"):
        assert (whole.slot.arrays[name][: whole.slots] == parts.slot.arrays[name][: parts.slots]).all(), name
    assert (whole.row.last_t_ms[:3] == parts.row.last_t_ms[:3]).all()


def test_updating_is_a_kind_of_its_own():
    rows = table()
    rows.apply(beat(1, T0, plane0=0b01, plane1=0b01))
    assert rows.slot.kind[int(rows.row.slot_base[1])] == BASE_UPDATING
