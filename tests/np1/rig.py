"""A client machine on a bench: time is moved by hand, answers are made by hand, everything is written down.

The server's clock is the rig's plus `offset_ms`. `Middling` draws 0.5 wherever chance is asked, so that a
test can name the moment of everything.
"""

from __future__ import annotations

import random
from dataclasses import replace

from np1.client import BeatClient
from np1.codec import Ack, Beat, Code, State, decode_beat, encode_ack
from np1.effects import Effect, OpenSession, SendHttp, SendUdp, Wake
from np1.session import Refusal, SessionAnswer, SessionGrant

SERVER_MS = 1_795_305_600_000
GRANT = SessionGrant(
    row=7,
    generation=1,
    key=bytes(range(16)),
    token="t",
    expires_ms=SERVER_MS + 86_400_000,
    interval_ms=60_000,
    ttl_ms=90_000,
    udp="192.0.2.1:7900",
    http="http://192.0.2.1:7900",
    slots=((0, "a"), (1, "b")),
)


class Middling(random.Random):
    """Draws the middle of everything."""

    def random(self):
        return 0.5

    def randint(self, a, b):
        return (a + b) // 2


class Rig:
    def __init__(self, *, grant=GRANT, rng=None, **options):
        self.client = BeatClient(rng=rng or Middling(), **options)
        self.client.set_states({"a": State.HEALTHY, "b": State.UPDATING})
        self.grants = {grant.generation: grant}
        self.grant = grant
        self.now_ms = 5_000
        self.offset_ms = SERVER_MS - self.now_ms
        self.wake_ms = None
        self.log: list[tuple[int, Effect]] = []  # everything that was ordered or told, and when

    @property
    def server_ms(self):
        return self.now_ms + self.offset_ms

    def take(self, effects):
        """Write effects down; returns them without the Wake."""
        self.wake_ms = None
        for effect in effects:
            if isinstance(effect, Wake):
                self.wake_ms = effect.at_ms
        plain = [effect for effect in effects if not isinstance(effect, Wake)]
        self.log += [(self.now_ms, effect) for effect in plain]
        return plain

    def start(self):
        return self.take(self.client.start(self.now_ms, self.server_ms))

    def open(self, **changes):
        """The web API opens a session."""
        self.grant = replace(self.grant, **changes)
        self.grants[self.grant.generation] = self.grant
        answer = SessionAnswer(grant=self.grant, server_ms=self.server_ms)
        return self.take(self.client.on_session(answer, sent_ms=self.now_ms, now_ms=self.now_ms))

    def reopen(self, **changes):
        return self.open(**{"generation": self.grant.generation + 1} | changes)

    def refuse(self, status=503, **fields):
        refusal = Refusal(status, **fields)
        return self.take(self.client.on_session_refused(refusal, sent_ms=self.now_ms, now_ms=self.now_ms))

    def advance(self, by_ms):
        """Let time pass; returns what the machine ordered and told meanwhile, with the moments."""
        until_ms, start = self.now_ms + by_ms, len(self.log)
        at_once = 0
        while self.wake_ms is not None and self.wake_ms <= until_ms:
            at_once = at_once + 1 if self.wake_ms <= self.now_ms else 0
            assert at_once < 10, "the machine wants to be woken without end"
            self.now_ms = max(self.now_ms, self.wake_ms)
            self.take(self.client.wake(self.now_ms, self.server_ms))
        self.now_ms = until_ms
        return self.log[start:]

    def until(self, kind, *, within_ms=10_000_000):
        """Let time pass until something of this kind is ordered; returns it."""
        limit_ms = self.now_ms + within_ms
        while self.wake_ms is not None and self.wake_ms <= limit_ms:
            self.now_ms = max(self.now_ms, self.wake_ms)
            for effect in self.take(self.client.wake(self.now_ms, self.server_ms)):
                if isinstance(effect, kind):
                    return effect
        raise AssertionError(f"no {kind} within {within_ms} ms")

    def beat(self):
        """Start, open, and run to the first frame."""
        self.start()
        self.open()
        return self.until(SendUdp)

    def frames(self, since=0):
        return [(at, effect) for at, effect in self.log[since:] if isinstance(effect, SendUdp | SendHttp)]

    def read(self, sent):
        """The BEAT in an ordered frame."""
        frame = sent.frame if isinstance(sent, SendUdp) else sent.body
        return decode_beat(frame, self.grants[sent.generation].key)

    def ack_bytes(self, sent, code=Code.OK, *, next_ms=60_000, ttl_ms=90_000, server_ms=None, key=None):
        grant = self.grants[sent.generation]
        at_ms = self.server_ms if server_ms is None else server_ms
        ack = Ack(code, sent.generation, grant.row, sent.seq, at_ms, next_ms, ttl_ms)
        return encode_ack(ack, grant.key if key is None else key)

    def ack(self, sent, code=Code.OK, **fields):
        """The server answers this frame, over the way it came."""
        data = self.ack_bytes(sent, code, **fields)
        if isinstance(sent, SendHttp):
            return self.take(self.client.on_http_reply(sent, 200, data, self.now_ms))
        return self.take(self.client.on_datagram(data, self.now_ms))

    def opening(self):
        """Whether a session has been asked for and not yet answered."""
        asked = [at for at, effect in self.log if isinstance(effect, OpenSession)]
        return len(asked) > self.client.statistics().sessions + self.client.statistics().session_refusals


__all__ = ["GRANT", "SERVER_MS", "Beat", "Middling", "Rig"]
