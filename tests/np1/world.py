"""A simulated network between one client machine and a scripted server, from one seed; virtual time only.

`FakeServer` is written from WIRE.md alone: it accepts, orders and answers as a server must, and does what
its script says besides (outages, blocked UDP, BUSY, moved rows, a stepped clock). `World` carries frames
with loss, duplication and delay. Nothing here is the product's but the codec.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace
from itertools import count

from np1.client import BeatClient
from np1.codec import (
    CREDITING,
    FLAG_NO_ACK,
    FLAG_STOPPING,
    REFUSED,
    Ack,
    Beat,
    Code,
    FrameRejectedError,
    State,
    decode_ack,
    decode_beat,
    encode_ack,
    peek,
)
from np1.effects import OpenSession, Path, SendHttp, SendUdp, Wake
from np1.session import Refusal, SessionAnswer
from tests.np1.rig import GRANT, SERVER_MS


@dataclass
class Recorded:
    t_ms: int
    generation: int
    seq: int
    beat: Beat


class FakeServer:
    """One row's server. `fault(t_ms)` names what is wrong at a moment: "busy", "moved", "away" or nothing."""

    def __init__(self, *, interval_ms=60_000, life_ms=86_400_000, fault=lambda t_ms: ""):
        self.interval_ms = interval_ms
        self.life_ms = life_ms
        self.fault = fault
        self.step_ms = 0  # how far the server's clock was stepped
        self.grants = {}
        self.last_seq = {}
        self.current = 0
        self.recorded: list[Recorded] = []
        self.sessions = 0

    def open_session(self, sent_at_ms, t_ms):
        if self.fault(t_ms) == "away":
            return Refusal(0)
        if abs(sent_at_ms - t_ms) > 300_000:
            return Refusal(401, "clock_skew", server_ms=t_ms)
        self.current += 1
        self.sessions += 1
        grant = replace(
            GRANT,
            generation=self.current,
            key=self.current.to_bytes(16, "big"),
            interval_ms=self.interval_ms,
            ttl_ms=self.interval_ms * 3 // 2,
            expires_ms=t_ms + self.life_ms,
        )
        self.grants[self.current] = (grant, t_ms)
        return SessionAnswer(grant=grant, server_ms=t_ms)

    def take(self, frame, t_ms, *, http, next_ms=None):
        """The reply to a frame received at t, None for silence."""
        nothing = REFUSED if http else None
        if self.fault(t_ms) == "away":
            return None
        try:
            generation, _ = peek(frame)
            if generation not in self.grants:
                return nothing
            grant, _ = self.grants[generation]
            beat = decode_beat(frame, grant.key, row=grant.row, generation=generation)
        except FrameRejectedError:
            return nothing
        newer = self.grants.get(generation + 1)
        if generation < self.current - 1 or (newer is not None and t_ms > newer[1] + 60_000):
            return nothing
        code = self._judge(beat, grant, t_ms)
        if code in CREDITING:
            self.last_seq[generation] = beat.seq
            self.recorded.append(Recorded(t_ms, generation, beat.seq, beat))
            if beat.flags & FLAG_NO_ACK and code is Code.OK and not http:
                return None
        ttl_ms = grant.ttl_ms if code in CREDITING and not beat.flags & FLAG_STOPPING else 0
        if next_ms is None:
            next_ms = 1_000 if code is Code.BUSY else self.interval_ms * 95 // 100
        return encode_ack(Ack(code, generation, beat.row, beat.seq, t_ms, next_ms, ttl_ms), grant.key)

    def _judge(self, beat, grant, t_ms):
        if abs((beat.seq >> 16) - t_ms) > 90_000:
            return Code.CLOCK
        if beat.seq <= self.last_seq.get(grant.generation, 0):
            return Code.STALE
        if self.fault(t_ms) == "moved" and grant.generation == self.current:
            return Code.MOVED
        if self.fault(t_ms) == "busy":
            return Code.BUSY
        return Code.REKEY if grant.expires_ms - t_ms < self.life_ms // 10 else Code.OK


