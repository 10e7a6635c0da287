"""Frames by hand: which code each must get, and whether it counts (WIRE.md)."""

import pytest

from tests.sim.hand import Story, ms
from tests.sim.oracle.rules import BUSY, CLOCK, EARLY, OK, REKEY, RESYNC, STALE, STANDBY


def credited(story: Story) -> list[bool]:
    return [one.credited for one in story.oracle().judged()]


def test_a_beat_is_early_below_a_quarter_of_the_interval_and_credited_all_the_same():
    story = Story()
    for at_s in (0, 60, 74.999, 89.999, 104.999):
        story.beat(at_s)
    assert story.codes() == [OK, OK, EARLY, OK, OK]
    assert credited(story) == [True] * 5


def test_early_goes_by_the_ttl_of_the_last_accepted_beat_not_of_this_one():
    story = Story()
    story.beat(0, ttl_s=90)  # interval 60, a quarter 15
    story.beat(10, ttl_s=180)  # interval 120, a quarter 30
    story.beat(35, ttl_s=90)
    assert story.codes() == [OK, EARLY, EARLY]


def test_of_two_copies_exactly_one_is_credited_and_the_other_is_stale():
    story = Story()
    story.beat(0)
    story.beat(60)
    story.beat(60.2, seq_s=60)
    story.beat(65, seq_s=59)
    assert story.codes() == [OK, OK, STALE, STALE]
    assert credited(story) == [True, True, False, False]


def test_a_refused_frame_moves_nothing():
    story = Story()
    story.beat(0)
    story.beat(60, seq_s=151)  # CLOCK, and its seq must not block the next
    story.beat(61)
    assert story.codes() == [OK, CLOCK, OK]


@pytest.mark.parametrize(
    ("seq_s", "code"),
    [(310, OK), (310.001, CLOCK), (130, OK), (129.999, CLOCK), (1, CLOCK)],
)
def test_the_clock_may_be_off_by_ninety_seconds_and_clock_goes_over_stale(seq_s: float, code: int):
    story = Story()
    story.beat(100, seq_s=100)
    story.beat(220, seq_s=seq_s)
    assert story.codes() == [OK, code]


def test_refusals_over_udp_are_answered_once_a_second_per_row():
    story = Story()
    story.beat(100)
    for at_s in (101, 101.5, 101.999, 102):
        story.beat(at_s, seq_s=50)
    story.beat(102.1, seq_s=300)
    story.beat(102.2, seq_s=300, via="http")
    assert story.codes() == [OK, STALE, None, None, STALE, None, CLOCK]


def test_no_ack_silences_ok_and_early_only_and_not_over_http():
    story = Story()
    story.beat(0, no_ack=True)
    story.beat(1, no_ack=True)
    story.beat(61, no_ack=True, via="http")
    story.beat(62, seq_s=62, no_ack=True, via="json", seq=None)
    story.beat(63, seq_s=0, no_ack=True)
    assert story.codes() == [None, None, OK, EARLY, STALE]
    assert credited(story) == [True, True, True, True, False]


def test_json_has_no_seq_and_leaves_the_last_one_alone():
    story = Story()
    story.beat(0)
    story.beat(60, via="json")
    story.beat(90, seq_s=1)
    story.beat(120, via="json", unknown_ids=True)
    assert story.codes() == [OK, OK, OK, RESYNC]


def test_a_receive_time_below_the_last_accepted_one_is_lifted_to_it():
    story = Story()
    story.beat(60, via="json")
    story.beat(59.9)
    assert [one.t_ms for one in story.oracle().judged()] == [ms(60), ms(60)]
    assert story.codes() == [OK, EARLY]


def test_the_previous_generation_is_honoured_for_sixty_seconds_and_has_a_seq_of_its_own():
    story = Story()
    story.session(1, 0)
    story.session(2, 100)
    story.beat(60, generation=1)
    story.beat(100, generation=2, seq_s=20)
    story.beat(120, generation=1, seq_s=61)
    story.beat(159.999, generation=1)
    story.beat(160, generation=1)
    story.beat(99, generation=3)
    assert story.codes() == [OK, OK, OK, OK, None, None]
    assert credited(story)[-2:] == [False, False]


def test_two_new_sessions_at_once_leave_only_the_last_but_one():
    story = Story()
    for generation, opened_s in ((1, 0), (2, 100), (3, 110)):
        story.session(generation, opened_s)
    story.beat(120, generation=1)
    story.beat(121, generation=2)
    story.beat(141, generation=3)
    assert story.codes() == [None, OK, OK]


def test_rekey_in_the_last_tenth_of_a_session_then_silence():
    story = Story()
    story.session(1, 0, life_s=1000)
    for at_s in (899.999, 930, 999.999, 1000):
        story.beat(at_s)
    assert story.codes() == [OK, REKEY, REKEY, None]


def test_revocation_kills_both_generations():
    story = Story(revoked=[150])
    story.session(1, 0)
    story.session(2, 120)
    story.session(3, 300)
    for at_s, generation in ((149, 1), (150, 1), (151, 2), (310, 3), (330, 2)):
        story.beat(at_s, generation=generation)
    assert story.codes() == [OK, None, None, OK, None]


def test_resync_until_a_frame_of_the_newer_generation_comes():
    story = Story(slots=3, lives={2: (100, None)})
    story.session(1, 0, mask=0b011)
    story.session(2, 200, mask=0b111)
    story.beat(90, generation=1)
    story.beat(150, generation=1)
    story.beat(205, generation=1)
    story.beat(225, generation=2)
    story.beat(245, generation=1)
    assert story.codes() == [OK, RESYNC, RESYNC, OK, OK]


def test_the_shard_may_know_of_a_new_slot_a_second_late():
    story = Story(slots=3, lives={2: (100, None)})
    story.session(1, 0, mask=0b011)
    story.beat(100.9)
    assert story.oracle().judged()[0].codes == {OK, RESYNC}


def test_rekey_goes_over_resync_over_standby_over_early():
    story = Story(slots=3, lives={2: (500, None)})
    story.session(1, 0, mask=0b011, life_s=1000)
    story.lease(100, None)
    story.beat(400)
    story.beat(401)
    story.beat(600)
    story.beat(950)
    assert story.codes() == [STANDBY, STANDBY, RESYNC, REKEY]


def test_a_frame_in_flight_at_a_crash_never_came_and_its_seq_is_free_again():
    story = Story()
    story.beat(0)
    story.beat(60, durable=False)
    story.beat(60.01, seq_s=60, durable=False)
    story.crash(59, 62)
    story.beat(63, seq_s=60)
    lost, copy = story.oracle().judged()[1:3]
    assert lost.codes == {None, BUSY}
    assert copy.codes == {None, BUSY, STALE}
    assert credited(story) == [True, False, False, True]


def test_a_seq_whose_batch_could_not_be_written_stays_reserved_until_a_restart():
    story = Story()
    story.beat(0)
    story.beat(60, durable=False)
    story.gap(59, 62, "disk_full")
    story.beat(63, seq_s=60)
    assert story.codes()[2] == STALE
    assert credited(story) == [True, False, False]


def test_where_the_seqs_were_lost_a_seq_must_lie_after_the_start():
    story = Story()
    story.beat(0)
    story.crash(30, 50, seqs_lost=True)
    story.session(1, -1000)
    story.session(2, 70)
    story.beat(60, seq_s=50, generation=1)
    story.beat(61.5, seq=(ms(50) + 1) << 16, generation=1)
    story.beat(80, seq_s=10, generation=2)
    assert story.codes() == [OK, STALE, OK, OK]
