"""LIVENESS.md 3 as a table: what a fault of ours forgives. Times in seconds as in test_compose.py."""

from __future__ import annotations

import pytest

from engine.core.compose import OPEN_END, down_since, needed_range
from engine.core.records import BASE_UP, BaseInterval, Gap
from tests.core.compose_cases import beats, claims, drops, gap, seconds, told, window, world

UNDECIDED = Gap(0, seconds(50), OPEN_END, "degraded")

TABLE = {
    # s
    "who was covered when the gap began is forgiven the silence in it": (
        world(beats("0 up"), gaps=[gap(50, 200)]),
        "up 0-90, unobserved 90-200, silent 200-600",
    ),
    "covered means g0 < t + ttl, by a millisecond": (
        world(beats("0 up"), gaps=[gap(89.999, 200)]),
        "up 0-90, unobserved 90-200, silent 200-600",
    ),
    "who was silent stays silent": (
        world(beats("0 up, 250 up"), gaps=[gap(90, 200)]),
        "up 0-90, silent 90-250, up 250-340, silent 340-600",
    ),
    "who never beat stays silent": (
        world(beats("300 up"), gaps=[gap(50, 200)]),
        "silent 0-300, up 300-390, silent 390-600",
    ),
    "a beat at g0 itself covers": (
        world(beats("0 up, 100 up"), gaps=[gap(100, 300)]),
        "up 0-90, silent 90-100, up 100-190, unobserved 190-300, silent 300-600",
    ),
    "who was silent is forgiven from the start of the gap in which it beat": (
        world(beats("0 up, 200 up"), gaps=[gap(100, 300)]),
        "up 0-90, silent 90-100, unobserved 100-200, up 200-290, unobserved 290-300, silent 300-600",
    ),
    "who had stopped is stopped through the gap": (
        world(beats("0 up, 10 stopped, 300 up"), gaps=[gap(50, 200)]),
        "up 0-10, stopped 10-300, up 300-390, silent 390-600",
    ),
    "who had stopped and beat in the gap is forgiven from the gap's start": (
        world(beats("0 up, 10 stopped, 100 up/30"), gaps=[gap(50, 200)]),
        "up 0-10, stopped 10-100, up 100-130, unobserved 130-200, silent 200-600",
    ),
    "a beat with STOPPING is a beat": (
        world(beats("0 up, 150 stopped, 160 up"), gaps=[gap(100, 200)]),
        "up 0-90, silent 90-100, unobserved 100-150, stopped 150-160, up 160-250, silent 250-600",
    ),
    # f
    "the silence after the gap is forgiven if the first beat comes within the grace": (
        world(beats("0 up, 499.999 up"), gaps=[gap(50, 200)]),
        "up 0-90, unobserved 90-499.999, up 499.999-589.999, silent 589.999-600",
    ),
    "a beat at the end of the grace comes too late": (
        world(beats("0 up, 500 up"), gaps=[gap(50, 200)]),
        "up 0-90, unobserved 90-200, silent 200-500, up 500-590, silent 590-600",
    ),
    "a beat with STOPPING within the grace forgives, too": (
        world(beats("0 up, 300 stopped"), gaps=[gap(50, 200)]),
        "up 0-90, unobserved 90-300, stopped 300-600",
    ),
    "a beat at the end of the gap is the first after it": (
        world(beats("0 up, 200 up"), gaps=[gap(50, 200)]),
        "up 0-90, unobserved 90-200, up 200-290, silent 290-600",
    ),
    "the grace is never less than a minute": (
        world(beats("0 up/15, 159.999 up"), gaps=[gap(10, 100)]),
        "up 0-15, unobserved 15-159.999, up 159.999-249.999, silent 249.999-600",
    ),
    "the grace is that of the last beat before the gap's end, not of the one that follows": (
        world(beats("0 up/15, 160 up"), gaps=[gap(10, 100)]),
        "up 0-15, unobserved 15-100, silent 100-160, up 160-250, silent 250-600",
    ),
    "still covered at the gap's end: the beat must come within a ttl of it": (
        world(beats("0 up, 149.999 up"), gaps=[gap(50, 60)]),
        "up 0-90, unobserved 90-149.999, up 149.999-239.999, silent 239.999-600",
    ),
    "a short stall forgives no long absence": (
        world(beats("0 up, 150 up"), gaps=[gap(50, 60)]),
        "up 0-90, silent 90-150, up 150-240, silent 240-600",
    ),
    "covered to the very end of the gap is not covered at its end": (
        world(beats("0 up, 389 up"), gaps=[gap(50, 90)]),
        "up 0-90, unobserved 90-389, up 389-479, silent 479-600",
    ),
    # merging
    "a gap within the grace of the one before is merged with it": (
        world(beats("0 up, 590 up"), gaps=[gap(50, 100), gap(399.999, 400)]),
        "up 0-90, unobserved 90-590, up 590-600",
    ),
    "a gap that starts when the grace is over is not merged": (
        world(beats("0 up, 590 up"), gaps=[gap(50, 100), gap(400, 450)]),
        "up 0-90, unobserved 90-100, silent 100-590, up 590-600",
    ),
    "a beat in between keeps gaps apart": (
        world(beats("0 up, 200 up"), gaps=[gap(50, 100), gap(350, 400)]),
        "up 0-90, unobserved 90-200, up 200-290, silent 290-600",
    ),
    "a beat with STOPPING in between keeps gaps apart, too": (
        world(beats("0 up, 200 stopped, 360 up/30"), gaps=[gap(50, 100), gap(350, 400)], asked=(80, 420)),
        "up 80-90, unobserved 90-200, stopped 200-360, up 360-390, unobserved 390-400, silent 400-420",
    ),
    "a beat at the end of the first keeps gaps apart": (
        world(beats("0 up, 100 up"), gaps=[gap(50, 100), gap(350, 400)]),
        "up 0-90, unobserved 90-100, up 100-190, silent 190-600",
    ),
    "gaps that touch are merged although a beat stands where they touch": (
        world(beats("0 up, 100 up/15"), gaps=[gap(95, 100), gap(100, 200)]),
        "up 0-90, silent 90-100, up 100-115, unobserved 115-200, silent 200-600",
    ),
    "a gap inside another ends with it": (
        world(beats("0 up"), gaps=[gap(50, 400), gap(60, 80)]),
        "up 0-90, unobserved 90-400, silent 400-600",
    ),
    "gaps that overlap end with the later": (
        world(beats("0 up"), gaps=[gap(50, 100), gap(95, 300)]),
        "up 0-90, unobserved 90-300, silent 300-600",
    ),
    "a row covered at the first gap's end waits a grace for the second": (
        world(beats("0 up, 500 up"), gaps=[gap(50, 60), gap(300, 310)]),
        "up 0-90, unobserved 90-500, up 500-590, silent 590-600",
    ),
    "three gaps are one when each is within the grace of the one before": (
        world(beats("0 up"), gaps=[gap(50, 60), gap(300, 310), gap(580, 590)]),
        "up 0-90, unobserved 90-590, silent 590-600",
    ),
    "of merged gaps the first that contains a beat begins what is forgiven": (
        world(beats("0 up, 420 up"), gaps=[gap(100, 200), gap(350, 500)]),
        "up 0-90, silent 90-350, unobserved 350-420, up 420-510, silent 510-600",
    ),
    # what is not known yet
    "until the grace is over, what could still be forgiven is provisional": (
        world(beats("0 up"), gaps=[gap(50, 200)], as_of=499.999),
        "up 0-90, unobserved 90-499.999; provisional from 200",
    ),
    "when the grace is over and no beat came, it is silence": (
        world(beats("0 up"), gaps=[gap(50, 200)], as_of=500),
        "up 0-90, unobserved 90-200, silent 200-500",
    ),
    "in the gap itself nothing is provisional": (
        world(beats("0 up"), gaps=[gap(50, 200)], as_of=200),
        "up 0-90, unobserved 90-200",
    ),
    "for a row still covered at the gap's end a ttl is waited for": (
        world(beats("0 up"), gaps=[gap(50, 60)], as_of=149.999),
        "up 0-90, unobserved 90-149.999; provisional from 90",
    ),
    "and no longer than that ttl": (
        world(beats("0 up"), gaps=[gap(50, 60)], as_of=150),
        "up 0-90, silent 90-150",
    ),
    "who is covered as of now has nothing provisional": (
        world(beats("0 up"), gaps=[gap(50, 60)], as_of=80),
        "up 0-80",
    ),
    "who was silent before the gap has nothing to wait for": (
        world(beats("0 up"), gaps=[gap(100, 200)], as_of=210),
        "up 0-90, silent 90-210",
    ),
    "maintenance is not provisional": (
        world(beats("0 up"), gaps=[gap(50, 200)], windows=[window(150, 290)], as_of=300),
        "up 0-90, unobserved 90-150, maintenance 150-290, unobserved 290-300; provisional from 290",
    ),
    "only what lies in the window makes it provisional": (
        world(beats("0 up"), gaps=[gap(50, 200)], asked=(0, 200), as_of=300),
        "up 0-90, unobserved 90-200",
    ),
    "what a gap not yet decided would forgive is provisional": (
        world(beats("0 up, 200 up"), gaps=[UNDECIDED], as_of=400),
        "up 0-90, unobserved 90-200, up 200-290, unobserved 290-400; provisional from 90",
    ),
    # drops
    "drops forgive if the first beat comes within an interval": (
        world(beats("0 up, 159.999 up"), gaps=[drops(50, 100)]),
        "up 0-90, unobserved 90-159.999, up 159.999-249.999, silent 249.999-600",
    ),
    "drops forgive nothing, not even in the gap, if it comes later": (
        world(beats("0 up, 160 up"), gaps=[drops(50, 100)]),
        "up 0-90, silent 90-160, up 160-250, silent 250-600",
    ),
    "drops forgive nothing if no beat comes": (
        world(beats("0 up"), gaps=[drops(50, 100)]),
        "up 0-90, silent 90-600",
    ),
    "drops give an interval to a covered row, too": (
        world(beats("0 up, 119.999 up, 300 up, 420 up"), gaps=[drops(50, 60), drops(350, 360)]),
        "up 0-90, unobserved 90-119.999, up 119.999-209.999, silent 209.999-300, up 300-390, silent 390-420, "
        "up 420-510, silent 510-600",
    ),
    "until that interval is over, all of it is provisional": (
        world(beats("0 up"), gaps=[drops(50, 100)], as_of=159.999),
        "up 0-90, unobserved 90-159.999; provisional from 90",
    ),
    "when that interval is over, it is silence": (
        world(beats("0 up"), gaps=[drops(50, 100)], as_of=160),
        "up 0-90, silent 90-160",
    ),
    "drops are merged within an interval": (
        world(beats("0 up, 180 up"), gaps=[drops(50, 60), drops(119.999, 125)]),
        "up 0-90, unobserved 90-180, up 180-270, silent 270-600",
    ),
    "drops are not merged when the interval is over": (
        world(beats("0 up, 180 up"), gaps=[drops(50, 60), drops(120, 125)]),
        "up 0-90, silent 90-180, up 180-270, silent 270-600",
    ),
    "drops do not take the grace of a stall": (
        world(beats("0 up, 499 up"), gaps=[gap(50, 200, "stall"), drops(50, 200.5)]),
        "up 0-90, unobserved 90-499, up 499-589, silent 589-600",
    ),
    "drops merged with a crash count as part of it": (
        world(beats("0 up"), gaps=[gap(50, 200), drops(190, 210)]),
        "up 0-90, unobserved 90-210, silent 210-600",
    ),
    "drops within the grace of a crash are merged with it": (
        world(beats("0 up, 590 up"), gaps=[gap(50, 200), drops(499.999, 510)]),
        "up 0-90, unobserved 90-590, up 590-600",
    ),
    "a crash within an interval of drops is merged with them": (
        world(beats("0 up, 590 up"), gaps=[drops(50, 95), gap(154.999, 300)]),
        "up 0-90, unobserved 90-590, up 590-600",
    ),
    "a crash after that interval is not": (
        world(beats("0 up, 590 up"), gaps=[drops(50, 95), gap(155, 300)]),
        "up 0-90, silent 90-590, up 590-600",
    ),
    # backfill
    "a claim holds its ttl from its claimed time": (
        world(beats("0 up"), gaps=[gap(50, 500)], claims=claims("200 up/30")),
        "up 0-90, unobserved 90-200, claimed_up 200-230, unobserved 230-500, silent 500-600",
    ),
    "a claim is cut at the next claim": (
        world(beats("0 up"), gaps=[gap(50, 500)], claims=claims("230 unhealthy, 260 updating, 200 up")),
        "up 0-90, unobserved 90-200, claimed_up 200-230, claimed_unhealthy 230-260, "
        "claimed_updating 260-350, unobserved 350-500, silent 500-600",
    ),
    "of claims with one time the first stored counts": (
        world(beats("0 up"), gaps=[gap(50, 500)], claims=claims("200 unhealthy/30, 200 up")),
        "up 0-90, unobserved 90-200, claimed_unhealthy 200-230, unobserved 230-500, silent 500-600",
    ),
    "a claim is cut at the next accepted beat": (
        world(
            beats("0 up, 250 up/15, 300 up"),
            gaps=[gap(50, 240)],
            claims=claims("200 up/300"),
            asked=(200, 300),
        ),
        "claimed_up 200-250, up 250-265, silent 265-300",
    ),
    "a claim is cut at a beat that merely prolongs": (
        world(beats("0 up, 60 up"), gaps=[gap(100, 400)], claims=claims("30 up/300")),
        "up 0-150, unobserved 150-400, silent 400-600",
    ),
    "a claim after the last beat goes on when its coverage ends": (
        world(beats("0 up, 60 up"), gaps=[gap(100, 400)], claims=claims("61 up/200")),
        "up 0-150, claimed_up 150-261, unobserved 261-400, silent 400-600",
    ),
    "a claim of the time of an accepted beat says nothing": (
        world(beats("0 up, 60 up"), gaps=[gap(100, 400)], claims=claims("60 up/300")),
        "up 0-150, unobserved 150-400, silent 400-600",
    ),
    "a claim counts only where the time would be unobserved": (
        world(beats("0 up"), gaps=[gap(50, 200)], claims=claims("30 unhealthy, 150 up, 400 up")),
        "up 0-90, claimed_unhealthy 90-120, unobserved 120-150, claimed_up 150-200, silent 200-600",
    ),
    "claimed_up stands above maintenance, the other claims below it": (
        world(
            beats("0 up"),
            gaps=[gap(50, 500)],
            claims=claims("100 up, 200 unhealthy, 300 updating"),
            windows=[window(110, 210), window(290, 310), window(320, 400, own=True)],
        ),
        "up 0-90, unobserved 90-100, claimed_up 100-190, maintenance 190-210, claimed_unhealthy 210-290, "
        "maintenance 290-310, claimed_updating 310-390, unobserved 390-500, silent 500-600",
    ),
    "a claim is no beat: it begins no forgiveness and ends no grace": (
        world(beats("0 up"), gaps=[gap(100, 200)], claims=claims("150 up, 210 up")),
        "up 0-90, silent 90-600",
    ),
    "a claim in provisional time is provisional": (
        world(beats("0 up"), gaps=[gap(50, 200)], claims=claims("250 up"), as_of=300),
        "up 0-90, unobserved 90-250, claimed_up 250-300; provisional from 200",
    ),
}


