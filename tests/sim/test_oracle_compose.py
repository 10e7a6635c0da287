"""Base rows and `compose` by hand: what every second of a short story was (LIVENESS.md 2)."""

import pytest

from tests.sim.hand import Story
from tests.sim.observed import KINDS


@pytest.mark.parametrize(
    ("script", "rows"),
    [
        ("0 hh", "up 0-90"),
        ("0 uh", "unhealthy 0-90"),
        ("0 ph", "updating 0-90"),
        ("0 hh, 60 hh", "up 0-150"),
        ("0 hh, 89 hh", "up 0-179"),
        ("0 hh, 91 hh", "up 0-90 up 91-181"),
        ("0 hh, 60 uh, 61 hh", "up 0-60 unhealthy 60-61 up 61-151"),
        ("0 hh, 60 -h", "up 0-60 unhealthy 60-150"),
        ("0 hh, 60 stop, 500 hh", "up 0-60 stopped 60-500 up 500-590"),
        ("0 hh, 60 stop, 70 stop", "up 0-60 stopped 60-"),
        ("0 hh, 0 uh", "unhealthy 0-90"),
        ("3550 hh", "up 3550-"),
    ],
)
def test_base_rows_come_from_beats_alone(script: str, rows: str):
    story = Story()
    for number, item in enumerate(script.split(", ")):
        at_s, what = item.split()
        if what == "stop":
            story.stop(int(at_s))
        else:
            story.beat(int(at_s), what, seq_s=int(at_s) + number / 1000)
    assert story.rows() == rows


def test_another_ttl_starts_a_new_row():
    story = Story()
    story.beat(0)
    story.beat(60, ttl_s=120)
    story.beat(120, ttl_s=120)
    assert story.rows() == "up 0-60 up 60-240"


def test_a_beat_ends_coverage_by_its_own_ttl_not_by_the_one_before():
    story = Story()
    story.beat(0, ttl_s=300)
    story.beat(60, ttl_s=90)
    assert story.strip() == "up 0-150 silent 150-3600"


def test_the_first_beat_after_a_gap_starts_a_new_row_though_nothing_was_missed():
    story = Story()
    story.beats(0, 60)
    story.gap(70, 72)
    story.beats(120, 180)
    assert story.rows() == "up 0-120 up 120-270"
    assert story.strip() == "up 0-270 silent 270-3600"


def test_a_slot_that_is_not_in_the_map_is_untouched():
    story = Story(slots=3, lives={2: (100, None)})
    story.session(1, 0, mask=0b011)
    story.session(2, 200, mask=0b111)
    story.beat(180, "hh", generation=1)
    story.beat(230, "hhh", generation=2)
    story.beat(250, "uhu", generation=1)
    assert story.rows("w0") == "up 180-250 unhealthy 250-340"
    assert story.rows("w2") == "up 230-320"


def test_stopping_ends_every_slot_of_the_row_also_those_outside_the_map():
    story = Story(slots=3, lives={2: (100, None)})
    story.session(1, 0, mask=0b011)
    story.session(2, 200, mask=0b111)
    story.beat(230, "hhh", generation=2)
    story.beat(250, "--", generation=1, stopping=True)
    story.beat(900, "hh", generation=1)  # too late: 60 s after generation 2 it is dropped
    assert story.rows("w2") == "up 230-250 stopped 250-"


def test_before_the_first_report_all_is_silent_whatever_else_says_so():
    story = Story(end_s=600)
    story.lease(0, 50)
    story.window(60, 120)
    story.beat(10, "-h")
    story.stop(60)
    story.beat(100, "-h")
    story.beat(160, "ph")
    assert story.strip() == "silent 0-160 updating 160-250 silent 250-600"


def test_the_answer_is_cut_to_life_and_to_as_of_after_all_records_are_judged():
    story = Story(end_s=300, lives={0: (30, 220)})
    story.beats(0, 240)
    assert story.strip("w0") == "up 30-220"
    assert story.strip("w1") == "up 0-300"
    assert story.uptime("w0", from_s=100, to_s=9999) == {"up": 120}
    assert story.uptime("w0", from_s=230) == {}


