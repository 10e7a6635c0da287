"""Rules of the client: when it sends, how it retries, which seq, which way, and what it keeps."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from np1.codec import FLAG_NO_ACK, FLAG_STOPPING, REFUSED, Code, State
from np1.effects import (
    Credited,
    OpenSession,
    Path,
    PathChanged,
    SendHttp,
    SendUdp,
    SessionOpened,
    Stopped,
    Unacknowledged,
)
from np1.route import PROBE_MS_MAX, PROBE_MS_MIN, Route
from np1.session import BackfillBeat
from tests.np1.rig import GRANT, SERVER_MS, Middling, Rig


def kinds(effects):
    return [type(effect) for effect in effects]


def test_the_first_beat_comes_at_a_random_moment_inside_one_interval():
    moments = set()
    for seed in range(40):
        rig = Rig(rng=random.Random(seed))
        rig.start()
        opened_ms = rig.now_ms
        rig.open()
        rig.until(SendUdp)
        moments.add(rig.now_ms - opened_ms)
    assert all(0 <= moment < 60_000 for moment in moments)
    assert min(moments) < 10_000
    assert max(moments) > 50_000


def test_a_frame_says_what_the_workloads_are_and_nothing_of_those_without_a_slot():
    rig = Rig()
    rig.client.set_states({"a": State.UNHEALTHY, "b": State.UPDATING, "elsewhere": State.HEALTHY})
    rig.start()
    opened = rig.open()
    assert opened == [SessionOpened(7, 1, ("elsewhere",))]
    beat = rig.read(rig.until(SendUdp))
    assert (beat.plane0, beat.plane1) == (0b10, 0b11)
    assert (beat.row, beat.generation, beat.flags) == (7, 1, 0)


def test_the_next_beat_goes_when_the_ack_says():
    rig = Rig()
    rig.ack(rig.beat(), next_ms=47_000)
    answered_ms = rig.now_ms
    rig.until(SendUdp)
    assert rig.now_ms == answered_ms + 47_000


def test_a_server_that_says_zero_does_not_make_the_client_spin():
    rig = Rig()
    rig.ack(rig.beat(), next_ms=0)
    sent = rig.advance(60_000)
    assert 1 <= len(sent) <= 4


def test_without_an_ack_there_are_three_tries_and_then_silence_until_the_interval_is_over():
    rig = Rig()
    rig.beat()
    first_ms = rig.now_ms
    rig.advance(60_000)
    # min(1 s, interval/3), then ttl/4, each plus 10 % (the middle of 0 to 20); then one interval after try 1.
    assert [at - first_ms for at, _ in rig.frames()] == [0, 1_100, 1_100 + 24_750, 60_000]


@pytest.mark.parametrize(("draw", "expected"), [(0.0, [0, 333, 333 + 375]), (0.999999, [0, 399, 399 + 449])])
def test_at_an_interval_of_a_second_the_tries_still_fit(draw, expected):
    rig = Rig(grant=replace(GRANT, interval_ms=1_000, ttl_ms=1_500))
    rig.client._rng.random = lambda: draw
    rig.beat()
    first_ms = rig.now_ms
    rig.advance(999)
    assert [at - first_ms for at, _ in rig.frames()] == expected


def test_a_try_that_would_come_after_the_next_beat_is_left_out():
    rig = Rig(grant=replace(GRANT, interval_ms=3_000, ttl_ms=90_000))
    rig.beat()
    first_ms = rig.now_ms
    rig.advance(5_000)
    assert [at - first_ms for at, _ in rig.frames()] == [0, 1_100, 3_000, 4_100]


def test_the_third_try_follows_the_ttl_that_was_told_last():
    rig = Rig()
    rig.ack(rig.beat(), next_ms=600_000, ttl_ms=900_000)
    rig.until(SendUdp)
    first_ms, before = rig.now_ms, len(rig.log)
    rig.advance(500_000)
    assert [at - first_ms for at, _ in rig.frames(before)] == [1_100, 1_100 + 247_500]


def test_every_try_has_a_new_and_higher_seq():
    rig = Rig()
    rig.beat()
    rig.advance(200_000)
    seqs = [rig.read(sent).seq for _, sent in rig.frames()]
    assert len(seqs) > 8
    assert seqs == sorted(set(seqs))


def test_seq_is_the_servers_time_shifted_by_16_bits():
    rig = Rig()
    sent = rig.beat()
    assert rig.read(sent).seq == rig.server_ms << 16


def test_the_estimate_of_the_servers_clock_follows_every_reply():
    rig = Rig()
    rig.ack(rig.beat())
    rig.offset_ms += 20_000
    rig.ack(rig.until(SendUdp))  # its seq was still made by the old estimate
    assert rig.read(rig.until(SendUdp)).seq == rig.server_ms << 16


def test_seq_rises_even_when_the_servers_clock_goes_back():
    rig = Rig()
    first = rig.beat()
    rig.ack(first)
    rig.offset_ms -= 80_000
    second = rig.until(SendUdp)
    rig.ack(second)
    third = rig.until(SendUdp)
    assert rig.read(first).seq < rig.read(second).seq
    assert rig.read(third).seq == rig.read(second).seq + 1


def test_an_answer_to_the_first_try_ends_the_tries():
    rig = Rig()
    rig.ack(rig.beat())
    assert rig.advance(59_999) == []


def test_an_ack_with_a_wrong_tag_is_ignored():
    rig = Rig()
    sent = rig.beat()
    assert rig.ack(sent, key=bytes(16)) == []
    assert rig.client.statistics().ignored == 1
    assert rig.until(SendUdp).seq != sent.seq
    assert rig.now_ms < 60_000 + 5_000  # it was a retry


def test_an_ack_to_a_seq_that_was_not_sent_or_is_answered_already_is_ignored():
    rig = Rig()
    sent = rig.beat()
    stranger = SendUdp(b"", "", sent.seq + 1, 1)
    assert rig.ack(stranger) == []
    assert kinds(rig.ack(sent)) == [Credited]
    planned_ms = rig.wake_ms
    rig.advance(500)
    assert rig.ack(sent, next_ms=1_000) == []
    assert rig.wake_ms == planned_ms
    assert rig.client.statistics().ignored == 2


def test_48_zero_bytes_over_udp_mean_nothing():
    rig = Rig()
    rig.beat()
    assert rig.take(rig.client.on_datagram(REFUSED, rig.now_ms)) == []
    assert not rig.opening()


def test_a_late_ack_to_an_earlier_try_credits_the_beat():
    rig = Rig()
    first = rig.beat()
    rig.until(SendUdp)
    assert kinds(rig.ack(first, next_ms=50_000)) == [Credited]
    assert rig.client.unacknowledged() == []
    assert [at for at, _ in rig.advance(49_999)] == []


def test_a_refusal_of_an_earlier_try_does_not_disturb_a_beat_that_is_credited():
    for code in (Code.BUSY, Code.STALE):
        rig = Rig()
        first = rig.beat()
        rig.ack(rig.until(SendUdp), next_ms=60_000)
        planned_ms = rig.wake_ms
        rig.ack(first, code, next_ms=1_000, ttl_ms=0)
        assert rig.wake_ms == planned_ms


def test_the_interval_is_the_last_next_ms_when_that_is_larger():
    rig = Rig()
    rig.ack(rig.beat(), next_ms=120_000)
    sent_ms = rig.now_ms
    rig.until(SendUdp)
    assert rig.now_ms == sent_ms + 120_000
    before = len(rig.log)
    first_ms = rig.now_ms
    rig.advance(120_000)
    tries = [at - first_ms for at, _ in rig.frames(before)]
    assert tries == [1_100, 25_850, 120_000]


# Keeping what was never acknowledged.


def test_a_beat_that_nobody_acknowledged_is_kept_with_its_time_and_planes():
    rig = Rig()
    rig.beat()
    at_ms = rig.server_ms
    told = [effect for _, effect in rig.advance(60_000) if isinstance(effect, Unacknowledged)]
    kept = BackfillBeat(at_ms=at_ms, plane0=0b11, plane1=0b10, generation=1)
    assert told == [Unacknowledged(kept)]
    assert rig.client.unacknowledged() == [kept]


def test_the_beat_that_is_still_being_tried_is_not_offered_for_the_backfill():
    rig = Rig()
    rig.beat()
    assert rig.client.unacknowledged() == []
    rig.advance(50_000)
    assert rig.client.unacknowledged() == []
    assert rig.client.statistics().unacknowledged == 1


def test_a_credit_that_comes_after_the_interval_still_takes_the_beat_out():
    rig = Rig()
    first = rig.beat()
    rig.advance(61_000)
    assert len(rig.client.unacknowledged()) == 1
    rig.ack(first)
    assert rig.client.unacknowledged() == []


def test_a_try_that_says_something_else_is_kept_beside_the_one_before_it():
    rig = Rig()
    rig.beat()
    rig.client.set_states({"a": State.UNHEALTHY})
    second = rig.until(SendUdp)
    rig.client.set_states({"a": State.HEALTHY})
    rig.advance(60_000)
    assert [(beat.plane0, beat.plane1) for beat in rig.client.unacknowledged()] == [(3, 2), (0, 1), (1, 0)]
    rig.ack(second)  # it also makes known what the try before it said, but not what the one after it did
    assert [(beat.plane0, beat.plane1) for beat in rig.client.unacknowledged()] == [(1, 0)]


def test_the_buffer_is_bounded_and_drops_the_oldest():
    rig = Rig(backlog_beats_max=3)
    rig.beat()
    rig.advance(10 * 60_000)
    kept = rig.client.unacknowledged()
    assert len(kept) <= 3
    assert kept[-1].at_ms > SERVER_MS + 8 * 60_000
    assert rig.client.statistics().dropped >= 7


def test_what_was_handed_in_is_kept_no_longer():
    rig = Rig()
    rig.beat()
    rig.advance(200_000)
    kept = rig.client.unacknowledged()
    assert len(kept) == 3
    rig.client.handed_in(kept[:2])
    assert rig.client.unacknowledged() == kept[2:]


# NO_ACK.


def test_a_quiet_client_asks_for_an_ack_at_least_every_fifth_beat():
    rig = Rig(quiet=True)
    rig.ack(rig.beat())
    flags = []
    for _ in range(20):
        sent = rig.until(SendUdp)
        flags.append(rig.read(sent).flags)
        if not flags[-1]:
            rig.ack(sent)
    quiet = FLAG_NO_ACK
    assert flags == [quiet, quiet, quiet, quiet, 0] * 4


def test_a_quiet_beat_is_neither_retried_nor_kept():
    rig = Rig(quiet=True)
    rig.ack(rig.beat())
    assert rig.read(rig.until(SendUdp)).flags == FLAG_NO_ACK
    assert rig.advance(59_999) == []
    assert rig.client.statistics().unacknowledged == 0


def test_the_first_beat_and_those_after_a_silence_are_never_quiet():
    rig = Rig(quiet=True)
    assert rig.read(rig.beat()).flags == 0
    rig.advance(120_000)
    assert {rig.read(sent).flags for _, sent in rig.frames()} == {0}


def test_a_refusal_of_a_quiet_beat_is_heard():
    rig = Rig(quiet=True)
    rig.ack(rig.beat())
    rig.ack(rig.until(SendUdp), Code.MOVED)
    assert isinstance(rig.until(OpenSession), OpenSession)


# Which way.


def silent_until_http(rig):
    rig.ack(rig.beat())
    return rig.until(SendHttp)


def test_three_intervals_without_a_valid_ack_switch_to_http():
    rig = Rig()
    rig.ack(rig.beat())
    first = rig.until(SendUdp)
    first_ms = rig.now_ms
    request = rig.until(SendHttp)
    assert rig.now_ms == first_ms + 3 * 60_000
    assert (rig.now_ms, PathChanged(Path.HTTP)) in rig.log
    assert request.endpoint == GRANT.http
    assert len(request.body) == 48
    assert rig.read(request).seq > rig.read(first).seq


def test_a_valid_ack_of_any_code_keeps_the_client_on_udp():
    rig = Rig()
    rig.ack(rig.beat())
    for _ in range(12):
        rig.ack(rig.until(SendUdp), Code.BUSY)
        rig.advance(2 * 60_000)
    assert rig.client.statistics().path is Path.UDP


def test_http_replies_credit_beats():
    rig = Rig()
    request = silent_until_http(rig)
    missed = len(rig.client.unacknowledged())
    assert kinds(rig.ack(request, next_ms=30_000)) == [Credited]
    assert len(rig.client.unacknowledged()) == missed
    started_ms = rig.now_ms
    rig.until(SendHttp)
    assert rig.now_ms == started_ms + 30_000


def test_udp_is_probed_after_10_to_60_minutes_and_kept_when_it_answers():
    for seed in range(10):
        rig = Rig(rng=random.Random(seed))
        request = silent_until_http(rig)
        switched_ms = rig.now_ms
        sent = request
        while isinstance(sent, SendHttp):
            rig.ack(sent)
            sent = rig.until((SendHttp, SendUdp))
        assert PROBE_MS_MIN <= rig.now_ms - switched_ms <= PROBE_MS_MAX + 60_000
        assert kinds(rig.ack(sent)) == [PathChanged, Credited]
        assert isinstance(rig.until((SendHttp, SendUdp)), SendUdp)


def test_a_probe_that_fails_costs_no_credit_and_is_repeated_later():
    rig = Rig()
    sent = silent_until_http(rig)
    probes = []
    for _ in range(200):
        if isinstance(sent, SendUdp):
            probes.append(rig.now_ms)
            before_ms = rig.now_ms
            sent = rig.until((SendHttp, SendUdp))
            assert isinstance(sent, SendHttp)
            assert rig.now_ms - before_ms <= 1_200
        rig.ack(sent)
        sent = rig.until((SendHttp, SendUdp))
    assert len(probes) >= 3
    assert all(late - early >= PROBE_MS_MIN for early, late in pairwise(probes))


def test_only_a_first_try_probes():
    route = Route(Middling())
    for _ in range(3):
        route.missed_interval(0)
    assert route.choose(PROBE_MS_MAX, first_try=False) is Path.HTTP
    assert route.choose(PROBE_MS_MAX, first_try=True) is Path.UDP
    assert route.choose(PROBE_MS_MAX, first_try=True) is Path.HTTP  # the next probe is not due yet


def test_over_http_nothing_is_quiet():
    rig = Rig(quiet=True)
    rig.ack(rig.beat())
    sent = rig.until(SendHttp)
    for _ in range(8):
        assert rig.read(sent).flags == 0
        rig.ack(sent)
        sent = rig.until(SendHttp)


# Stopping.


def test_a_stop_is_told_at_once_and_ends_with_its_credit():
    rig = Rig()
    rig.ack(rig.beat())
    rig.advance(10_000)
    (sent,) = rig.take(rig.client.stop(rig.now_ms))
    assert rig.read(sent).flags == FLAG_STOPPING
    assert rig.ack(sent, ttl_ms=0)[-1] == Stopped(credited=True)
    assert rig.wake_ms is None
    assert rig.take(rig.client.wake(rig.now_ms + 10**7, SERVER_MS)) == []


def test_a_stop_that_nobody_answers_is_tried_three_times_and_given_up():
    rig = Rig()
    rig.ack(rig.beat())
    start = len(rig.log)
    rig.take(rig.client.stop(rig.now_ms))
    rig.advance(200_000)
    assert [rig.read(sent).flags for _, sent in rig.frames(start)] == [FLAG_STOPPING] * 3
    assert rig.log[-1][1] == Stopped(credited=False)
    assert rig.client.statistics().unacknowledged == 0  # a stop vouches for nothing


def test_a_stop_is_no_probe():
    rig = Rig()
    rig.ack(silent_until_http(rig), next_ms=2 * PROBE_MS_MAX)
    rig.advance(PROBE_MS_MAX + 1)
    (sent,) = rig.take(rig.client.stop(rig.now_ms))
    assert isinstance(sent, SendHttp)


def test_a_stop_that_is_answered_busy_goes_on():
    rig = Rig()
    rig.ack(rig.beat())
    (sent,) = rig.take(rig.client.stop(rig.now_ms))
    rig.ack(sent, Code.BUSY, next_ms=1_000, ttl_ms=0)
    again = rig.until(SendUdp)
    assert rig.read(again).flags == FLAG_STOPPING
    assert rig.ack(again, ttl_ms=0)[-1] == Stopped(credited=True)


def test_a_stop_before_any_session_has_nothing_to_say():
    rig = Rig()
    rig.start()
    assert rig.take(rig.client.stop(rig.now_ms)) == [Stopped(credited=False)]
    assert rig.open() == []


def test_stopping_twice_is_stopping_once():
    rig = Rig()
    rig.ack(rig.beat())
    rig.take(rig.client.stop(rig.now_ms))
    assert rig.take(rig.client.stop(rig.now_ms)) == []
