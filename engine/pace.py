"""How often beats are asked for: `next_ms` and what a beat vouches for, scaled to the number of rows.

A shard asks for at most `rate_max` beats a second however many rows there are (as Nomad does), so the
interval grows with the rows. The scale moves in coarse steps: a change of ttl begins new base rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.core.timing import INTERVAL_MS_MIN

Array = npt.NDArray[Any]

_STEP = 1.25  # the scaled interval moves in steps of this factor


class PaceStatistics(NamedTuple):
    interval_ms_min: int


class Pace:
    """The shard's present pace; `follow` the number of live rows, ask for the rest."""

    def __init__(self, *, rate_max: float, jitter: float, seed: int | None = None) -> None:
        self._rate_max = rate_max
        self._jitter = jitter
        self._random = np.random.default_rng(seed)
        self.interval_ms_min = 0  # no row beats more often than this for the load's sake

    def follow(self, live_rows: int) -> None:
        """Adapt to the number of rows that beat."""
        needed = live_rows * 1_000 / self._rate_max
        if self.interval_ms_min / _STEP**2 < needed <= self.interval_ms_min:
            return
        if needed <= INTERVAL_MS_MIN:
            self.interval_ms_min = 0
        else:
            self.interval_ms_min = int(
                INTERVAL_MS_MIN * _STEP ** np.ceil(np.log(needed / 1_000) / np.log(_STEP))
            )

    def intervals(self, configured_ms: Array) -> Array:
        """The interval of each row at this pace: the largest `next_ms` it may be told. Shape (n,)."""
        interval: Array = np.maximum(configured_ms.astype(np.int64), self.interval_ms_min)
        return interval

    def ttls(self, configured_ms: Array, session_ttl_ms: Array) -> Array:
        """What a beat received now vouches for (LIVENESS.md 1). Shape (n,)."""
        ttl: Array = np.maximum(self.intervals(configured_ms) * 3 // 2, session_ttl_ms)
        return ttl

    def ttl(self, configured_ms: int, session_ttl_ms: int = 0) -> int:
        """The same for one beat."""
        return max(max(configured_ms, self.interval_ms_min) * 3 // 2, session_ttl_ms)

    def next_ms(self, configured_ms: Array) -> Array:
        """When to send next: drawn from the last `jitter` of the interval, never below 1 s. Shape (n,)."""
        interval = self.intervals(configured_ms)
        drawn = interval * (1 - self._jitter * self._random.random(len(interval)))
        next_ms: Array = np.maximum(drawn, np.minimum(interval, INTERVAL_MS_MIN)).astype(np.int64)
        return next_ms

    def statistics(self) -> PaceStatistics:
        return PaceStatistics(self.interval_ms_min)
