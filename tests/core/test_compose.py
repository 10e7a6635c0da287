"""LIVENESS.md 2 as a table: what an instant counts as. Forgiveness (section 3): test_compose_forgiveness.py.

Times in the tables are seconds; unless a case says otherwise ttl is 90 s, so the interval 60 s and the grace
300 s, the window is [0, 600) and everything is known.
"""

from __future__ import annotations

import msgspec
import pytest

from engine.core.compose import OPEN_END, compose
from engine.core.records import BASE_NONE, BASE_STOPPED, BASE_UP, KINDS, BaseInterval, Claim
from tests.core.compose_cases import beats, claims, gap, lease, seconds, told, window, world

TABLE = {
    "a state holds from its beat until t + ttl, then there is silence": (
        world(beats("0 up")),
        "up 0-90, silent 90-600",
    ),
    "a state holds until the next accepted beat": (
        world(beats("0 up, 60 unhealthy, 100 updating, 130 up")),
        "up 0-60, unhealthy 60-100, updating 100-130, up 130-220, silent 220-600",
    ),
    "beats that follow each other within their ttl leave no silence": (
        world(beats("0 up, 89 up, 178 up")),
        "up 0-268, silent 268-600",
    ),
    "a beat exactly at t + ttl leaves no silence": (world(beats("0 up, 90 up")), "up 0-180, silent 180-600"),
    "a beat after t + ttl leaves silence": (
        world(beats("0 up, 91 up")),
        "up 0-90, silent 90-91, up 91-181, silent 181-600",
    ),
    "absent counts as unhealthy": (
        world(beats("0 up, 60 absent")),
        "up 0-60, unhealthy 60-150, silent 150-600",
    ),
    "an early beat is an accepted beat in every respect": (
        world(beats("0 up, 1 unhealthy, 2 up")),
        "up 0-1, unhealthy 1-2, up 2-92, silent 92-600",
    ),
    "of two beats at one time the later in the journal holds, the zero length is dropped": (
        world(beats("0 up, 60 unhealthy, 60 up")),
        "up 0-150, silent 150-600",
    ),
    "a shorter ttl counts from its own beat on": (
        world(beats("0 up, 60 up/30")),
        "up 0-90, silent 90-600",
    ),
    "a shorter ttl ends what a longer one had promised": (
        world(beats("0 up, 10 up/30")),
        "up 0-40, silent 40-600",
    ),
    "stopping is stopped until the next beat, no ttl": (
        world(beats("0 up, 60 stopped, 500 up")),
        "up 0-60, stopped 60-500, up 500-590, silent 590-600",
    ),
    "who stopped and never came back is stopped to this day": (
        world(beats("0 up, 60 stopped")),
        "up 0-60, stopped 60-600",
    ),
    "stopping twice is stopped once": (
        world(beats("0 up, 60 stopped, 200 stopped")),
        "up 0-60, stopped 60-600",
    ),
    "another run with the licence: standby, whatever else says so": (
        world(
            beats("0 up, 60 up"),
            leases=[lease(30, 200)],
            windows=[window(20, 300)],
            gaps=[gap(100, 190)],
            claims=claims("160 up"),
        ),
        "up 0-30, standby 30-200, maintenance 200-300, silent 300-600",
    ),
    "a lease without an end still holds": (
        world(beats("0 up"), leases=[lease(50, None)]),
        "up 0-50, standby 50-600",
    ),
    "a maintenance window takes nothing from what a beat vouched for": (
        world(beats("0 up"), windows=[window(30, 200)]),
        "up 0-90, maintenance 90-200, silent 200-600",
    ),
    "maintenance stands above updating, unhealthy and stopped": (
        world(beats("0 up, 10 updating, 20 unhealthy, 30 stopped"), windows=[window(15, 100)]),
        "up 0-10, updating 10-15, maintenance 15-100, stopped 100-600",
    ),
    "maintenance that was ordered wins over the operator's own": (
        world(beats("0 up"), windows=[window(100, 300, own=True), window(200, 250)]),
        "up 0-90, silent 90-100, maintenance_own 100-200, maintenance 200-250, maintenance_own 250-300, "
        "silent 300-600",
    ),
    "the operator's own window stands below everything but silence": (
        world(
            beats("0 up, 60 unhealthy, 120 updating, 180 stopped, 200 up"),
            windows=[window(0, 600, own=True)],
            gaps=[gap(280, 400)],
        ),
        "up 0-60, unhealthy 60-120, updating 120-180, stopped 180-200, up 200-290, unobserved 290-400, "
        "maintenance_own 400-600",
    ),
    "maintenance stands above unobserved": (
        world(beats("0 up"), windows=[window(100, 150)], gaps=[gap(50, 200)]),
        "up 0-90, unobserved 90-100, maintenance 100-150, unobserved 150-200, silent 200-600",
    ),
    "a gap takes nothing from what a beat vouched for": (
        world(beats("0 up, 60 unhealthy"), gaps=[gap(10, 100)]),
        "up 0-60, unhealthy 60-150, silent 150-600",
    ),
    "before the first report a workload is silent whatever else says so": (
        world(
            beats("100 absent, 150 stopped, 200 up"),
            leases=[lease(0, 50)],
            windows=[window(0, 300), window(0, 600, own=True)],
            gaps=[gap(110, 130)],
            claims=claims("120 up"),
        ),
        "silent 0-200, up 200-290, maintenance 290-300, maintenance_own 300-600",
    ),
    "the first report may be unhealthy or updating": (
        world(beats("100 updating, 150 absent")),
        "silent 0-100, updating 100-150, unhealthy 150-240, silent 240-600",
    ),
    "who never reported is silent, also when it stopped or was absent": (
        world(beats("100 absent, 150 stopped"), windows=[window(0, 300)]),
        "silent 0-600",
    ),
    "no beat at all is silence": (world(()), "silent 0-600"),
    "the answer is cut to the workload's life": (
        world(beats("0 up, 60 up"), life=(30, 100)),
        "up 30-100",
    ),
    "the answer is cut at as_of": (world(beats("0 up"), as_of=45), "up 0-45"),
    "the answer is cut to the window asked for": (
        world(beats("0 up"), asked=(80, 100)),
        "up 80-90, silent 90-100",
    ),
    "all records are judged before the cut: a beat before creation still vouches": (
        world(beats("0 up"), life=(50, None)),
        "up 50-90, silent 90-600",
    ),
    "all records are judged before the cut: a beat after as_of still forgives": (
        world(beats("0 up, 250 up"), gaps=[gap(50, 200)], as_of=220),
        "up 0-90, unobserved 90-220",
    ),
    "all records are judged before the cut: a claim from before the window still holds": (
        world(beats("0 up, 300 up"), gaps=[gap(50, 250)], claims=claims("100 up"), asked=(150, 300)),
        "claimed_up 150-190, unobserved 190-300",
    ),
    "a window after as_of has nothing in it": (world(beats("0 up"), as_of=45, asked=(100, 200)), ""),
    "a window before the workload's life has nothing in it": (
        world(beats("300 up"), life=(300, None), asked=(0, 200)),
        "",
    ),
}


