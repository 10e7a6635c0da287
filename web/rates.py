"""How many requests a credential, or an address that shows none, may send: a bucket each, in this process.

Machines are not limited here: a fleet behind one address that comes back after an outage is no attack, and
each node's signed requests have a limit of their own (WIRE.md). Several web processes count apart.
"""

from __future__ import annotations

import math

import trio

from web.problems import RefusedError

WINDOW_S = 60
BUCKETS_MAX = 16_384  # callers remembered; above it the one half is forgotten that was seen longest ago


class Rate:
    """Token buckets of one policy: `per_min` at once, refilled evenly."""

    def __init__(self, name: str, *, per_min: int) -> None:
        self.name = name
        self._per_min = per_min
        self._young: dict[str, tuple[float, float]] = {}  # caller: (tokens, as of)
        self._old: dict[str, tuple[float, float]] = {}
        self._refused = 0

    def take(self, caller: str) -> dict[str, str]:
        """Count one request; the RateLimit headers of its answer. RefusedError 429."""
        now = trio.current_time()
        tokens, as_of = self._young.get(caller) or self._old.pop(caller, (float(self._per_min), now))
        tokens = min(float(self._per_min), tokens + (now - as_of) * self._per_min / WINDOW_S)
        headers = {"ratelimit-policy": f'"{self.name}";q={self._per_min};w={WINDOW_S}'}
        if tokens < 1:
            self._refused += 1
            wait_s = math.ceil((1 - tokens) * WINDOW_S / self._per_min)
            headers |= {"ratelimit": f'"{self.name}";r=0;t={wait_s}', "retry-after": str(wait_s)}
            self._keep(caller, tokens, now)
            raise RefusedError(
                429, "rate", f"more than {self._per_min} requests in a minute: slow down", headers=headers
            )
        self._keep(caller, tokens - 1, now)
        headers["ratelimit"] = f'"{self.name}";r={int(tokens - 1)};t={self._full_in_s(tokens - 1)}'
        return headers

    def _full_in_s(self, tokens: float) -> int:
        return math.ceil((self._per_min - tokens) * WINDOW_S / self._per_min)

    def _keep(self, caller: str, tokens: float, now: float) -> None:
        if len(self._young) >= BUCKETS_MAX // 2:
            self._old, self._young = self._young, {}
        self._young[caller] = (tokens, now)

    def statistics(self) -> dict[str, float]:
        return {"callers": len(self._young) + len(self._old), "refused_total": self._refused}
