"""Gaps by hand: whose silence is our own fault (LIVENESS.md 3). Interval 60 s, ttl 90 s, grace 300 s."""

import pytest

from tests.sim.hand import Story, ms


def told(story: Story) -> str:
    """Everything from the end of coverage of the beat at 60 s on."""
    return story.strip(from_s=150)


@pytest.mark.parametrize(
    ("back_s", "strip"),
    [
        (310, "unobserved 150-310 up 310-400 silent 400-3600"),
        (599.999, "unobserved 150-599.999 up 599.999-689.999 silent 689.999-3600"),
        (600, "unobserved 150-300 silent 300-600 up 600-690 silent 690-3600"),
        (1500, "unobserved 150-300 silent 300-1500 up 1500-1590 silent 1590-3600"),
    ],
)
def test_a_covered_row_is_forgiven_the_gap_and_the_way_back_inside_the_grace(back_s: float, strip: str):
    story = Story()
    story.beats(0, 60)
    story.gap(100, 300, "crash")
    story.beat(back_s)
    assert told(story) == strip


def test_a_row_covered_to_the_very_start_of_the_gap_was_silent_before_it():
    for gap_s, strip in ((150, "silent 150-310"), (149.999, "unobserved 150-310")):
        story = Story()
        story.beats(0, 60)
        story.gap(gap_s, 300)
        story.beat(310)
        assert told(story).startswith(strip)


def test_who_was_silent_stays_silent():
    story = Story()
    story.beats(0, 60)
    story.gap(200, 300)
    story.beat(310)
    assert told(story) == "silent 150-310 up 310-400 silent 400-3600"


@pytest.mark.parametrize(
    ("back_s", "strip"),
    [
        (191.999, "unobserved 150-191.999 up 191.999-281.999 silent 281.999-3600"),
        (192, "silent 150-192 up 192-282 silent 282-3600"),
    ],
)
def test_a_short_stall_forgives_no_long_absence(back_s: float, strip: str):
    """Covered at g1 = 102 (to 150), so the bound is g1 + ttl = 192."""
    story = Story()
    story.beats(0, 60)
    story.gap(100, 102)
    story.beat(back_s)
    assert told(story) == strip


def test_a_beat_inside_a_gap_forgives_from_the_start_of_that_gap():
    story = Story(end_s=500)
    story.beats(0, 60)
    story.gap(200, 300, "disk_full")
    story.beat(250)  # covered to 340 at g1: the way back must be short, before 390
    story.beat(389)
    assert (
        told(story)
        == "silent 150-200 unobserved 200-250 up 250-340 unobserved 340-389 up 389-479 silent 479-500"
    )


def test_gaps_that_follow_within_the_grace_are_one():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.gap(100, 200, "crash")
    story.gap(499.999, 510, "crash")
    story.beat(700)
    assert told(story) == "unobserved 150-700 up 700-790 silent 790-900"


def test_a_gap_at_the_end_of_the_grace_stands_alone():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.gap(100, 200, "crash")
    story.gap(500, 510, "crash")
    story.beat(700)
    assert told(story) == "unobserved 150-200 silent 200-700 up 700-790 silent 790-900"


def test_a_beat_between_two_gaps_keeps_them_apart():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.gap(100, 200, "crash")
    story.beat(210)  # to 300
    story.gap(450, 510, "crash")
    story.beat(700)
    assert told(story) == "unobserved 150-210 up 210-300 silent 300-700 up 700-790 silent 790-900"


def test_overlapping_gaps_are_merged_to_the_later_end():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.gap(100, 400, "crash")
    story.gap(200, 300)
    story.gap(100, 400, "crash")
    story.beat(650)
    assert told(story) == "unobserved 150-650 up 650-740 silent 740-900"


def test_of_merged_gaps_the_first_with_a_beat_counts_for_who_was_silent():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.gap(200, 230)
    story.gap(300, 420)
    story.beat(400)
    story.beat(440)
    assert told(story) == "silent 150-300 unobserved 300-400 up 400-530 silent 530-900"


def test_a_stopped_row_is_not_forgiven():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.stop(70)
    story.gap(100, 300)
    story.beat(500)
    assert story.strip(from_s=60) == "up 60-70 stopped 70-500 up 500-590 silent 590-900"


@pytest.mark.parametrize(
    ("from_s", "to_s", "back_s", "strip"),
    [
        (100, 160, 219.999, "unobserved 150-219.999"),
        (100, 160, 220, "silent 150-220"),
        (100, 101, 160.999, "unobserved 150-160.999"),
        (100, 101, 161, "silent 150-161"),
    ],
)
def test_kernel_drops_forgive_for_one_interval_and_the_gap_only_together_with_the_way_back(
    from_s: float, to_s: float, back_s: float, strip: str
):
    story = Story()
    story.beats(0, 60)
    story.gap(from_s, to_s, "drops")
    story.beat(back_s)
    assert told(story).startswith(strip + " up")


def test_the_grace_goes_by_the_ttl_of_the_last_beat():
    story = Story(end_s=900)
    story.beat(0, ttl_s=15)  # interval 10: grace 60
    story.gap(10, 100, "crash")
    story.beat(160)
    assert story.strip() == "up 0-15 unobserved 15-100 silent 100-160 up 160-250 silent 250-900"


@pytest.mark.parametrize(
    ("end_s", "strip", "provisional"),
    [
        (400, "unobserved 150-400", True),
        (599.999, "unobserved 150-599.999", True),
        (600, "unobserved 150-300 silent 300-600", False),
    ],
)
def test_what_may_still_be_forgiven_is_answered_unobserved_and_marked(
    end_s: float, strip: str, provisional: bool
):
    story = Story(end_s=end_s)
    story.beats(0, 60)
    story.gap(100, 300, "crash")
    composed = story.oracle().compose("w0", from_ms=ms(150), to_ms=ms(end_s))
    assert told(story) == strip
    assert composed.provisional is provisional


def test_an_undecided_gap_of_drops_marks_its_own_span_as_well():
    story = Story(end_s=219)
    story.beats(0, 60)
    story.gap(100, 160, "drops")
    composed = story.oracle().compose("w0", from_ms=ms(150), to_ms=ms(155))
    assert composed.provisional is True
    assert told(story) == "unobserved 150-219"


def test_an_answer_read_from_the_first_records_knows_nothing_of_the_later_ones():
    story = Story(end_s=900)
    story.beats(0, 60)
    story.gap(100, 300, "crash")
    story.beat(310)
    composed = story.oracle().compose("w0", from_ms=ms(150), to_ms=ms(400), as_of_ms=ms(305), upto=3)
    assert composed.provisional is True
    assert composed.ms["unobserved"] == 155_000
