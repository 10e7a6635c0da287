"""Licence leases: in whatever order shards tell, who holds what is what the order of time says."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.core.leases import Binding, LeaseSpan
from engine.core.settle import RELEASES, Said, Settled, Standing, settle

LICENCE = "licence"
RUNS = ("a", "b", "c")
END_MS = 40
BOUND = tuple(Binding(run, LICENCE, 0, None) for run in RUNS)


def standing(**changes: object) -> Standing:
    return Standing(**{"licence_id": LICENCE, "bindings": BOUND, **changes})  # type: ignore[arg-type]


def spans(settled: Settled) -> list[tuple[int, str, int, int | None, str]]:
    return [(one.epoch, one.holder_id, one.from_ms, one.to_ms, one.ended) for one in settled.leases]


def claim(at_ms: int, run: str) -> Said:
    return Said(at_ms, "claim", run)


def test_the_run_whose_first_beat_claims_a_licence_earliest_gets_it():
    settled = settle(standing(), [claim(7, "b"), claim(5, "a"), claim(9, "c")], 20)
    assert spans(settled) == [(1, "a", 5, None, "")]


def test_a_tie_goes_to_the_smaller_workload_id():
    assert spans(settle(standing(), [claim(5, "c"), claim(5, "b")], 20)) == [(1, "b", 5, None, "")]


def test_the_next_run_that_beats_after_a_release_gets_the_next_epoch():
    says = [claim(1, "a"), claim(4, "b"), Said(10, "stopped", "a"), claim(12, "c"), claim(14, "b")]
    assert spans(settle(standing(), says, 20)) == [(1, "a", 1, 10, "stopped"), (2, "c", 12, None, "")]


def test_a_release_comes_before_a_claim_of_the_same_time():
    says = [claim(1, "a"), claim(10, "b"), Said(10, "lost", "a")]
    assert spans(settle(standing(), says, 20)) == [(1, "a", 1, 10, "lost"), (2, "b", 10, None, "")]


def test_a_run_that_does_not_hold_the_licence_releases_nothing():
    says = [claim(1, "a"), Said(5, "stopped", "b"), Said(6, "lost", "c")]
    assert spans(settle(standing(), says, 20)) == [(1, "a", 1, None, "")]


def test_a_sale_ends_whoever_holds_it():
    says = [claim(1, "a"), Said(5, "sold", ""), claim(8, "a")]
    assert spans(settle(standing(), says, 20)) == [(1, "a", 1, 5, "sold"), (2, "a", 8, None, "")]


def test_every_other_bound_run_stands_by_for_as_long_as_the_lease_lasts():
    bindings = (Binding("a", LICENCE, 0, None), Binding("b", LICENCE, 3, 8), Binding("c", LICENCE, 0, None))
    says = [claim(1, "a"), claim(6, "c"), Said(10, "stopped", "a")]
    settled = settle(standing(bindings=bindings), says, 20)
    found = [(one.workload_id, one.from_ms, one.to_ms, one.claimed_ms) for one in settled.standbys]
    assert found == [("b", 3, 8, None), ("c", 1, 10, 6)]


def test_what_people_change_later_than_is_decided_is_not_told_yet_and_what_ended_before_never():
    bindings = (
        BOUND[0],
        Binding("b", LICENCE, 0, 25),
        Binding("b", LICENCE, 30, None),
        Binding("c", LICENCE, 0, 4),
    )
    settled = settle(standing(bindings=bindings), [claim(5, "a")], 20)
    assert [(one.workload_id, one.from_ms, one.to_ms) for one in settled.standbys] == [("b", 5, None)]


def test_one_that_is_bound_to_a_held_licence_stands_by_from_then_on():
    first = settle(standing(bindings=BOUND[:1]), [claim(1, "a")], 10).standing
    later = msgspec.structs.replace(first, bindings=(BOUND[0], Binding("b", LICENCE, 15, None)))
    settled = settle(later, [Said(15, "bound", "b")], 20)
    assert [(one.workload_id, one.from_ms, one.to_ms) for one in settled.standbys] == [("b", 15, None)]
    assert settled.moved
    assert not settled.leases


def test_a_conflict_is_told_once_per_epoch_and_run_since_its_first_claim():
    first = settle(standing(), [claim(1, "a"), claim(4, "b"), claim(6, "b")], 10)
    assert [(one.workload_id, one.claimed_ms, one.holder_id) for one in first.conflicts] == [("b", 4, "a")]
    again = settle(
        first.standing, [claim(12, "b"), Said(13, "stopped", "a"), claim(14, "c"), claim(15, "b")], 20
    )
    assert [(one.workload_id, one.epoch, one.claimed_ms) for one in again.conflicts] == [("b", 2, 15)]


def test_a_say_older_than_what_is_settled_is_judged_at_the_horizon():
    first = settle(standing(), [claim(1, "a")], 20)
    late = settle(first.standing, [Said(12, "sold", ""), claim(21, "b")], 30)
    assert spans(late) == [(1, "a", 1, 20, "sold"), (2, "b", 21, None, "")]


def test_a_beat_from_before_the_release_does_not_take_the_lease_over():
    first = settle(standing(), [claim(1, "a"), Said(12, "stopped", "a")], 20)
    assert spans(settle(first.standing, [claim(11, "b")], 30)) == []
    assert spans(settle(first.standing, [claim(12, "b")], 30)) == [(2, "b", 20, None, "")]


def test_a_claim_of_one_that_is_no_longer_bound_counts_for_nothing():
    bindings = (Binding("a", LICENCE, 0, 5), Binding("b", LICENCE, 8, None))
    assert spans(settle(standing(bindings=bindings), [claim(6, "a"), claim(7, "b")], 20)) == []


def test_a_release_at_the_time_of_the_grant_came_before_it():
    tie = settle(standing(), [Said(5, "stopped", "a"), claim(5, "a")], 10)
    assert spans(tie) == [(1, "a", 5, None, "")]
    assert spans(settle(tie.standing, [Said(5, "stopped", "a")], 20)) == []
    assert spans(settle(tie.standing, [Said(6, "stopped", "a")], 20)) == [(1, "a", 5, 10, "stopped")]


def test_who_is_retired_holds_nothing_whatever_the_clock_of_the_one_who_retired_it():
    first = settle(standing(), [claim(15, "a")], 20)
    retired = (Binding("a", LICENCE, 0, 12), *BOUND[1:])
    late = settle(msgspec.structs.replace(first.standing, bindings=retired), [Said(12, "retired", "a")], 30)
    assert spans(late) == [(1, "a", 15, 20, "retired")]


# Against an oracle that walks through time, and in any order of arrival.

_WHAT = st.sampled_from(("claim", "claim", "claim", "stopped", "lost", "absent", "sold"))
_SAYS = st.lists(st.tuples(st.integers(1, END_MS - 1), _WHAT, st.sampled_from(RUNS)), max_size=30).map(
    lambda drawn: sorted({Said(at, what, "" if what == "sold" else run) for at, what, run in drawn})
)


def oracle(says: list[Said]) -> tuple[list[tuple[int, str, int, int | None]], dict[str, list[int]]]:
    """Leases, and per run the milliseconds at which another one held the licence: instant by instant."""
    leases: list[tuple[int, str, int, int | None]] = []
    waited: dict[str, list[int]] = {run: [] for run in RUNS}
    holder: str | None = None
    for now in range(END_MS):
        here = [say for say in says if say.at_ms == now]
        if any(say.what in RELEASES and (say.what == "sold" or say.workload_id == holder) for say in here):
            if holder is not None:
                leases[-1] = (*leases[-1][:3], now)
            holder = None
        claims = sorted(say.workload_id for say in here if say.what == "claim")
        if holder is None and claims:
            holder = claims[0]
            leases.append((len(leases) + 1, holder, now, None))
        for run in RUNS:
            if holder not in (None, run):
                waited[run].append(now)
    return leases, waited


class Books:
    """What the tables would hold after each step."""

    def __init__(self) -> None:
        self.standing = standing()
        self.leases: dict[int, LeaseSpan] = {}
        self.standbys: dict[int, list] = {}
        self.told: list[tuple[str, int]] = []

    def step(self, says: list[Said], horizon_ms: int) -> None:
        settled = settle(self.standing, says, horizon_ms)
        self.standing = settled.standing
        self.leases.update({one.epoch: one for one in settled.leases})
        for epoch in settled.epochs:
            self.standbys[epoch] = [one for one in settled.standbys if one.epoch == epoch]
        self.told += [(one.workload_id, one.epoch) for one in settled.conflicts]

    def waited(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {run: [] for run in RUNS}
        for spans_of in self.standbys.values():
            for one in spans_of:
                found[one.workload_id] += range(one.from_ms, END_MS if one.to_ms is None else one.to_ms)
        return {run: sorted(instants) for run, instants in found.items()}

    def held(self) -> list[tuple[int, str, int, int | None]]:
        return [(one.epoch, one.holder_id, one.from_ms, one.to_ms) for one in self.leases.values()]


@given(_SAYS, st.lists(st.tuples(st.integers(0, 2), st.integers(1, END_MS)), max_size=12))
def test_in_whatever_order_shards_flush_the_leases_are_those_of_the_order_of_time(says, flushes):
    """Each run is on a shard of its own; a flush brings what its shard said up to a time it tells."""
    books, waiting, told = Books(), list[Said](), [0, 0, 0]
    sales = [say for say in says if not say.workload_id]
    for shard, at_ms in [*flushes, (0, END_MS), (1, END_MS), (2, END_MS)]:
        if at_ms <= told[shard]:
            continue
        ours = [say for say in says if say.workload_id == RUNS[shard] and told[shard] < say.at_ms <= at_ms]
        waiting += reversed(ours)
        told[shard] = at_ms
        horizon_ms = min(told)
        ready = [say for say in [*waiting, *sales] if books.standing.settled_ms < say.at_ms <= horizon_ms]
        waiting = [say for say in waiting if say.at_ms > horizon_ms]
        books.step(ready, horizon_ms)
    leases, waited = oracle(says)
    assert books.held() == leases
    assert books.waited() == waited
    assert len(books.told) == len(set(books.told))


@given(_SAYS, st.integers(1, END_MS))
def test_what_was_said_may_be_said_again(says, cut_ms):
    """A replay after a crash says once more what may have been settled already."""
    books = Books()
    books.step([say for say in says if say.at_ms <= cut_ms], cut_ms)
    books.step(says, END_MS)
    once = Books()
    once.step(says, END_MS)
    assert books.held() == once.held()
    assert books.waited() == once.waited()


@given(_SAYS)
def test_at_no_time_do_two_runs_hold_one_licence_and_its_holder_never_stands_by(says):
    books = Books()
    books.step(says, END_MS)
    for now in range(END_MS):
        holders = [one for one in books.leases.values() if one.from_ms <= now < (one.to_ms or END_MS)]
        assert len(holders) <= 1
        by = {run for run, instants in books.waited().items() if now in instants}
        assert by == (set(RUNS) - {holders[0].holder_id} if holders else set())
