"""When to open a session: jitter, patience after refusals, and no endless re-opening.

What went wrong is judged in np1/client.py; here lies only the timing. Two loops are broken: sessions that
open but never bring a credit are opened ever more slowly, and a RESYNC that stays although the slot map did
not change (a desired version did, which only the manager can cure) holds further re-opening back.
"""

from __future__ import annotations

import random

from np1.session import Refusal

BACKOFF_MS_MIN = 1_000
BACKOFF_MS_MAX = 300_000
RESYNC_HOLD_MS_MIN = 60_000
RESYNC_HOLD_MS_MAX = 600_000


class Reopening:
    """Nothing is due until `want`; between `begin` and `opened` or `refused` one request is on its way."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.due_ms: int | None = None
        self.in_flight = False
        self._failures = 0  # refusals since the last session was opened
        self._fruitless = 0  # sessions opened since the last credit
        self._for_resync = False
        self._hold_ms = 0
        self._held_until_ms = 0

    def want(self, now_ms: int, *, within_ms: int) -> None:
        """A session is needed: at a random moment of the next `within_ms`, or later after failures."""
        if self.in_flight or (self.due_ms is not None and self._failures):
            return
        delay_ms = int(self._rng.random() * within_ms)
        if self._fruitless > 1:
            delay_ms = max(delay_ms, self._backoff_ms(self._fruitless))
        due_ms = now_ms + delay_ms
        self.due_ms = due_ms if self.due_ms is None else min(self.due_ms, due_ms)

    def want_for_resync(self, now_ms: int, *, within_ms: int) -> None:
        """The server said RESYNC: as `want`, unless re-opening has just not helped against it."""
        if self.in_flight or self.due_ms is not None or now_ms < self._held_until_ms:
            return
        self._for_resync = True
        self.want(now_ms, within_ms=within_ms)

    def begin(self) -> None:
        self.due_ms = None
        self.in_flight = True

    def opened(self, now_ms: int, *, slots_changed: bool) -> None:
        """A session was opened."""
        self.in_flight, self.due_ms = False, None
        self._failures = 0
        self._fruitless += 1
        if slots_changed:
            self._hold_ms = 0
        elif self._for_resync:
            self._hold_ms = min(max(2 * self._hold_ms, RESYNC_HOLD_MS_MIN), RESYNC_HOLD_MS_MAX)
            self._held_until_ms = now_ms + self._hold_ms
        self._for_resync = False

    def refused(self, now_ms: int, refusal: Refusal) -> None:
        """No session. A skewed clock, now corrected, is tried again at once, once."""
        self.in_flight = False
        first_skew = refusal.server_ms is not None and not self._failures
        self._failures += 1
        wait_ms = 0 if first_skew else self._backoff_ms(self._failures)
        self.due_ms = now_ms + max(wait_ms, refusal.retry_after_ms or 0)

    def proved(self) -> None:
        """A beat of the present session was credited."""
        self._fruitless = 0

    def stop(self) -> None:
        self.due_ms, self.in_flight = None, False

    def _backoff_ms(self, failures: int) -> int:
        ceiling_ms = min(BACKOFF_MS_MIN << min(failures, 16), BACKOFF_MS_MAX)
        return int(ceiling_ms * (0.5 + 0.5 * self._rng.random()))