def test_all_keys_are_there_and_sum_to_the_window():
    story = Story()
    story.beat(0)
    composed = story.oracle().compose("w0", from_ms=0, to_ms=story.oracle().history.as_of_ms)
    assert tuple(composed.ms) == KINDS
    assert sum(composed.ms.values()) == composed.to_ms - composed.from_ms


def test_a_window_takes_nothing_that_a_beat_vouched_for_and_ordered_goes_over_own():
    story = Story(end_s=600)
    story.beat(0, "h")
    story.beat(60, "u")
    story.window(30, 200)
    story.window(100, 300, own=True)
    story.window(250, 260, of="w1")
    assert story.strip("w0") == ("up 0-60 maintenance 60-200 maintenance_own 200-300 silent 300-600")


def test_own_maintenance_loses_against_unhealthy_stopped_and_unobserved():
    story = Story(end_s=700)
    story.beat(0, "h")
    story.beat(60, "u")
    story.window(0, 700, own=True)
    story.gap(130, 170)
    story.beat(180, "h")
    story.stop(200)
    story.beat(300, "h")
    assert story.strip("w0") == (
        "up 0-60 unhealthy 60-150 unobserved 150-180 up 180-200 stopped 200-300 up 300-390"
        " maintenance_own 390-700"
    )


def test_standby_goes_over_everything_of_its_workload():
    story = Story(end_s=300)
    story.beats(0, 240)
    story.lease(50, 100)
    story.window(80, 120)
    assert story.strip("w0") == "up 0-50 standby 50-100 up 100-300"
    assert story.strip("w1") == "up 0-300"


def test_a_claim_counts_only_where_the_time_was_unobserved():
    story = Story(end_s=600)
    story.beat(0, "h")
    story.gap(80, 300)  # silent 90-310 is forgiven
    story.beat(310, "h")
    story.claim(60, "u")  # to 120 only: the next claim cuts it; counts from 90
    story.claim(120, "h")
    story.claim(120, "u")  # the first stored counts
    story.claim(260, "p")  # cut at the beat of 310
    story.claim(450, "h")  # nobody was at fault then
    assert story.strip("w0") == (
        "up 0-90 claimed_unhealthy 90-120 claimed_up 120-210 unobserved 210-260 claimed_updating 260-310"
        " up 310-400 silent 400-600"
    )


def test_of_claims_only_up_goes_over_ordered_maintenance():
    story = Story(end_s=400)
    story.beat(0, "h")
    story.gap(80, 300)
    story.beat(310, "h")
    story.window(0, 400)
    story.claim(100, "h")
    story.claim(150, "u")
    story.claim(200, "p")
    assert story.strip("w0") == (
        "up 0-90 maintenance 90-100 claimed_up 100-150 maintenance 150-310 up 310-400"
    )


def test_a_claim_lives_by_the_ttl_of_the_session_it_names():
    story = Story(end_s=400)
    story.session(1, -1000, ttl_s=90)
    story.session(2, 50, ttl_s=120)
    story.beat(0, "h")
    story.gap(80, 390)
    story.claim(90, "h", generation=2)
    story.claim(300, "h", generation=9)  # no such session
    assert story.strip("w0") == "up 0-90 claimed_up 90-210 unobserved 210-400"


@pytest.mark.parametrize("every_s", [1, 10, 44])
def test_beating_more_often_than_the_ttl_gains_nothing(every_s: int):
    story = Story()
    story.beats(0, 440, every_s=every_s)
    assert story.uptime()["up"] == 440 - 440 % every_s + 90


def test_once_per_ttl_and_off_in_between_gains_at_most_ttl_per_beat():
    story = Story()
    story.beats(0, 1000, every_s=100)
    assert story.uptime() == {"up": 11 * 90, "silent": 3600 - 11 * 90}


def test_a_day_boundary_divides_without_loss_or_double_count():
    story = Story(end_s=86_400 + 100)
    story.beats(86_220, 86_400 + 60)
    whole = story.uptime(from_s=86_000, to_s=87_000)
    before = story.uptime(from_s=86_000, to_s=86_400)
    after = story.uptime(from_s=86_400, to_s=87_000)
    assert before == {"silent": 220, "up": 180}
    assert after == {"up": 100}
    assert whole["up"] == before["up"] + after["up"]
