"""When the next beat begins and when the running one is tried again (WIRE.md, rules of the client).

All moments are on the shell's monotonic clock. Whether a beat wants an answer is np1/client.py's to know.
"""

from __future__ import annotations

import random

from np1.codec import Ack
from np1.session import SessionGrant

TRIES_MAX = 3
RETRY_MS_MAX = 1_000
RETRY_JITTER = 0.2
# WIRE.md names no least next_ms. Half the smallest interval leaves room for the server's downward jitter
# and keeps a server that says 0 from making us spin.
NEXT_MS_MIN = 500


class Pace:
    """Nothing is planned until `first`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.beat_ms: int | None = None  # when the next beat begins
        self.retry_ms: int | None = None  # when the running beat is tried again
        self._told_next_ms = 0
        self._session_interval_ms = 0
        self.ttl_ms = 0  # how long the last credited beat vouches

    @property
    def interval_ms(self) -> int:
        """The session's interval, or the last `next_ms` if that is larger."""
        return max(self._session_interval_ms, self._told_next_ms)

    def session(self, grant: SessionGrant) -> None:
        """A session was opened: its interval and ttl hold from now on."""
        self._session_interval_ms, self.ttl_ms = grant.interval_ms, grant.ttl_ms

    def first(self, now_ms: int, *, within_ms: int | None) -> None:
        """Plan the very first beat: a random moment inside one interval, or inside `within_ms`."""
        self.beat_ms = now_ms + self._random_ms(self.interval_ms if within_ms is None else within_ms)

    def hasten(self, now_ms: int) -> None:
        """A new session after a beat that was not credited: another whole interval could outlast the ttl."""
        self.retry_ms = None
        self.beat_ms = now_ms + self._random_ms(min(RETRY_MS_MAX, self.interval_ms // 3))

    def begun(self, now_ms: int) -> int:
        """Try 1 leaves now; without an answer the next beat begins at the moment returned."""
        self.beat_ms = now_ms + self.interval_ms
        return self.beat_ms

    def tried(self, tries: int, now_ms: int, *, again: bool) -> None:
        """A try left now, the `tries`-th of its beat. Plan the next one, if `again`.

        One planned behind the next beat never comes to pass: that beat begins first and plans anew.
        """
        self.retry_ms = None
        if not again or tries >= TRIES_MAX:
            return
        wait_ms = min(RETRY_MS_MAX, self.interval_ms // 3) if tries == 1 else self.ttl_ms // 4
        self.retry_ms = now_ms + int(wait_ms * (1 + RETRY_JITTER * self._rng.random()))

    def answered(self, ack: Ack, now_ms: int) -> None:
        """A valid ACK to the running beat: the next one begins when it says."""
        self._told_next_ms = max(ack.next_ms, NEXT_MS_MIN)
        self.beat_ms = now_ms + self._told_next_ms
        self.retry_ms = None

    def vouched(self, ttl_ms: int) -> None:
        """A crediting ACK told how long a beat vouches; 0 tells nothing."""
        self.ttl_ms = ttl_ms or self.ttl_ms

    def _random_ms(self, within_ms: int) -> int:
        return int(self._rng.random() * within_ms)
