"""The door: what is taken, what is refused and how often that is told, and in which order answers leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.door import GONE, PlainAnswer, PlainBeat
from engine.settings import IngestSettings
from np1.codec import FLAG_NO_ACK, FLAG_STOPPING, Code, decode_ack
from tests.engine.rows_world import FAR, T0, frame, key, packed, session, spec, workload
from tests.engine.shard_world import Bench, codes_of

BOUND = IngestSettings(pending_frames_max=3, busy_retry_ms=777)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.learn(*(spec(row) for row in range(4)))
    made.commit()
    return made


class Wire:
    """A socket that keeps what is sent, by the number that stands for the address."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sent: list[tuple[int, bytes]] = []
        self.foreign: list[bytes] = []

    def receive(self, *datagrams: bytes, at_ms: int = T0) -> None:
        raw, lengths = packed(*datagrams)
        names = np.zeros((len(datagrams), 28), np.uint8)
        names[:, 0] = np.arange(len(datagrams))
        self.bench.now_ms = at_ms
        self.bench.intake.take_datagrams(
            raw, lengths, names, at_ms, send=self._send, foreign=self._take_foreign
        )
        raw[:] = 255  # the listener's buffer is overwritten by the next reading
        names[:] = 255

    def _send(self, frames: Any, names: Any) -> int:
        self.sent += [(int(name[0]), frame_.tobytes()) for frame_, name in zip(frames, names, strict=True)]
        return len(frames)

    def _take_foreign(self, frames: Any, _names: Any, _t_ms: int) -> None:
        self.foreign += [each.tobytes() for each in frames]

    def codes(self) -> list[tuple[int, int]]:
        told = [(name, code) for name, ack in self.sent for code in codes_of([ack])]
        self.sent.clear()
        return told


def test_each_datagram_is_answered_to_its_sender_after_the_commit(bench: Bench):
    wire = Wire(bench)
    wire.receive(frame(2, T0), b"noise", frame(0, T0), frame(1, T0, with_key=bytes(16)))
    assert wire.codes() == []
    bench.commit()
    assert wire.codes() == [(0, Code.OK), (2, Code.OK)]
    assert dict(bench.intake.rejected) == {"length": 1, "tag": 1}


def test_an_ack_tells_the_receive_time_the_next_beat_and_what_the_beat_vouches_for(bench: Bench):
    bench.send(frame(1, T0 - 40, counter=9), at_ms=T0)
    bench.commit()
    ack = decode_ack(bench.replies[0], key(1))
    assert (ack.code, ack.row, ack.generation, ack.seq) == (Code.OK, 1, 1, (T0 - 40 << 16) | 9)
    assert (ack.server_ms, ack.next_ms, ack.ttl_ms) == (T0, 60_000, 90_000)


def test_a_quiet_datagram_is_not_answered_unless_something_is_wrong_and_http_always_is(bench: Bench):
    wire = Wire(bench)
    wire.receive(frame(0, T0, flags=FLAG_NO_ACK), frame(1, T0))
    bench.commit()
    assert wire.codes() == [(1, Code.OK)]
    wire.receive(frame(0, T0 + 5, flags=FLAG_NO_ACK), at_ms=T0 + 5)
    bench.commit()
    assert wire.codes() == [], "EARLY is not told either"
    bench.beats([2], T0, flags=FLAG_NO_ACK)
    assert bench.codes() == [Code.OK]
    bench.intake.busy = True
    wire.receive(frame(0, T0 + 9, flags=FLAG_NO_ACK), at_ms=T0 + 9)
    assert wire.codes() == [(0, Code.BUSY)]


def test_refusals_over_udp_are_told_at_most_once_per_second_and_row_both_kinds_together(bench: Bench):
    wire = Wire(bench)
    wire.receive(frame(0, T0), frame(1, T0))
    bench.commit()
    wire.codes()
    stale, clock = frame(0, T0), frame(0, T0 - 500_000)
    wire.receive(stale, stale, clock, frame(1, T0))
    assert wire.codes() == [(0, Code.STALE), (3, Code.STALE)]
    for at in (1, 500, 999):
        wire.receive(stale, clock, at_ms=T0 + at)
        assert wire.codes() == []
    wire.receive(clock, stale, at_ms=T0 + 1_000)
    assert wire.codes() == [(0, Code.CLOCK)]
    assert bench.intake.answered[Code.STALE] + bench.intake.answered[Code.CLOCK] == 4 + 6 + 2


def test_a_refusal_vouches_for_nothing_and_tells_the_servers_time(bench: Bench):
    wire = Wire(bench)
    wire.receive(frame(0, T0 - 500_000), at_ms=T0 + 3)
    ((_, ack),) = wire.sent
    told = decode_ack(ack, key(0))
    assert (told.code, told.server_ms, told.ttl_ms) == (Code.CLOCK, T0 + 3, 0)
    assert told.next_ms == 60_000


