"""The client machine under operations that hypothesis invents: any answer to any frame at any time."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from np1.codec import CREDITING, FLAG_NO_ACK, FLAG_STOPPING, FRAME_BYTES, REFUSED, Code, State
from np1.effects import Credited, OpenSession, Refused, SendHttp, SendUdp, SessionOpened, Stopped
from np1.pace import TRIES_MAX
from np1.unanswered import UNANSWERED_MAX
from tests.np1.rig import Rig

BACKLOG_BEATS_MAX = 5
spans_ms = st.sampled_from([0, 1, 300, 999, 1_000, 5_000, 30_000, 60_000, 61_000, 600_000]) | st.integers(
    0, 4_000_000
)
next_ms = st.sampled_from([0, 1, 1_000, 57_000, 60_000, 200_000, (1 << 32) - 1])
shifts_ms = st.sampled_from([0, 0, 0, -89_000, 89_000, -200_000, 200_000, -(10**7), 10**7])


class ClientMachine(RuleBasedStateMachine):
    """Every rule is something that a server, a network or an owner may do."""

    @initialize(seed=st.integers(0, 1_000), quiet=st.booleans())
    def begin(self, seed, quiet):
        self.rig = Rig(rng=random.Random(seed), quiet=quiet, backlog_beats_max=BACKLOG_BEATS_MAX)
        self.generation = 0
        self.clocks = 0
        self.valid_acks = 0
        self.highest = {}  # generation and CLOCKs heard: the highest seq sent
        self.tries = {}  # number of the beat: its frames since the last valid ACK
        self.numbers = {}  # generation and seq: numbers of the beat and of the try
        self.credited = {}  # number of the beat: the last of its tries that was credited
        self.frames = 0
        self.quiet_run = 0
        self.seen = 0
        self.rig.start()

    def note(self):
        """Look at what was ordered and told since the last look."""
        new, self.seen = self.rig.log[self.seen :], len(self.rig.log)
        for _, effect in new:
            match effect:
                case Credited(ack):
                    assert ack.code in CREDITING
                    beat, number = self.numbers[ack.generation, ack.seq]
                    self.credited[beat] = max(number, self.credited.get(beat, 0))
                    self.valid_acks += 1
                case Refused(ack):
                    assert ack.code not in CREDITING
                    self.clocks += ack.code is Code.CLOCK
                    self.valid_acks += 1
                case SendUdp() | SendHttp():
                    self.note_frame(effect)

    def note_frame(self, sent):
        beat, number = self.rig.read(sent), self.rig.client._running.number
        key = sent.generation, self.clocks
        assert beat.seq == sent.seq > self.highest.get(key, -1), "a seq did not rise"
        self.highest[key] = beat.seq
        self.frames += 1
        self.numbers[sent.generation, sent.seq] = number, self.frames
        self.quiet_run = self.quiet_run + 1 if beat.flags & FLAG_NO_ACK else 0
        assert self.quiet_run <= 4, "more than four beats in a row without an ACK asked for"
        assert not (beat.flags & FLAG_NO_ACK and beat.flags & FLAG_STOPPING)
        tries = number, self.valid_acks
        self.tries[tries] = self.tries.get(tries, 0) + 1
        assert self.tries[tries] <= TRIES_MAX, "a beat nobody answered was tried a fourth time"

    @rule(by_ms=spans_ms)
    def time_passes(self, by_ms):
        # In steps, so that `note` finds the beat a frame belongs to still running.
        until_ms = self.rig.now_ms + by_ms
        while self.rig.wake_ms is not None and self.rig.wake_ms < until_ms:
            self.rig.advance(max(0, self.rig.wake_ms - self.rig.now_ms))
            self.note()
            if len(self.rig.log) > 3_000:
                break
        self.rig.advance(max(0, until_ms - self.rig.now_ms) if len(self.rig.log) <= 3_000 else 0)
        self.note()

    @precondition(lambda self: self.rig.frames())
    @rule(back=st.integers(0, 5), code=st.sampled_from(Code), next_ms=next_ms, shift_ms=shifts_ms)
    def the_server_answers(self, back, code, next_ms, shift_ms):
        frames = self.rig.frames()
        sent = frames[-1 - back % len(frames)][1]
        self.rig.ack(sent, code, next_ms=next_ms, ttl_ms=90_000, server_ms=self.rig.server_ms + shift_ms)
        self.note()

    @precondition(lambda self: self.rig.frames())
    @rule(bit=st.integers(0, FRAME_BYTES * 8 - 1), code=st.sampled_from(Code))
    def a_forged_answer_changes_nothing(self, bit, code):
        sent = self.rig.frames()[-1][1]
        data = bytearray(self.rig.ack_bytes(sent, code))
        data[bit // 8] ^= 1 << bit % 8
        before = self.rig.client.statistics()
        assert self.rig.take(self.rig.client.on_datagram(bytes(data), self.rig.now_ms)) == []
        after = self.rig.client.statistics()
        assert (after.codes, after.ignored) == (before.codes, before.ignored + 1)

    @rule(data=st.binary(max_size=100) | st.just(REFUSED))
    def noise_changes_nothing(self, data):
        assert self.rig.take(self.rig.client.on_datagram(data, self.rig.now_ms)) == []

    @precondition(lambda self: any(isinstance(sent, SendHttp) for _, sent in self.rig.frames()))
    @rule(
        status=st.sampled_from([200, 400, 401, 404, 500, 503]), body=st.binary(max_size=60) | st.just(REFUSED)
    )
    def http_answers_something_else(self, status, body):
        request = next(s for _, s in reversed(self.rig.frames()) if isinstance(s, SendHttp))
        assert self.rig.take(self.rig.client.on_http_reply(request, status, body, self.rig.now_ms)) == []

    @precondition(lambda self: self.rig.opening())
    @rule(interval_ms=st.sampled_from([1_000, 60_000]), life_ms=st.sampled_from([0, 50_000, 86_400_000]))
    def a_session_is_opened(self, interval_ms, life_ms):
        self.generation += 1
        told = self.rig.open(
            generation=self.generation,
            key=self.generation.to_bytes(16, "big"),
            interval_ms=interval_ms,
            ttl_ms=interval_ms * 3 // 2,
            expires_ms=self.rig.server_ms + life_ms,
        )
        assert isinstance(told[0], SessionOpened) if told else self.stopped()
        self.note()

    @precondition(lambda self: self.rig.opening())
    @rule(skewed=st.booleans())
    def a_session_is_refused(self, skewed):
        self.rig.refuse(401 if skewed else 503, server_ms=self.rig.server_ms if skewed else None)

    @rule(state=st.sampled_from(State))
    def the_workloads_change(self, state):
        self.rig.client.set_states({"a": state})

    @precondition(lambda self: self.rig.frames())
    @rule()
    def the_node_stops(self):
        self.rig.take(self.rig.client.stop(self.rig.now_ms))
        self.note()

    def stopped(self):
        return any(isinstance(effect, Stopped) for _, effect in self.rig.log)

    @invariant()
    def every_credited_beat_has_left_the_buffer(self):
        for entry in self.rig.client._backlog._entries:
            # A later try may say something else, which is then still unknown to the server.
            assert entry.try_number > self.credited.get(entry.number, 0)

    @invariant()
    def everything_is_bounded(self):
        assert len(self.rig.client._backlog) <= BACKLOG_BEATS_MAX
        assert len(self.rig.client._unanswered) <= UNANSWERED_MAX

    @invariant()
    def it_never_falls_asleep(self):
        """Unless it was stopped or a request for a session is on its way, it knows when to go on."""
        assert self.rig.wake_ms is not None or self.stopped() or self.rig.opening()

    @invariant()
    def at_most_one_session_is_asked_for_at_a_time(self):
        statistics = self.rig.client.statistics()
        asked = sum(isinstance(effect, OpenSession) for _, effect in self.rig.log)
        assert asked - statistics.sessions - statistics.session_refusals in (0, 1) or self.stopped()


ClientMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
test_the_client_keeps_its_rules_whatever_comes = ClientMachine.TestCase