@pytest.mark.parametrize("sentence", TABLE)
def test_section_2(sentence):
    case, answer = TABLE[sentence]
    assert told(case) == answer


def test_an_empty_window_is_never_after_as_of():
    late = world(beats("0 up"), as_of=45, asked=(100, 200)).composed()
    early = world(beats("300 up"), life=(300, None), asked=(0, 200)).composed()
    assert (late.from_ms, late.to_ms) == (seconds(45), seconds(45))
    assert (early.from_ms, early.to_ms) == (seconds(200), seconds(200))
    assert late.ratio is None


def test_the_answer_shows_its_cut_and_its_as_of():
    answer = world(beats("0 up"), life=(30, 400), as_of=300, asked=(10, 600)).composed()
    assert (answer.from_ms, answer.to_ms, answer.as_of) == (seconds(30), seconds(300), seconds(300))


def test_all_kinds_are_always_present():
    assert tuple(world(()).composed().ms) == KINDS
    assert tuple(world((), asked=(700, 800)).composed().ms) == KINDS


def test_paid_is_up_and_maintenance_and_by_policy_claimed_up():
    case = world(
        beats("0 up, 150 unhealthy, 200 up"),
        windows=[window(100, 110), window(120, 130, own=True)],
        gaps=[gap(230, 500)],
        claims=claims("300 up, 390 unhealthy"),
    )
    answer = case.composed()
    up, maintenance, claimed_up = seconds(180), seconds(10), seconds(90)
    assert (answer.ms["up"], answer.ms["maintenance"], answer.ms["claimed_up"]) == (
        up,
        maintenance,
        claimed_up,
    )
    assert answer.paid_ms == up + maintenance + claimed_up
    assert case.composed(pay_claims=False).paid_ms == up + maintenance


def test_the_ratio_leaves_unobserved_time_out():
    answer = world(beats("0 up, 400 up"), gaps=[gap(80, 200)], asked=(0, 490)).composed()
    assert answer.ms["unobserved"] == seconds(310)  # [90, 200) and, the beat coming soon enough, [200, 400)
    assert answer.ratio == 1.0
    assert world(beats("0 up"), asked=(0, 180)).composed().ratio == 0.5


def test_a_zero_denominator_is_flagged():
    answer = world(beats("0 up"), gaps=[gap(80, 500)], asked=(100, 200)).composed()
    assert (answer.ms["unobserved"], answer.ratio) == (seconds(100), None)
    assert world(beats("0 up"), asked=(100, 200)).composed().ratio == 0.0


def test_a_window_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="ends before it begins"):
        world((), asked=(200, 100)).composed()


def test_a_claim_can_say_only_what_a_beat_can_say_of_a_slot():
    with pytest.raises(ValueError, match="no kind that can be claimed"):
        world(beats("0 up")).composed(claims=[Claim(5, BASE_STOPPED, 90_000)])


def test_rows_of_no_kind_say_nothing():
    rows = [BaseInterval(BASE_NONE, 0, 50, 90), BaseInterval(BASE_UP, 100, 190, 90)]
    answer = _plain(rows)
    assert answer.intervals == (("silent", 0, 100), ("up", 100, 190), ("silent", 190, 300))


def test_a_live_row_that_is_ahead_of_the_store_or_behind_it_does_no_harm():
    stored = [BaseInterval(BASE_UP, 0, 120, 90), BaseInterval(BASE_STOPPED, 120, 150, 90)]
    behind, ahead = BaseInterval(BASE_UP, 0, 90, 90), BaseInterval(BASE_UP, 150, 280, 90)
    answer = _plain([ahead, *stored, behind, BaseInterval(BASE_STOPPED, 120, OPEN_END, 90)])
    assert answer.intervals == (("up", 0, 120), ("stopped", 120, 150), ("up", 150, 280), ("silent", 280, 300))


def test_the_composition_crosses_a_channel_and_is_frozen():
    answer = _plain([BaseInterval(BASE_UP, 0, 90, 90)])
    assert msgspec.json.decode(msgspec.json.encode(answer), type=type(answer)) == answer
    with pytest.raises(AttributeError):
        answer.paid_ms = 7


def _plain(rows):
    return compose(
        base=rows,
        gaps=(),
        leases=(),
        maintenances=(),
        claims=(),
        life=(0, None),
        first_report=0,
        as_of=1_000,
        from_ms=0,
        to_ms=300,
    )