@pytest.mark.parametrize("sentence", TABLE)
def test_section_3(sentence):
    case, answer = TABLE[sentence]
    assert told(case) == answer


SINCE = {
    "the end of coverage": ([], 90),
    "the end of the gap in which coverage ended": ([gap(50, 200)], 200),
    "coverage ended exactly with the gap": ([gap(50, 90)], 90),
    "coverage ended exactly when the gap began: not forgiven": ([gap(90, 200)], 90),
    "the gap was over before coverage ended": ([gap(50, 60)], 90),
    "the gap was over before the last beat": ([gap(-100, -50), gap(-50, 0)], 90),
    "the gap contains the last beat": ([gap(-60, 120)], 120),
    "merged gaps reach to the later end": ([gap(300, 350), gap(50, 85)], 350),
    "a gap after the grace is not merged": ([gap(50, 100), gap(400, 450)], 100),
    "drops alone do not move it": ([drops(50, 200), drops(80, 95)], 90),
    "drops merged with a crash do": ([gap(50, 100), drops(399, 401)], 401),
    "a gap not decided yet does not move it": ([UNDECIDED], 90),
    "a later gap forgives nothing of what was silence before": ([gap(100, 200)], 90),
}


@pytest.mark.parametrize("sentence", SINCE)
def test_since_of_node_down(sentence):
    gaps, since = SINCE[sentence]
    assert down_since(last_ms=0, ttl_ms=90_000, gaps=gaps) == seconds(since)