class World:
    """Client, network and server. `loss`, `duplicate`: probabilities per datagram; `udp_open(t_ms)`."""

    def __init__(
        self,
        seed,
        *,
        server=None,
        loss=0.0,
        duplicate=0.0,
        delay_ms_max=80,
        udp_open=lambda t_ms: True,
        **client,
    ):
        self.rng = random.Random(seed)
        self.server = server or FakeServer()
        self.loss, self.duplicate, self.delay_ms_max, self.udp_open = loss, duplicate, delay_ms_max, udp_open
        self.client = BeatClient(rng=random.Random(seed + 1), **client)
        self.client.set_states({"a": State.HEALTHY})
        self.now_ms = 1_000
        self._events, self._order = [], count()
        self._wake_ms = None
        # (moment, generation, beat, its number, CLOCK answers delivered until then)
        self.sent: list[tuple[int, int, Beat, int, int]] = []
        self.credited: dict[int, Path] = {}  # number of the beat: how its first credit came
        self.clocked: set[int] = set()
        self.clocks = 0  # CLOCK answers delivered so far
        self._number_of = {}
        self.carry_out(self.client.start(self.now_ms, self.server_ms))

    @property
    def server_ms(self):
        return SERVER_MS + self.now_ms + self.server.step_ms

    def later(self, by_ms, what):
        heapq.heappush(self._events, (self.now_ms + by_ms, next(self._order), what))

    def delay_ms(self):
        return self.rng.randint(1, self.delay_ms_max)

    def run(self, ms):
        until_ms = self.now_ms + ms
        while True:
            event_ms = self._events[0][0] if self._events else until_ms + 1
            wake_ms = until_ms + 1 if self._wake_ms is None else max(self._wake_ms, self.now_ms)
            if min(event_ms, wake_ms) > until_ms:
                break
            if event_ms <= wake_ms:
                self.now_ms, _, what = heapq.heappop(self._events)
                what()
            else:
                self.now_ms = wake_ms
                self.carry_out(self.client.wake(self.now_ms, self.server_ms))
        self.now_ms = until_ms

    def carry_out(self, effects):
        self._wake_ms = None
        for effect in effects:
            match effect:
                case Wake(at_ms):
                    self._wake_ms = at_ms
                case OpenSession(sent_at_ms):
                    self._open_session(sent_at_ms)
                case SendUdp():
                    self._note(effect, effect.frame)
                    self._carry_udp(effect)
                case SendHttp():
                    self._note(effect, effect.body)
                    self.later(self.delay_ms(), lambda order=effect: self._reach_http(order))

    def _note(self, order, frame):
        grant, _ = self.server.grants[order.generation]
        number = self.client._running.number
        beat = decode_beat(frame, grant.key)
        self.sent.append((self.now_ms, order.generation, beat, number, self.clocks))
        self._number_of[order.generation, order.seq] = number

    def _open_session(self, sent_at_ms):
        sent_ms = self.now_ms
        there_ms, back_ms = self.delay_ms(), self.delay_ms()

        def arrive():
            outcome = self.server.open_session(sent_at_ms, self.server_ms)
            self.later(back_ms, lambda: self._session_outcome(outcome, sent_ms))

        self.later(there_ms, arrive)

    def _session_outcome(self, outcome, sent_ms):
        if isinstance(outcome, Refusal):
            effects = self.client.on_session_refused(outcome, sent_ms=sent_ms, now_ms=self.now_ms)
        else:
            effects = self.client.on_session(outcome, sent_ms=sent_ms, now_ms=self.now_ms)
        self.carry_out(effects)

    def _copies(self):
        if not self.udp_open(self.now_ms) or self.rng.random() < self.loss:
            return 0
        return 2 if self.rng.random() < self.duplicate else 1

    def _carry_udp(self, order):
        for _ in range(self._copies()):
            self.later(self.delay_ms(), lambda: self._reach_udp(order))

    def _reach_udp(self, order):
        reply = self.server.take(order.frame, self.server_ms, http=False)
        if reply is not None:
            for _ in range(self._copies()):
                self.later(self.delay_ms(), lambda: self._answer(order, reply, Path.UDP))

    def _reach_http(self, order):
        reply = self.server.take(order.body, self.server_ms, http=True)
        if reply is not None:
            self.later(self.delay_ms(), lambda: self._answer(order, reply, Path.HTTP))

    def _answer(self, order, reply, path):
        before = self.client.statistics()
        if path is Path.UDP:
            effects = self.client.on_datagram(reply, self.now_ms)
        else:
            effects = self.client.on_http_reply(order, 200, reply, self.now_ms)
        if sum(self.client.statistics().codes.values()) > sum(before.codes.values()):
            ack = decode_ack(reply, self.server.grants[order.generation][0].key)
            number = self._number_of[order.generation, order.seq]
            if ack.code in CREDITING:
                self.credited.setdefault(number, path)
            if ack.code is Code.CLOCK:
                self.clocked.add(number)
                self.clocks += 1
                # What this very answer made the client send comes after the CLOCK.
        self.carry_out(effects)

    # What must always hold.

    def check(self):
        self._check_seqs()
        self._check_rate()
        self._check_kept()

    def _check_seqs(self):
        """Strictly increasing per generation since the last CLOCK."""
        highest = {}
        for _, generation, beat, _, clocks in self.sent:
            key = generation, clocks
            assert beat.seq > highest.get(key, -1), "a seq did not rise"
            highest[key] = beat.seq

    def _check_rate(self):
        """No beat has more than three tries, and every fifth at least asks for an ACK."""
        tries, quiet_run = {}, 0
        for _, generation, beat, number, _ in self.sent:
            key = number, generation
            tries[key] = tries.get(key, 0) + 1
            quiet_run = quiet_run + 1 if beat.flags & FLAG_NO_ACK else 0
            assert quiet_run <= 4
            if beat.flags & FLAG_NO_ACK:
                assert tries[key] == 1, "a quiet beat was retried"
        if not self.client.statistics().codes.get(Code.BUSY):
            assert max(tries.values(), default=0) <= 3

    def _check_kept(self):
        """What was sent is credited, or kept, or known to bear a wrong time: never both, never neither."""
        kept = {entry.number for entry in self.client._backlog._entries}
        plain = {number for _, _, beat, number, _ in self.sent if not beat.flags}
        assert kept == plain - set(self.credited) - self.clocked

    def covered(self, from_ms, to_ms):
        """Which part of the server's time recorded beats vouch for."""
        ttl_ms = self.server.interval_ms * 3 // 2
        covered_ms, reached_ms = 0, from_ms
        for one in sorted(self.server.recorded, key=lambda recorded: recorded.t_ms):
            start_ms, end_ms = max(one.t_ms, reached_ms), min(one.t_ms + ttl_ms, to_ms)
            if end_ms > start_ms:
                covered_ms += end_ms - start_ms
                reached_ms = end_ms
        return covered_ms / (to_ms - from_ms)
