"""What holds of compose in every world (LIVENESS.md 2 and 3), whatever the records are."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.compose import OPEN_END, down_since, needed_range
from engine.core.records import KINDS
from tests.core.compose_oracle import Beat, rows_of
from tests.core.compose_worlds import (
    FIRM,
    LATE,
    RASTER,
    TTLS,
    instants,
    kinds,
    random_gap,
    random_world,
    worlds,
)

often = settings(max_examples=150, deadline=None, derandomize=True)
rngs = st.randoms(use_true_random=False)
EXCUSED = {"unobserved", "claimed_up", "claimed_updating", "claimed_unhealthy"}


def plain(world):
    """The world with nothing but beats and gaps, asked for everything."""
    return replace(world, leases=(), windows=(), claims=(), life=(0, None), as_of=LATE, asked=(0, LATE))


def spans_of(answer, kind):
    return [(started, ended) for name, started, ended in answer.intervals if name == kind]


@often
@given(worlds())
def test_the_kinds_sum_to_the_window_and_the_intervals_tile_it(world):
    answer = world.composed()
    assert tuple(answer.ms) == KINDS
    assert sum(answer.ms.values()) == answer.to_ms - answer.from_ms
    at, before = answer.from_ms, None
    for kind, started, ended in answer.intervals:
        assert started == at < ended
        assert kind != before
        at, before = ended, kind
    assert at == answer.to_ms
    for kind in KINDS:
        assert answer.ms[kind] == sum(ended - started for started, ended in spans_of(answer, kind))


@often
@given(worlds())
def test_up_is_what_beats_vouched_for_but_for_standby_and_nothing_else(world):
    answer = replace(world, leases=()).composed()
    points = instants(answer.from_ms, answer.to_ms)
    for at, kind in zip(points, kinds(answer, points), strict=True):
        heard = [beat for beat in world.beats if beat.t <= at]
        vouched = bool(heard) and heard[-1].says == "up" and at < heard[-1].t + heard[-1].ttl
        assert (kind == "up") == vouched


@often
@given(worlds())
def test_standby_takes_time_from_every_kind_and_gives_it_to_none(world):
    with_leases, without = world.composed(), replace(world, leases=()).composed()
    points = instants(with_leases.from_ms, with_leases.to_ms)
    for one, other in zip(kinds(with_leases, points), kinds(without, points), strict=True):
        assert one in ("standby", other)


@often
@given(worlds())
def test_applying_everything_twice_changes_nothing(world):
    twice = world.composed(
        base=world.rows * 2,
        gaps=world.gaps * 2,
        leases=world.leases * 2,
        maintenances=world.windows * 2,
        claims=world.claims * 2,
    )
    assert twice == world.composed()


@often
@given(worlds(), rngs)
def test_the_order_of_records_does_not_matter_but_for_claims(world, rng):
    def shuffled(records):
        return rng.sample(records, len(records))

    assert world.composed() == world.composed(
        base=shuffled(world.rows),
        gaps=shuffled(world.gaps),
        leases=shuffled(world.leases),
        maintenances=shuffled(world.windows),
    )


@often
@given(worlds(), st.integers(1, 12))
def test_an_older_state_of_the_open_row_changes_nothing(world, count):
    world = replace(world, beats=tuple({beat.t: beat for beat in world.beats}.values()))
    older = rows_of(world.beats[:count], world.gaps)[-1:]
    assert world.composed(base=(*older, *world.rows)) == world.composed()
    assert world.composed(base=(*world.rows, *older)) == world.composed()


@often
@given(worlds())
def test_no_world_gains_more_than_a_ttl_per_beat(world):
    assert world.composed().ms["up"] <= sum(beat.ttl for beat in world.beats if beat.says == "up")


@often
@given(worlds(), rngs)
def test_beating_once_per_ttl_and_being_off_in_between_gains_at_most_a_ttl_per_beat(world, rng):
    """Also with faults of ours around: what is forgiven is not paid."""
    ttl = rng.choice(TTLS)
    sparse = tuple(Beat(step * ttl, "up", ttl) for step in range(1, rng.randint(2, 8)))
    answer = replace(plain(world), beats=sparse).composed()
    assert answer.paid_ms == answer.ms["up"] == len(sparse) * ttl


@often
@given(worlds(), rngs)
def test_beating_more_often_gains_nothing(world, rng):
    ttl = rng.choice(TTLS)
    steady = [Beat(step * ttl, "up", ttl) for step in range(1, rng.randint(3, 8))]
    more = [Beat(rng.randint(ttl, steady[-1].t), "up", ttl) for _ in range(rng.randint(1, 20))]
    eager = sorted([*steady, *more])
    often, seldom = (replace(world, beats=tuple(beats)).composed() for beats in (eager, steady))
    assert (often.ms["up"], often.paid_ms) == (seldom.ms["up"], seldom.paid_ms)
    # A beat between two gaps parts them, and each forgives for itself: never more than both as one.
    assert often.ms["unobserved"] <= seldom.ms["unobserved"]


@often
@given(worlds(), st.integers(0, LATE))
def test_splitting_a_window_at_any_instant_sums_to_the_whole(world, cut):
    low, high = world.asked
    cut = low + cut % (high - low + 1)
    whole = world.composed()
    parts = [replace(world, asked=asked).composed() for asked in ((low, cut), (cut, high))]
    assert {kind: parts[0].ms[kind] + parts[1].ms[kind] for kind in KINDS} == whole.ms
    assert parts[0].paid_ms + parts[1].paid_ms == whole.paid_ms
    since = [part.provisional_from_ms for part in parts if part.provisional]
    assert whole.provisional_from_ms == min(since, default=None)


def _assert_only_forgives(before, after, *, and_says=EXCUSED):
    """From one answer to the other, silence may have been forgiven, and nothing else has changed."""
    points = instants(before.from_ms, before.to_ms)
    for one, other in zip(kinds(before, points), kinds(after, points), strict=True):
        assert one == other or (one in ("silent", "maintenance_own", "maintenance") and other in and_says)


@often
@given(worlds(firm_only=True), rngs)
def test_a_gap_makes_nobody_silent_who_was_not_and_takes_nothing_from_up(world, rng):
    more = replace(world, gaps=(*world.gaps, random_gap(rng)))
    _assert_only_forgives(world.composed(), more.composed())


@often
@given(worlds(), rngs)
def test_a_gap_other_than_drops_does_so_in_the_company_of_drops_too(world, rng):
    more = replace(world, gaps=(*world.gaps, random_gap(rng, causes=FIRM)))
    _assert_only_forgives(world.composed(), more.composed())


@often
@given(worlds())
def test_gaps_of_any_kind_only_forgive_compared_with_none(world):
    _assert_only_forgives(replace(world, gaps=()).composed(), world.composed())


@often
@given(worlds(), rngs)
def test_a_beat_that_comes_in_time_keeps_what_was_provisional(world, rng):
    """What is answered as final before stays as it is, too."""
    world = replace(plain(world), beats=world.beats[:6])
    world = replace(world, gaps=tuple(gap for gap in world.gaps if gap.to_ms < OPEN_END))
    as_of = max([beat.t for beat in world.beats] + [gap.to_ms for gap in world.gaps], default=0) + 1
    before = replace(world, as_of=as_of, asked=(0, as_of)).composed()
    later = Beat(as_of + rng.choice((0, 1, RASTER)), "up", 15_000)
    after = replace(world, beats=(*world.beats, later), asked=(0, as_of)).composed()
    assert not after.provisional
    if world.first_report is not None and later.t == as_of:
        assert after.intervals == before.intervals
    final_to = as_of if before.provisional_from_ms is None else before.provisional_from_ms
    points = instants(0, final_to)
    assert kinds(before, points) == kinds(after, points)


@often
@given(worlds())
def test_claims_count_only_where_time_would_be_unobserved_maintenance_left_aside(world):
    with_claims, without = world.composed(), replace(world, claims=()).composed()
    bare = replace(world, claims=(), windows=()).composed()
    points = instants(with_claims.from_ms, with_claims.to_ms)
    for one, other, alone in zip(*(kinds(x, points) for x in (with_claims, without, bare)), strict=True):
        assert one == other or (one.startswith("claimed") and alone == "unobserved")


@often
@given(worlds())
def test_before_the_first_report_everything_is_silent(world):
    answer = world.composed()
    report = answer.to_ms if world.first_report is None else world.first_report
    points = [at for at in instants(answer.from_ms, answer.to_ms) if at < report]
    assert set(kinds(answer, points)) <= {"silent"}


@often
@given(worlds(), st.integers(0, LATE))
def test_what_lies_outside_the_needed_range_does_not_matter(world, start):
    """Read as a caller reads: rows with their neighbours, gaps that touch, until nothing more is needed."""
    world = replace(world, asked=(start, min(start + 8 * RASTER, LATE)), claims=())
    low, high = world.asked
    for _ in range(100):
        rows = [row for row in world.rows if row.started_ms < high and row.ended_ms > low]
        rows += [row for row in world.rows if row.ended_ms <= low][-1:]
        rows += [row for row in world.rows if row.started_ms >= high][:1]
        gaps = [gap for gap in world.gaps if gap.from_ms < high and gap.to_ms > low]
        needed = needed_range(gaps, *world.asked, base=rows)
        if low <= needed[0] and needed[1] <= high:
            break
        low, high = min(low, needed[0]), max(high, needed[1])
    else:
        raise AssertionError("the search does not end")
    assert world.composed(base=rows, gaps=gaps) == world.composed()


@often
@given(worlds())
def test_since_of_node_down_is_the_first_instant_of_silence_that_is_not_unobserved(world):
    world = replace(plain(world), gaps=tuple(gap for gap in world.gaps if gap.to_ms < OPEN_END))
    if not world.beats or world.beats[-1].says in ("stopped", "absent"):
        return
    last = world.beats[-1]
    since = down_since(last_ms=last.t, ttl_ms=last.ttl, gaps=world.gaps)
    answer = world.composed(gaps=[gap for gap in world.gaps if gap.to_ms > last.t])
    silent = [started for started, ended in spans_of(answer, "silent") if ended > last.t + last.ttl]
    assert since == max(silent[0], last.t + last.ttl)


def test_the_worlds_are_worth_asking():
    """Every kind, and provisional answers, occur often among the random worlds of these properties."""
    answers = [random_world(Random(seed)).composed() for seed in range(2_000)]
    for kind in KINDS:
        assert sum(answer.ms[kind] > 0 for answer in answers) > 30, kind
    assert sum(answer.provisional for answer in answers) > 30