def test_frames_over_http_are_answered_in_their_order_with_zero_bytes_where_udp_is_silent(bench: Bench):
    bench.beats([2], T0)
    bench.replies.clear()
    bench.send(
        frame(1, T0 + 1),
        frame(9, T0 + 1),
        frame(2, T0),
        frame(0, T0 + 1, with_key=bytes(16)),
        frame(0, T0 - 500_000),
        frame(0, T0 + 1),
        bytes(48),
        at_ms=T0 + 1,
    )
    bench.commit()
    assert bench.codes() == [Code.OK, -1, Code.STALE, -1, Code.CLOCK, Code.OK, -1]
    (reply,) = bench.replies
    assert decode_ack(reply[:48], key(1)).row == 1


def test_several_requests_are_verified_together_and_each_gets_its_own_answers(bench: Bench):
    bench.send(frame(0, T0), frame(0, T0))
    bench.send(frame(1, T0))
    bench.send(bytes(48))
    bench.send(frame(0, T0 + 1), at_ms=T0 + 1)
    bench.commit()
    assert [codes_of([reply]) for reply in bench.replies] == [
        [Code.OK, Code.STALE],
        [Code.OK],
        [-1],
        [Code.EARLY],
    ]


def test_nothing_but_noise_is_answered_without_a_commit(bench: Bench):
    bench.send(bytes(48), bytes(48))
    bench.intake.verify_queued()
    assert bench.codes() == [-1, -1]
    assert bench.intake.waiting == []


def test_above_the_bound_it_is_busy_and_the_seq_stays_used(tmp_path: Path):
    bench = Bench(tmp_path, ingest=BOUND)
    bench.learn(*(spec(row) for row in range(6)))
    wire = Wire(bench)
    wire.receive(frame(0, T0), frame(1, T0), frame(2, T0))
    wire.receive(frame(3, T0))
    assert wire.codes() == [(0, Code.BUSY)]
    bench.send(frame(4, T0))
    bench.intake.verify_queued()
    ack = decode_ack(bench.replies[0], key(4))
    assert (ack.code, ack.next_ms, ack.ttl_ms) == (Code.BUSY, 777, 0)
    answers: list[PlainAnswer] = []
    bench.intake.submit_plain(plain(5), answers.append)
    assert answers == [PlainAnswer(Code.BUSY, 777, 0, T0)]
    assert bench.intake.waiting_beats == 3
    bench.commit()
    assert [code for _, code in wire.codes()] == [Code.OK] * 3
    assert bench.table.row.last_t_ms[:6].tolist() == [T0, T0, T0, 0, 0, 0]
    wire.receive(frame(3, T0), frame(3, T0 + 1))
    bench.commit()
    assert sorted(code for _, code in wire.codes()) == [Code.OK, Code.STALE]


def test_what_streams_queue_is_bounded_too(tmp_path: Path):
    bench = Bench(tmp_path, ingest=BOUND)
    bench.learn(*(spec(row) for row in range(8)))
    for row in range(8):
        bench.send(frame(row, T0))
        assert len(bench.intake._frames) < 3
    assert bench.codes() == [Code.BUSY] * 3, "three wait for the journal, two are not verified yet"
    bench.commit()
    assert sorted(bench.codes()) == [Code.OK] * 3 + [Code.BUSY] * 5