def test_without_rows_every_gap_given_is_linked_to_the_window():
    gaps = [gap(50, 60), gap(150, 250)]
    assert needed_range(gaps, seconds(100), seconds(200)) == (seconds(50), seconds(250))
    assert needed_range([], seconds(100), seconds(200)) == (seconds(100), seconds(200))


def test_beats_on_both_sides_end_the_search():
    rows = _up_rows((0, 90), (300, 390))
    assert needed_range([gap(-50, -10)], seconds(100), seconds(200), base=rows) == (
        seconds(0),
        seconds(300) + 1,
    )


def test_a_beat_inside_a_gap_or_at_its_start_does_not_end_the_search_before_it():
    """A crash that is merged with these drops makes them more than drops."""
    rows = _up_rows((0, 90), (100, 190))
    assert needed_range([drops(100, 300)], seconds(200), seconds(250), base=rows)[0] == seconds(0)
    assert needed_range([drops(95, 300)], seconds(200), seconds(250), base=rows)[0] == seconds(0)


def test_the_search_goes_on_from_gap_to_gap_while_no_beat_ends_it():
    rows = _up_rows((-5000, -4910))
    gaps = [gap(-700, -600), gap(-350, -300), gap(250, 300), gap(599, 650), gap(2000, 2001)]
    assert needed_range(gaps, seconds(-100), seconds(0), base=rows) == (seconds(-1000), seconds(950))


def test_a_workload_without_rows_needs_none():
    assert needed_range([gap(0, 500)], seconds(100), seconds(200), base=[]) == (seconds(100), seconds(200))


def _up_rows(*spans):
    return [BaseInterval(BASE_UP, seconds(start), seconds(end), 90_000) for start, end in spans]
