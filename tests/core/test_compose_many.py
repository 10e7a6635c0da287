"""compose_many answers as compose does, in every world, and is unsure only where a gap has a say."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.compose import OPEN_END, Composition
from engine.core.compose_hours import HOUR_MS
from engine.core.compose_many import (
    MAINTENANCE,
    MAINTENANCE_OWN,
    NEVER,
    STANDBY,
    Lives,
    Totals,
    compose_many,
    paid_and_ratio,
)
from engine.core.forgive_many import Spans
from engine.core.records import KINDS, Gap
from tests.core.compose_cases import beats, gap, lease, seconds, window, world
from tests.core.compose_oracle import Beat, World
from tests.core.compose_worlds import LATE, random_gap, random_world

often = settings(max_examples=200, deadline=None, derandomize=True)


def together(worlds: list[World], asked: tuple[int, int], gaps: tuple[Gap, ...], *, hours: int = 0) -> Totals:
    """All worlds in one call, asked for the same window; the gaps are everybody's."""
    base, records = [], []
    for of, one in enumerate(worlds):
        base += [(of, row.kind, row.started_ms, row.ended_ms, row.ttl_ms) for row in one.rows]
        records += [
            (of, MAINTENANCE_OWN if each.own else MAINTENANCE, each.from_ms, each.to_ms, 0)
            for each in one.windows
        ]
        records += [(of, STANDBY, each.from_ms, each.to_ms or NEVER, 0) for each in one.leases]
    lives = Lives(
        row=np.zeros(len(worlds), np.int64),
        created_ms=np.array([one.life[0] for one in worlds]),
        retired_ms=np.array([NEVER if one.life[1] is None else one.life[1] for one in worlds]),
        first_report_ms=np.array([NEVER if one.first_report is None else one.first_report for one in worlds]),
        as_of_ms=np.array([one.as_of for one in worlds]),
    )
    return compose_many(
        lives,
        _spans(base),
        _spans(records),
        gaps,
        claimed=np.array([bool(one.claims) for one in worlds], bool),
        from_ms=asked[0],
        to_ms=asked[1],
        hours=hours,
    )


def _spans(rows: list[tuple[int, int, int, int, int]]) -> Spans:
    return Spans(*np.array(rows, np.int64).reshape(-1, 5).T)


def agree(totals: Totals, at: int, answer: Composition) -> None:
    assert dict(zip(KINDS, totals.ms[at].tolist(), strict=True)) == answer.ms
    assert (totals.from_ms[at], totals.to_ms[at], totals.as_of_ms[at]) == (
        answer.from_ms,
        answer.to_ms,
        answer.as_of,
    )
    assert totals.provisional[at] == answer.provisional
    paid, ratio = paid_and_ratio(totals)
    assert (paid[at], ratio[at]) == (answer.paid_ms, answer.ratio)


@often
@given(st.randoms(use_true_random=False))
def test_whoever_is_not_unsure_is_told_what_compose_tells(rng: Random) -> None:
    """Worlds of one shard: their gaps are those of the first."""
    worlds = [random_world(rng) for _ in range(rng.randint(1, 6))]
    gaps, asked = worlds[0].gaps, worlds[0].asked
    totals = together(worlds, asked, gaps)
    for at, one in enumerate(worlds):
        if not totals.unsure[at]:
            agree(totals, at, one.composed(gaps=gaps, from_ms=asked[0], to_ms=asked[1]))


@often
@given(st.randoms(use_true_random=False))
def test_what_a_lone_gap_forgives_is_judged_at_once(rng: Random) -> None:
    """Beats every 15 to 45 s, one gap: all of its grace lies within what is asked for."""
    worlds = [replace(random_world(rng), claims=(), as_of=LATE, life=(0, None)) for _ in range(5)]
    gaps = (random_gap(rng),)
    worlds = [replace(one, beats=_brisk(one.beats), gaps=gaps) for one in worlds]
    totals = together(worlds, (0, LATE), gaps)
    assert not totals.unsure.any()
    for at, one in enumerate(worlds):
        agree(totals, at, one.composed(gaps=gaps, from_ms=0, to_ms=LATE))


def _brisk(beats: tuple[Beat, ...]) -> tuple[Beat, ...]:
    return tuple(beat._replace(ttl=min(beat.ttl, 45_000)) for beat in beats)


@often
@given(st.randoms(use_true_random=False))
def test_lone_gaps_are_told_from_those_that_may_be_merged(rng: Random) -> None:
    """Gaps a minute and more apart, some of them drops, some near the window's ends."""
    starts = range(0, 800_000, rng.choice((100_000, 160_000, 240_000)))
    causes = ("crash", "drops", "stall")
    gaps = tuple(
        Gap(0, start, start + rng.choice((1, 5_000, 30_000)), rng.choice(causes)) for start in starts
    )
    worlds = [replace(random_world(rng), claims=(), gaps=gaps, as_of=LATE) for _ in range(5)]
    worlds = [replace(one, beats=_brisk(one.beats)) for one in worlds]
    asked = rng.choice(((0, LATE), (95_000, 420_000)))
    totals = together(worlds, asked, gaps)
    for at, one in enumerate(worlds):
        if not totals.unsure[at]:
            agree(totals, at, one.composed(from_ms=asked[0], to_ms=asked[1]))