def test_frames_of_other_shards_are_handed_on_as_they_came(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.table.shards = 2
    bench.learn(spec(0), spec(2))
    wire = Wire(bench)
    bench.intake._verifier._shards = 2
    foreign = frame(3, T0)
    wire.receive(frame(2, T0), foreign)
    assert wire.foreign == [foreign]
    assert bench.intake.owns(2)
    assert not bench.intake.owns(3)


# -- plain beats --------------------------------------------------------------------------------------


def plain(row: int, at_ms: int = T0, **values: Any) -> PlainBeat:
    fields: dict[str, Any] = {
        "row": row,
        "generation": 1,
        "capability": False,
        "flags": 0,
        "plane0": 0b11,
        "plane1": 0,
        "t_ms": at_ms,
        "unknown_ids": False,
    }
    return PlainBeat(**{**fields, **values})


def answered(bench: Bench, *beats: PlainBeat) -> list[PlainAnswer]:
    answers: list[PlainAnswer] = []
    for each in beats:
        bench.intake.submit_plain(each, answers.append)
    bench.commit()
    return answers


def test_a_plain_beat_is_durable_before_its_answer_and_leaves_the_last_seq_alone(bench: Bench):
    answers: list[PlainAnswer] = []
    bench.intake.submit_plain(plain(1), answers.append)
    assert answers == []
    bench.commit()
    assert answers == [PlainAnswer(Code.OK, 60_000, 90_000, T0)]
    assert bench.table.generation.last_seq[2 + 1] == 0
    assert bench.table.row.last_t_ms[1] == T0


def test_plain_beats_and_frames_keep_the_order_in_which_they_came(bench: Bench):
    wire = Wire(bench)
    answers: list[PlainAnswer] = []
    wire.receive(frame(1, T0, plane0=0b00))
    bench.intake.submit_plain(plain(1, T0, plane0=0b01), answers.append)
    wire.receive(frame(1, T0 + 1, plane0=0b10))
    bench.intake.submit_plain(plain(1, T0 + 2, plane0=0b11), answers.append)
    bench.commit()
    assert bench.table.row.plane0[1] == 0b11
    assert [answer.code for answer in answers] == [Code.EARLY, Code.EARLY]
    assert [code for _, code in wire.codes()] == [Code.OK, Code.EARLY]


def test_unknown_ids_are_answered_resync_when_nothing_above_it_applies(bench: Bench):
    first, second, third = answered(
        bench, plain(0, unknown_ids=True), plain(1), plain(2, unknown_ids=True, plane0=0)
    )
    assert [first.code, second.code, third.code] == [Code.RESYNC, Code.OK, Code.RESYNC]
    bench.learn(spec(3, current=session(expires_ms=T0 + 1_000, opened_ms=T0 - 100_000)))
    (late,) = answered(bench, plain(3, unknown_ids=True))
    assert late.code == Code.REKEY


def test_the_row_tells_its_newest_session_although_the_older_one_still_spoke_after_it_was_opened(
    bench: Bench,
):
    bench.beats([0, 1], T0)
    newer = session(2, opened_ms=T0 + 1_000)
    bench.learn(*(spec(row, current=newer, previous=session(1)) for row in (0, 1)))
    bench.beats([0], T0 + 20_000, plane0=0b01)
    bench.beats([0], T0 + 40_000, plane0=0b11)
    bench.beats([0, 1], T0 + 60_000, generation=2)
    assert bench.table.row.generation[:2].tolist() == [2, 2]
    assert bench.table.row.hot[:2].tolist() == [0, 0], "the rest need not be told"


def test_a_generation_that_is_gone_is_told_without_a_commit(bench: Bench):
    bench.learn(spec(1, revoked=True), spec(2, current=session(expires_ms=T0)))
    gone = [plain(1), plain(2), plain(9), plain(0, generation=7), plain(0, generation=3, capability=True)]
    assert [answer.code for answer in answered(bench, *gone)] == [GONE] * 5
    assert bench.intake.waiting == []


def test_a_plain_stop_vouches_for_nothing_more(bench: Bench):
    (answer,) = answered(bench, plain(0, flags=FLAG_STOPPING))
    assert (answer.code, answer.ttl_ms) == (Code.OK, 0)
    assert bench.table.row.stopped[0]


def test_a_capability_speaks_for_slot_0_at_its_rows_own_interval(bench: Bench):
    bench.learn(spec(3, workloads=1, kind="check", interval_ms=20_000, capability_generation=5, current=None))
    assert bench.intake.capability_live(3, 5)
    assert not bench.intake.capability_live(3, 4)
    assert not bench.intake.capability_live(0, 0)
    (answer,) = answered(bench, plain(3, generation=5, capability=True, plane0=0b1111))
    assert answer == PlainAnswer(Code.OK, 20_000, 30_000, T0)
    assert bench.table.row.plane0[3] == 1


def test_the_slots_of_a_session_are_those_of_its_frozen_map(bench: Bench):
    bench.learn(spec(1, workloads=3))
    assert bench.intake.session_slots(1, 1) == {workload(1, slot): slot for slot in range(3)}
    assert bench.intake.session_slots(1, 2) is None
    assert bench.intake.session_slots(8, 1) is None
    bench.now_ms = FAR
    assert bench.intake.session_slots(1, 1) is None


def test_when_the_journal_refuses_a_plain_beat_it_is_busy(bench: Bench):
    bench.files.full = True
    (answer,) = answered(bench, plain(0))
    assert (answer.code, answer.ttl_ms) == (Code.BUSY, 0)


def test_every_arrival_wakes_the_committer(bench: Bench):
    woken = bench.woken
    bench.send(frame(0, T0))
    Wire(bench).receive(frame(1, T0))
    bench.intake.submit_plain(plain(2), lambda _answer: None)
    assert bench.woken == woken + 3


def test_statistics_count_by_code_and_reason(bench: Bench):
    bench.send(frame(0, T0), frame(0, T0), bytes(48), frame(1, T0, plane0=0b1100))
    bench.commit()
    figures = bench.intake.statistics()
    assert figures.answered == {Code.OK: 2, Code.STALE: 1}
    assert figures.rejected == {"version": 1}
    assert (figures.taken, figures.waiting, figures.stray_bits) == (2, 0, 2)
