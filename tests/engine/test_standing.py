"""What a shard says of licensed workloads, and whom it answers STANDBY."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core.beats import SAY_DTYPE
from engine.core.records import SHARD_SAYS, Gap, SlotSpec
from engine.journal_blocks import Kind, read
from engine.lease_front import LeaseFront
from engine.reshard_rows import move_rows
from engine.rows import apply_spec, id_of
from engine.standing import let_go_absent
from engine.table import Table
from np1.codec import Code
from tests.engine.rows_world import SECRETS, T0, beat, beats, session, spec, workload
from tests.engine.shard_world import Bench

INTERVAL_MS = 60_000


def standing(row: int = 0, **slots: dict[str, Any]) -> Any:
    """A spec of two workloads; `s0`, `s1`: what is known of their licences."""
    places = (SlotSpec(n, workload(row, n), 0, None, **slots.get(f"s{n}", {})) for n in range(2))
    return spec(row, slots=tuple(places))


CONTENDS: dict[str, Any] = {"licensed": True}
HOLDS: dict[str, Any] = {"licensed": True, "held_from_ms": T0 - 500}
WAITS: dict[str, Any] = {"licensed": True, "standby": True}


def table(**slots: dict[str, Any]) -> Table:
    made = Table(shard=0, shards=1, rows=2, slots=2)
    apply_spec(made, standing(**slots), SECRETS)
    return made


def said(made: Table) -> list[tuple[str, int, int]]:
    """(what, slot, ms after T0)"""
    names = {workload(0, slot): slot for slot in range(2)}
    return [
        (SHARD_SAYS[what], names[id_of(high, low)], at_ms - T0)
        for high, low, at_ms, what, _ in made.take_says().tolist()
    ]


def test_each_beat_of_a_licensed_workload_that_holds_no_lease_is_a_claim():
    made = table(s0=CONTENDS)
    made.apply(beats(beat(0, T0), beat(0, T0 + 5)))
    made.apply(beat(0, T0 + 9))
    assert said(made) == [("claim", 0, 0), ("claim", 0, 5), ("claim", 0, 9)]


def test_of_unlicensed_workloads_and_of_holders_nothing_is_said():
    made = table(s1=HOLDS)
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 5))
    assert said(made) == []
    assert made.row.leasing[0] == 0


@pytest.mark.parametrize(
    ("plane0", "plane1", "claims"), [(1, 0, True), (0, 1, True), (1, 1, True), (0, 0, False)]
)
def test_a_claim_is_a_state_other_than_absent(plane0: int, plane1: int, claims: bool):
    made = table(s0=CONTENDS)
    made.apply(beat(0, T0, plane0=plane0, plane1=plane1))
    assert said(made) == ([("claim", 0, 0)] if claims else [])


def test_a_slot_outside_of_the_map_claims_nothing():
    made = table(s0=CONTENDS, s1=CONTENDS)
    made.apply(beat(0, T0, slots=0b10))
    assert said(made) == [("claim", 1, 0)]


def test_a_claim_has_the_recorded_time_which_never_runs_back():
    made = table(s0=CONTENDS)
    made.apply(beats(beat(0, T0 + 8), beat(0, T0 + 3)))
    assert said(made) == [("claim", 0, 8), ("claim", 0, 8)]


def test_who_stands_by_is_answered_so_and_credited_for_the_others():
    made = table(s0=WAITS)
    assert made.apply(beat(0, T0)).codes.tolist() == [Code.STANDBY]
    assert made.apply(beat(0, T0 + 1)).codes.tolist() == [Code.STANDBY]  # over EARLY
    assert made.apply(beat(0, T0 + 2, slots=0b10)).codes.tolist() == [Code.RESYNC]


def test_rekey_and_resync_come_before_standby():
    made = table(s0=WAITS)
    both = (
        SlotSpec(0, workload(0, 0), 0, None, licensed=True, standby=True),
        SlotSpec(1, workload(0, 1), 0, None),
    )
    apply_spec(made, spec(0, slots=both, resync=True), SECRETS)
    assert made.apply(beat(0, T0)).codes.tolist() == [Code.RESYNC]
    ending = session(expires_ms=T0 + 10)
    apply_spec(made, spec(0, slots=both, resync=True, current=ending), SECRETS)
    assert made.apply(beat(0, T0 + 1)).codes.tolist() == [Code.REKEY]


def test_a_stop_lets_all_licences_of_the_row_go_once():
    made = table(s0=HOLDS, s1=CONTENDS)
    made.apply(beat(0, T0))
    said(made)
    made.apply(beat(0, T0 + 7, stopping=True))
    made.apply(beat(0, T0 + 9, stopping=True))
    assert said(made) == [("stopped", 0, 7), ("stopped", 1, 7)]


def test_after_a_stop_the_beats_of_what_held_are_claims_until_a_newer_lease_is_told():
    made = table(s0=HOLDS)
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 7, stopping=True))
    made.apply(beat(0, T0 + 9))
    assert said(made) == [("stopped", 0, 7), ("claim", 0, 9)]
    apply_spec(made, standing(s0=HOLDS), SECRETS)  # of before the stop: it is not settled yet
    made.apply(beat(0, T0 + 11))
    assert ("claim", 0, 11) in said(made)
    apply_spec(made, standing(s0={"licensed": True, "held_from_ms": T0 + 9}), SECRETS)
    made.apply(beat(0, T0 + 13))
    assert said(made) == []


def test_a_stop_in_the_batch_of_a_claim_leaves_no_claim_of_the_same_time():
    made = table(s0=CONTENDS)
    made.apply(beats(beat(0, T0), beat(0, T0, stopping=True)))
    assert said(made) == [("stopped", 0, 0)]


def test_a_grant_that_comes_after_the_stop_is_let_go_again():
    made = table(s0=CONTENDS)
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 7, stopping=True))
    said(made)
    apply_spec(made, standing(s0={"licensed": True, "held_from_ms": T0 + 7}), SECRETS)
    assert said(made) == [("stopped", 0, 8)]
    assert made.row.holds[0] == 0


def test_a_lease_that_ended_elsewhere_is_claimed_by_the_last_beat():
    """A sale: beats since then were not said, for the run held it for all we knew."""
    made = table(s0=HOLDS)
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 5))
    apply_spec(made, standing(s0=CONTENDS), SECRETS)
    assert said(made) == [("claim", 0, 5)]


def test_what_is_absent_for_ten_intervals_is_let_go_and_contends_when_it_returns():
    made = table(s0=HOLDS)
    made.row.state[0] = 1  # up
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 10, plane0=0b10))
    made.apply(beat(0, T0 + 50, plane0=0b10))
    gone_ms = T0 + 10 + 10 * INTERVAL_MS
    let_go_absent(made, gone_ms - 1)
    assert said(made) == []
    let_go_absent(made, gone_ms + 70)
    let_go_absent(made, gone_ms + 80)
    assert said(made) == [("absent", 0, gone_ms - T0)]
    made.apply(beat(0, gone_ms + 90))
    assert said(made) == [("claim", 0, gone_ms + 90 - T0)]


def test_what_returns_before_ten_intervals_keeps_its_lease():
    made = table(s0=HOLDS)
    made.row.state[0] = 1
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 10, plane0=0b10))
    made.apply(beat(0, T0 + 20))
    let_go_absent(made, T0 + 100 * INTERVAL_MS)
    assert said(made) == []


def test_one_that_was_granted_while_absent_is_let_go_in_time():
    made = table(s0=CONTENDS)
    made.row.state[0] = 1
    made.apply(beat(0, T0))
    made.apply(beat(0, T0 + 10, stopping=True))
    made.apply(beat(0, T0 + 20))
    made.apply(beat(0, T0 + 30, plane0=0b10))
    said(made)
    apply_spec(made, standing(s0={"licensed": True, "held_from_ms": T0 + 20}), SECRETS)
    let_go_absent(made, T0 + 30 + 10 * INTERVAL_MS)
    assert said(made) == [("absent", 0, 30 + 10 * INTERVAL_MS)]


def test_one_whose_node_was_not_heard_when_ten_intervals_were_over_lets_go_when_it_is_heard_again():
    """Before that all up to then counted as said: others may have been refused the licence by it."""
    made = table(s0=HOLDS)
    made.row.state[0] = 1
    made.apply(beat(0, T0, plane0=0b10))
    made.row.state[0] = 2  # suspect
    let_go_absent(made, T0 + 10 * INTERVAL_MS + 5)
    assert said(made) == []
    made.apply(beat(0, T0 + 11 * INTERVAL_MS, plane0=0b10))
    made.row.state[0], made.row.since_ms[0] = 1, T0 + 11 * INTERVAL_MS
    let_go_absent(made, T0 + 11 * INTERVAL_MS + 5)
    assert said(made) == [("absent", 0, 11 * INTERVAL_MS)]


def test_who_is_absent_in_a_row_that_moves_for_more_workloads_is_let_go_once():
    made = table(s0=HOLDS)
    made.row.state[0] = 1
    made.apply(beat(0, T0, plane0=0b10))
    more = (*standing(s0=HOLDS).slots, *(SlotSpec(n, workload(0, n), 0, None) for n in range(2, 9)))
    apply_spec(made, spec(0, slots=more), SECRETS)
    let_go_absent(made, T0 + 10 * INTERVAL_MS)
    let_go_absent(made, T0 + 20 * INTERVAL_MS)
    assert said(made) == [("absent", 0, 10 * INTERVAL_MS)]


def test_what_is_retired_or_unbound_says_nothing_more():
    made = table(s0=CONTENDS)
    apply_spec(made, standing(), SECRETS)
    made.apply(beat(0, T0))
    assert said(made) == []


def test_licences_move_with_their_rows_to_another_shard_count():
    old = table(s0=HOLDS, s1=WAITS)
    old.apply(beat(0, T0))
    old.apply(beat(0, T0 + 5, stopping=True))
    new = Table(shard=0, shards=2, rows=2, slots=2)
    move_rows(old, new, np.array([0]))
    apply_spec(new, standing(s0=HOLDS, s1=WAITS), SECRETS)
    assert (new.row.licensed[0], new.row.holds[0], new.row.standby[0]) == (0b11, 0, 0b10)
    assert new.apply(beat(0, T0 + 9)).codes.tolist() == [Code.STANDBY]


# With the journal, the judge and a restart


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.learn(standing(s0=HOLDS, s1=CONTENDS))
    return made


def journaled(bench: Bench) -> list[tuple[str, int]]:
    """What was said of slot 0 and 1 so far, as it went to disk: (what, ms after T0)."""
    blocks = [block for block in read(bench.directory, 0) if block.kind == Kind.SAYS]
    records = [each for block in blocks for each in np.frombuffer(block.payload, SAY_DTYPE).tolist()]
    return [(SHARD_SAYS[what], at_ms - T0) for _, _, at_ms, what, _ in records]


def front_of(bench: Bench) -> LeaseFront:
    bench.actors.settled = lambda: True
    return LeaseFront(bench.table, bench.judge, bench.actors, bench.gaps, bench.committer)


def test_a_lost_row_lets_its_licences_go_at_the_time_at_which_it_was_lost(bench: Bench):
    bench.beats([0], T0)
    for second in range(60, 700, 20):
        bench.look(T0 + second * 1_000)
        bench.commit()
    lost_ms = 10 * INTERVAL_MS
    assert [each for each in journaled(bench) if each[0] == "lost"] == [("lost", lost_ms)] * 2
    bench.beats([0], T0 + 900_000)
    bench.commit()
    assert journaled(bench)[-2:] == [("claim", 900_000)] * 2


def test_claims_and_releases_go_to_the_journal_with_what_follows_from_their_beats(bench: Bench):
    bench.beats([0], T0)
    bench.beats([0], T0 + 5_000)
    bench.beats([0], T0 + 9_000, flags=2)
    bench.commit()
    assert journaled(bench) == [("claim", 0), ("claim", 5_000), ("stopped", 9_000), ("stopped", 9_000)]


def test_a_crash_loses_nothing_that_was_said(bench: Bench):
    """Said again it is the same: whoever settles knows it by its time."""
    bench.beats([0], T0)
    bench.beats([0], T0 + 9_000, flags=2)
    again = Bench(bench.directory, now_ms=T0 + 10_000)
    again.decisions.drain(again.journal, again.now_ms)
    again.commit()
    assert {("claim", 0), ("stopped", 9_000)} <= set(journaled(again))
    assert again.table.row.holds[0] == 0
    again.beats([0], T0 + 20_000)
    again.commit()
    assert journaled(again)[-2:] == [("claim", 20_000)] * 2


def test_everything_is_said_up_to_where_the_judge_has_told_whoever_was_due(bench: Bench):
    front = front_of(bench)
    assert front.said_ms(T0) == 0
    front.look(T0 + 100)
    assert front.said_ms(T0 + 150) == 0  # the judge may still find somebody lost
    bench.look(T0 + 100)
    assert front.said_ms(T0 + 150) == T0 + 100
    assert front.said_ms(T0 + 90) == T0 + 90


def test_while_a_decision_is_on_its_way_nothing_more_is_said_to_be_complete(bench: Bench):
    front = front_of(bench)
    front.look(T0 + 100)
    bench.look(T0 + 100)
    assert front.said_ms(T0 + 100) == T0 + 100
    bench.actors.settled = lambda: False
    front.look(T0 + 200)
    bench.look(T0 + 200)
    assert front.said_ms(T0 + 300) == T0 + 100


def test_leases_are_frozen_in_the_grace_after_a_gap(bench: Bench):
    front = front_of(bench)
    front.look(T0 + 100)
    bench.look(T0 + 100)
    assert front.said_ms(T0 + 100) == T0 + 100
    bench.gaps.record(Gap(0, T0 + 200, T0 + 2_000, "stall"), bench.journal)
    for later_ms in (3_000, 61_000):
        front.look(T0 + later_ms)
        bench.look(T0 + later_ms)
        assert front.said_ms(T0 + later_ms) == T0 + 100
    front.look(T0 + 62_000)
    bench.look(T0 + 62_000)
    assert front.said_ms(T0 + 63_000) == T0 + 62_000


def test_drops_of_the_kernel_freeze_no_lease(bench: Bench):
    front = front_of(bench)
    bench.gaps.record(Gap(0, T0, T0 + 250, "drops"), bench.journal)
    front.look(T0 + 300)
    bench.look(T0 + 300)
    assert front.said_ms(T0 + 300) == T0 + 300


def test_leases_are_frozen_while_degraded_and_while_no_beats_can_be_taken(bench: Bench):
    front = front_of(bench)
    front.look(T0 + 100)
    bench.look(T0 + 100)
    assert front.said_ms(T0 + 100) == T0 + 100
    bench.judge.breaker = bench.judge.breaker._replace(phase="degraded")
    bench.judge.told_ms = T0 + 200
    front.look(T0 + 200)
    assert front.said_ms(T0 + 200) == T0 + 100
    bench.judge.breaker = bench.judge.breaker._replace(phase="normal")
    bench.committer.set_short_of_disk(True, T0 + 200)
    front.look(T0 + 300)
    assert front.said_ms(T0 + 300) == T0 + 100