@often
@given(st.randoms(use_true_random=False))
def test_an_answer_put_in_is_taken_over_as_it_is(rng: Random) -> None:
    worlds = [random_world(rng) for _ in range(4)]
    totals = together(worlds, worlds[0].asked, worlds[0].gaps)
    for at, one in enumerate(worlds):
        answer = one.composed(gaps=worlds[0].gaps, from_ms=worlds[0].asked[0], to_ms=worlds[0].asked[1])
        totals.put(at, answer, claims_paid_ms=answer.ms["claimed_up"])
        agree(totals, at, answer)
        assert not totals.unsure[at]


@often
@given(st.randoms(use_true_random=False))
def test_without_gaps_nobody_is_unsure(rng: Random) -> None:
    worlds = [random_world(rng) for _ in range(4)]
    assert not together(worlds, worlds[0].asked, ()).unsure.any()


def test_only_silence_within_a_grace_of_a_gap_is_unsure() -> None:
    """ttl 90 s: the grace is 300 s, and so the gap is not far enough from the end to be judged at once."""
    silent, covered = (
        world(beats("0 up")),
        world(beats("0 up, 80 up, 160 up, 240 up, 320 up, 400 up, 480 up")),
    )
    crash = (gap(200, 210),)
    assert together([silent, covered], (0, seconds(500)), crash).unsure.tolist() == [True, False]
    assert together([silent], (seconds(509), seconds(700)), crash).unsure.all()
    assert not together([silent], (seconds(510), seconds(700)), crash).unsure.any()
    assert not together([silent], (seconds(100), seconds(200)), crash).unsure.any()
    assert together([silent], (seconds(100), seconds(201)), crash).unsure.all()


def test_a_gap_of_another_shard_makes_nobody_unsure() -> None:
    elsewhere = Gap(shard=1, from_ms=seconds(200), to_ms=seconds(210), cause="crash", shards=2)
    assert not together([world(beats("0 up"))], (0, seconds(600)), (elsewhere,)).unsure.any()


def test_an_undecided_gap_reaches_to_the_end_of_time() -> None:
    open_gap = Gap(shard=0, from_ms=seconds(10), to_ms=OPEN_END, cause="degraded")
    assert together([world(beats("0 up"))], (seconds(500), seconds(600)), (open_gap,)).unsure.all()


def test_leases_and_windows_have_their_ranks() -> None:
    one = world(
        beats("0 up, 60 unhealthy/30"),
        windows=[window(50, 70), window(80, 100, own=True)],
        leases=[lease(85, 95)],
    )
    totals = together([one], one.asked, ())
    agree(totals, 0, one.composed())


def test_nobody_is_nobody() -> None:
    assert together([], (0, 10), (gap(0, 5),)).ms.shape == (0, len(KINDS))


def _by_the_hour(answer: Composition, first_ms: int, hours: int) -> list[list[int]]:
    """Counted from the intervals, an hour and a kind at a time."""
    return [
        [
            sum(
                max(0, min(ended, low + HOUR_MS) - max(started, low))
                for each, started, ended in answer.intervals
                if each == kind
            )
            for kind in KINDS
        ]
        for low in range(first_ms, first_ms + hours * HOUR_MS, HOUR_MS)
    ]


@often
@given(st.randoms(use_true_random=False))
def test_hours_are_what_the_intervals_say_and_sum_to_the_whole(rng: Random) -> None:
    """Asked from within an hour on, so that hours are cut; those composed alone are put in."""
    worlds = [random_world(rng) for _ in range(rng.randint(1, 5))]
    gaps, first_ms = worlds[0].gaps, rng.randrange(1, 400_000) - HOUR_MS
    asked = (first_ms, first_ms + 2 * HOUR_MS)
    totals = together(worlds, asked, gaps, hours=2)
    assert totals.hours is not None
    for at, one in enumerate(worlds):
        answer = one.composed(gaps=gaps, from_ms=asked[0], to_ms=asked[1])
        if totals.unsure[at]:
            totals.put(at, answer, claims_paid_ms=answer.ms["claimed_up"])
        assert totals.hours.ms[at].tolist() == _by_the_hour(answer, first_ms, 2)
        assert (totals.hours.ms[at].sum(axis=0) == totals.ms[at]).all()
        cut = sorted(rng.randrange(*asked) for _ in range(2))
        within = one.composed(gaps=gaps, from_ms=cut[0], to_ms=cut[1]).ms
        assert totals.hours.within(at, *cut) == {kind: ms for kind, ms in within.items() if ms}


@often
@given(st.randoms(use_true_random=False))
def test_answers_of_some_are_taken_over_as_they_are(rng: Random) -> None:
    worlds = [replace(random_world(rng), claims=()) for _ in range(4)]
    asked, places = worlds[0].asked, sorted(rng.sample(range(4), 2))
    totals = together([random_world(rng) for _ in range(4)], asked, (), hours=1)
    totals.take(places, together([worlds[place] for place in places], asked, (), hours=1))
    assert totals.hours is not None
    for place in places:
        answer = worlds[place].composed(gaps=(), from_ms=asked[0], to_ms=asked[1])
        agree(totals, place, answer)
        assert totals.hours.spans_of(place) or not sum(answer.ms.values())
        assert totals.hours.within(place, *asked) == {kind: ms for kind, ms in answer.ms.items() if ms}
