"""Rules of the client: what each code and each refusal makes it do, and when it opens a session again."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from np1.codec import REFUSED, Code
from np1.effects import Credited, OpenSession, Path, PathChanged, Refused, SendHttp, SendUdp
from tests.np1.rig import GRANT, SERVER_MS, Rig

HOUR_MS = 3_600_000


def sent_in(effects):
    return [effect for effect in effects if isinstance(effect, SendUdp | SendHttp)]


def opened_within(rig, ms):
    start = len(rig.log)
    rig.advance(ms)
    return sum(isinstance(effect, OpenSession) for _, effect in rig.log[start:])


@pytest.mark.parametrize("code", [Code.OK, Code.EARLY, Code.RESYNC, Code.REKEY, Code.STANDBY])
def test_a_crediting_code_takes_the_beat_out_of_the_buffer(code):
    rig = Rig()
    (told,) = rig.ack(rig.beat(), code)
    assert isinstance(told, Credited)
    assert told.ack.code is code
    assert rig.client.statistics().unacknowledged == 0
    assert rig.client.statistics().codes == {code: 1}


@pytest.mark.parametrize("code", [Code.STALE, Code.MOVED, Code.BUSY])
def test_a_refusing_code_leaves_the_beat_in_the_buffer(code):
    rig = Rig()
    told = rig.ack(rig.beat(), code, ttl_ms=0)
    assert [type(effect) for effect in told] == [Refused]
    assert rig.client.statistics().unacknowledged == 1


# BUSY.


def test_busy_is_retried_after_next_ms_with_a_new_seq():
    rig = Rig()
    first = rig.beat()
    rig.ack(first, Code.BUSY, next_ms=1_500, ttl_ms=0)
    busy_ms = rig.now_ms
    second = rig.until(SendUdp)
    assert rig.now_ms == busy_ms + 1_500
    assert second.seq > first.seq


def test_a_report_that_was_busy_and_then_credited_is_kept_no_longer():
    rig = Rig()
    sent = rig.beat()
    for _ in range(5):
        rig.ack(sent, Code.BUSY, next_ms=1_000, ttl_ms=0)
        assert rig.client.unacknowledged() == []  # it is still being tried
        sent = rig.until(SendUdp)
    rig.ack(sent)
    assert rig.client.statistics().unacknowledged == 0


def test_an_hour_of_busy_keeps_one_beat_per_interval():
    rig = Rig()
    sent = rig.beat()
    until_ms = rig.now_ms + HOUR_MS
    while rig.now_ms < until_ms:
        rig.ack(sent, Code.BUSY, next_ms=1_000, ttl_ms=0)
        sent = rig.until(SendUdp)
    kept = [beat.at_ms for beat in rig.client.unacknowledged()]
    assert 58 <= len(kept) <= 61
    assert kept == sorted(set(kept))


# CLOCK.


def test_clock_sets_the_estimate_forgets_the_seqs_and_sends_again_at_once():
    rig = Rig()
    first = rig.beat()
    rig.offset_ms -= 200_000  # the server is 200 s behind what we believed
    told = rig.ack(first, Code.CLOCK, ttl_ms=0)
    assert [type(effect) for effect in told] == [Refused, SendUdp]
    again = rig.read(told[1])
    assert again.seq == rig.server_ms << 16
    assert again.seq < first.seq


def test_clock_sends_again_only_once():
    rig = Rig()
    (_, again) = rig.ack(rig.beat(), Code.CLOCK, ttl_ms=0)
    assert sent_in(rig.ack(again, Code.CLOCK, next_ms=60_000, ttl_ms=0)) == []
    assert rig.advance(59_999) == []
    assert len(sent_in(effect for _, effect in rig.advance(1))) == 1


def test_clock_answers_to_two_tries_send_again_only_once():
    rig = Rig()
    first = rig.beat()
    second = rig.until(SendUdp)
    rig.offset_ms += 200_000
    again = sent_in(rig.ack(first, Code.CLOCK, ttl_ms=0))
    assert len(again) == 1
    assert sent_in(rig.ack(second, Code.CLOCK, ttl_ms=0)) == []
    assert rig.read(again[0]).seq == rig.server_ms << 16


def test_a_clock_answer_that_comes_very_late_forgets_nothing_and_sends_nothing():
    rig = Rig()
    first = rig.beat()
    second = rig.until(SendUdp)
    (_, again) = rig.ack(first, Code.CLOCK, ttl_ms=0)
    rig.ack(again)
    newest = rig.until(SendUdp)
    assert sent_in(rig.ack(second, Code.CLOCK, ttl_ms=0, server_ms=rig.server_ms - 80_000)) == []
    assert rig.read(rig.until(SendUdp)).seq > newest.seq


def test_after_a_clock_seq_still_lies_above_the_last_credited_one():
    rig = Rig()
    first = rig.beat()
    rig.ack(first)
    second = rig.until(SendUdp)
    rig.offset_ms -= 120_000
    (_, again) = rig.ack(second, Code.CLOCK, ttl_ms=0)
    assert rig.read(again).seq == first.seq + 1


def test_the_beat_after_a_clock_may_be_sent_again_at_once_as_well():
    rig = Rig()
    (_, again) = rig.ack(rig.beat(), Code.CLOCK, ttl_ms=0)
    rig.ack(again)
    assert len(sent_in(rig.ack(rig.until(SendUdp), Code.CLOCK, ttl_ms=0))) == 1


def test_a_beat_refused_by_clock_is_not_kept_because_its_time_is_wrong():
    rig = Rig()
    first = rig.beat()
    (_, again) = rig.ack(first, Code.CLOCK, ttl_ms=0)
    rig.ack(again)
    assert rig.client.statistics().unacknowledged == 0


def test_a_seq_from_before_a_clock_is_never_given_out_again_while_its_answer_may_come():
    rig = Rig()
    first = rig.beat()
    second = rig.until(SendUdp)
    moved_ms = rig.now_ms
    rig.offset_ms -= 200_000
    (_, again) = rig.ack(first, Code.CLOCK, ttl_ms=0)
    rig.ack(again)
    seqs = {again.seq}
    while rig.now_ms < moved_ms + 260_000:  # past the moment at which the estimate meets `second` again
        sent = rig.until(SendUdp)
        seqs.add(sent.seq)
        rig.ack(sent, next_ms=1_000)
    assert second.seq not in seqs


def test_a_server_clock_that_fell_behind_what_it_credited_makes_the_client_open_a_session():
    rig = Rig()
    first = rig.beat()
    rig.ack(first)
    rig.offset_ms -= HOUR_MS
    assert sent_in(rig.ack(rig.until(SendUdp), Code.CLOCK, ttl_ms=0)) == []
    assert opened_within(rig, 20_000) == 1
    rig.reopen()
    assert rig.read(rig.until(SendUdp)).seq == rig.server_ms << 16


# STALE.


def stale(rig, sent):
    return rig.ack(sent, Code.STALE, next_ms=60_000, ttl_ms=0)


def test_three_stale_in_a_row_open_a_session():
    rig = Rig()
    sent = rig.beat()
    for _ in range(2):
        stale(rig, sent)
        assert opened_within(rig, 59_000) == 0
        sent = rig.until(SendUdp)
    stale(rig, sent)
    assert opened_within(rig, 20_000) == 1


def test_a_stale_to_an_older_try_counts_for_nothing():
    rig = Rig()
    sent = rig.beat()
    for _ in range(6):
        newer = rig.until(SendUdp)  # a retry: the first try's STALE comes too late
        assert [type(effect) for effect in stale(rig, sent)] == [Refused]
        rig.ack(newer)
        sent = rig.until(SendUdp)
    assert not rig.opening()


def test_a_stale_to_an_older_try_does_not_end_the_tries_of_the_newest():
    rig = Rig()
    first = rig.beat()
    rig.until(SendUdp)
    stale(rig, first)
    assert isinstance(rig.until(SendUdp, within_ms=30_000), SendUdp)


def test_any_other_answer_breaks_the_row_of_stales():
    for code in (Code.OK, Code.BUSY, Code.CLOCK):
        rig = Rig()
        sent = rig.beat()
        for other in (False, False, True, False, False):
            told = rig.ack(sent, code, ttl_ms=0) if other else stale(rig, sent)
            again = sent_in(told)
            sent = again[0] if again else rig.until(SendUdp)
        assert not rig.opening(), code


# Opening a session again.


@pytest.mark.parametrize("code", [Code.REKEY, Code.RESYNC, Code.MOVED])
def test_these_codes_open_a_session_with_jitter(code):
    waits = set()
    for seed in range(20):
        rig = Rig(rng=random.Random(seed))
        rig.ack(rig.beat(), code)
        told_ms = rig.now_ms
        rig.until(OpenSession, within_ms=60_000)
        waits.add(rig.now_ms - told_ms)
    assert len(waits) > 15


def test_being_told_again_and_again_opens_one_session():
    rig = Rig()
    sent = rig.beat()
    for _ in range(5):
        rig.ack(sent, Code.REKEY, next_ms=1_000)
        sent = rig.until(SendUdp)
    assert opened_within(rig, 60_000) == 1


def test_being_told_while_a_request_is_on_its_way_opens_no_second_session():
    rig = Rig()
    rig.ack(rig.beat(), Code.REKEY)
    rig.until(OpenSession)
    for code in (Code.REKEY, Code.RESYNC, Code.MOVED):
        rig.ack(rig.until(SendUdp), code)
    assert opened_within(rig, 120_000) == 0


def test_beats_go_on_under_the_old_session_until_the_new_one_is_there():
    rig = Rig()
    rig.ack(rig.beat(), Code.REKEY)
    rig.until(OpenSession)
    assert rig.read(rig.until(SendUdp)).generation == 1
    rig.reopen(key=bytes(16))
    assert rig.read(rig.until(SendUdp)).generation == 2


def test_a_new_session_keeps_the_rhythm_of_credited_beats():
    rig = Rig()
    rig.ack(rig.beat(), Code.REKEY, next_ms=60_000)
    credited_ms = rig.now_ms
    rig.until(OpenSession)
    rig.reopen()
    rig.until(SendUdp)
    assert rig.now_ms == credited_ms + 60_000


def test_after_a_refusal_the_first_beat_of_the_new_session_comes_within_a_second():
    rig = Rig()
    rig.ack(rig.beat(), Code.MOVED)
    rig.until(OpenSession)
    opened_ms = rig.now_ms
    rig.reopen(udp="192.0.2.2:7900")
    sent = rig.until(SendUdp)
    assert rig.now_ms - opened_ms <= 1_000
    assert sent.endpoint == "192.0.2.2:7900"


def test_an_ack_for_the_previous_generation_still_credits_but_asks_for_nothing():
    rig = Rig()
    rig.ack(rig.beat(), Code.REKEY)
    late = rig.until(SendUdp)
    rig.reopen(key=bytes(16))
    assert isinstance(rig.ack(late, Code.REKEY)[0], Credited)
    assert opened_within(rig, 120_000) == 0


def test_a_new_place_is_tried_over_udp_again():
    rig = Rig()
    rig.ack(rig.beat())
    rig.ack(rig.until(SendHttp), Code.MOVED)
    rig.until(OpenSession)
    told = rig.reopen(udp="192.0.2.2:7900")
    assert PathChanged(Path.UDP) in told


def test_the_session_is_opened_again_once_its_life_is_over():
    rig = Rig(first_within_ms=0)
    rig.start()
    rig.open(expires_ms=SERVER_MS + 30_000)
    rig.ack(rig.until(SendUdp))
    rig.until(OpenSession)
    assert SERVER_MS + 30_000 <= rig.server_ms <= SERVER_MS + 50_000


@pytest.mark.parametrize(("status", "body"), [(401, b""), (404, b"{}"), (200, REFUSED)])
def test_a_session_that_http_knows_nothing_of_is_opened_again(status, body):
    rig = Rig()
    rig.ack(rig.beat())
    request = rig.until(SendHttp)
    rig.take(rig.client.on_http_reply(request, status, body, rig.now_ms))
    assert opened_within(rig, 20_000) == 1
    rig.reopen()
    # The same refusal, late, speaks of the generation that is gone.
    rig.take(rig.client.on_http_reply(request, status, body, rig.now_ms))
    assert opened_within(rig, 20_000) == 0


@pytest.mark.parametrize(("status", "body"), [(503, b""), (500, REFUSED), (200, b""), (200, b"\0" * 96)])
def test_other_replies_over_http_are_no_answer(status, body):
    rig = Rig()
    rig.ack(rig.beat())
    request = rig.until(SendHttp)
    rig.take(rig.client.on_http_reply(request, status, body, rig.now_ms))
    assert isinstance(rig.until(SendHttp, within_ms=1_200), SendHttp)
    assert not rig.opening()


# Refused sessions.


def test_a_refused_session_is_asked_for_again_more_and_more_slowly():
    rig = Rig(rng=random.Random(3))
    rig.start()
    waits = []
    for _ in range(14):
        asked_ms = rig.now_ms
        rig.refuse(503)
        rig.until(OpenSession)
        waits.append(rig.now_ms - asked_ms)
    assert 1_000 <= waits[0] <= 2_000
    assert all(150_000 <= wait <= 300_000 for wait in waits[-4:])
    assert sum(waits[:5]) > 20_000  # far below 10 signed requests a minute


def test_retry_after_is_obeyed():
    rig = Rig()
    rig.start()
    rig.refuse(429, code="rate", retry_after_ms=600_000)
    asked_ms = rig.now_ms
    rig.until(OpenSession)
    assert rig.now_ms >= asked_ms + 600_000


def test_a_skewed_clock_is_corrected_and_asked_with_at_once_once():
    rig = Rig()
    rig.start()
    rig.offset_ms += HOUR_MS
    rig.refuse(401, code="clock_skew", server_ms=rig.server_ms)
    asked_ms = rig.now_ms
    assert rig.until(OpenSession).sent_at_ms == rig.server_ms
    assert rig.now_ms == asked_ms
    rig.refuse(401, code="clock_skew", server_ms=rig.server_ms)
    rig.until(OpenSession)
    assert rig.now_ms > asked_ms


def test_the_first_request_names_the_systems_time_and_later_ones_the_servers():
    rig = Rig()
    (first,) = rig.take(rig.client.start(rig.now_ms, SERVER_MS + 777))
    assert first == OpenSession(SERVER_MS + 777)
    rig.open()
    rig.ack(rig.until(SendUdp), Code.REKEY)
    assert rig.until(OpenSession).sent_at_ms == rig.server_ms


def test_sessions_that_never_bring_a_credit_are_opened_ever_more_slowly():
    rig = Rig(rng=random.Random(5))
    rig.beat()
    opened = []
    sent = rig.frames()[-1][1]
    for _ in range(8):
        rig.ack(sent, Code.MOVED, next_ms=1_000, ttl_ms=0)
        rig.until(OpenSession)
        opened.append(rig.now_ms)
        rig.reopen()
        sent = rig.until(SendUdp)
    waits = [late - early for early, late in pairwise(opened)]
    assert waits[-1] > 5 * waits[0]
    assert waits[-1] >= 60_000


# RESYNC.


def test_a_changed_slot_map_is_in_force_after_one_new_session():
    rig = Rig()
    rig.ack(rig.beat(), Code.RESYNC)
    rig.until(OpenSession)
    rig.reopen(slots=(*GRANT.slots, (2, "c")))
    rig.ack(rig.until(SendUdp))
    assert opened_within(rig, 600_000) == 0


def test_a_resync_that_no_session_cures_is_not_answered_with_endless_sessions():
    rig = Rig()
    sent = rig.beat()
    sessions = 0
    until_ms = rig.now_ms + 6 * HOUR_MS
    while rig.now_ms < until_ms:
        rig.ack(sent, Code.RESYNC)
        sent = rig.until((SendUdp, OpenSession))
        while isinstance(sent, OpenSession):
            sessions += 1
            rig.reopen()
            sent = rig.until((SendUdp, OpenSession))
    assert 6 <= sessions <= 40  # about every 10 minutes, not every minute


def test_after_a_desired_version_a_changed_slot_map_is_still_noticed():
    rig = Rig()
    rig.ack(rig.beat(), Code.RESYNC)
    rig.until(OpenSession)
    rig.reopen()  # the same slots: it was a desired version
    sent = rig.until(SendUdp)
    opened = 0
    for _ in range(15):
        rig.ack(sent, Code.RESYNC)
        sent = rig.until((SendUdp, OpenSession))
        if isinstance(sent, OpenSession):
            opened += 1
            rig.reopen(slots=(*GRANT.slots, (2, "c")))
            break
    assert opened == 1
    rig.client.set_states({"c": rig.client._states["a"]})
    assert rig.read(rig.until(SendUdp)).plane0 == 0b100
