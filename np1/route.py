"""Which way the next frame goes: UDP, or HTTP where UDP is not answered (WIRE.md, rules of the client).

Three intervals without a valid ACK switch to HTTP; after a random 10 to 60 minutes the first try of one
beat goes by UDP again, its further tries by HTTP, so that a probe that fails costs no credit.
"""

from __future__ import annotations

import random

from np1.effects import Path

MISSED_BEFORE_HTTP = 3
PROBE_MS_MIN, PROBE_MS_MAX = 600_000, 3_600_000


class Route:
    """Starts on UDP. Methods that may change the path return whether they did."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.path = Path.UDP
        self.missed = 0  # intervals in a row without a valid ACK
        self._probe_ms = 0

    def choose(self, now_ms: int, *, first_try: bool) -> Path:
        """The way of the try that leaves now."""
        if self.path is Path.HTTP and first_try and now_ms >= self._probe_ms:
            self._plan_probe(now_ms)
            return Path.UDP
        return self.path

    def missed_interval(self, now_ms: int) -> bool:
        """A beat that asked for an ACK had none within its interval."""
        self.missed += 1
        if self.path is Path.HTTP or self.missed < MISSED_BEFORE_HTTP:
            return False
        self.path = Path.HTTP
        self._plan_probe(now_ms)
        return True

    def heard(self, path: Path) -> bool:
        """A valid ACK to a frame that went this way: by UDP it proves the way open."""
        self.missed = 0
        return path is Path.UDP and self.reset()

    def reset(self) -> bool:
        """Back to UDP."""
        changed = self.path is not Path.UDP
        self.path, self.missed = Path.UDP, 0
        return changed

    def _plan_probe(self, now_ms: int) -> None:
        self._probe_ms = now_ms + self._rng.randint(PROBE_MS_MIN, PROBE_MS_MAX)
