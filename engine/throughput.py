"""How many beats come, how many are refused, and how long answered ones waited: now, not since the start.

Counted as groups are answered, read off once a second by the shard's tick. Totals by reason are intake.py's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.core.figures import WAITED_BOUNDS_MS

Array = npt.NDArray[Any]

_READINGS_MAX = 61  # a minute of them
_RATE_READINGS = 5  # over how many the rate is taken
_BOUNDS = np.array(WAITED_BOUNDS_MS)


class ThroughputStatistics(NamedTuple):
    """`seconds`: a histogram as storage/metrics_http.py takes one: numbers up to each bound, and the sum."""

    beats_per_s: float
    seconds: dict[str, float]


class _Reading(NamedTuple):
    at_ms: int
    waited: Array
    rejected: Counter[str]


class Throughput:
    """Of one shard. Times by any clock that runs evenly, in ms."""

    def __init__(self) -> None:
        self._waited = np.zeros(len(_BOUNDS) + 1, np.int64)
        self._sum_ms = 0
        self._readings: deque[_Reading] = deque(maxlen=_READINGS_MAX)

    def answered(self, t_ms: Array, now_ms: int) -> None:
        """Beats received at t_ms, shape (n,), are answered now."""
        waited = np.maximum(now_ms - t_ms, 0)
        places = np.searchsorted(_BOUNDS, waited)
        self._waited += np.bincount(places, minlength=len(self._waited))
        self._sum_ms += int(waited.sum())

    def read(self, now_ms: int, rejected: Mapping[str, int]) -> None:
        """About once a second; `rejected`: totals by reason."""
        self._readings.append(_Reading(now_ms, self._waited.copy(), Counter(rejected)))

    @property
    def beats_per_s(self) -> float:
        """Over the last seconds."""
        if len(self._readings) < 2:
            return 0.0
        last = self._readings[-1]
        first = self._readings[max(0, len(self._readings) - 1 - _RATE_READINGS)]
        elapsed_ms = max(1, last.at_ms - first.at_ms)
        return float((last.waited - first.waited).sum()) * 1_000 / elapsed_ms

    def waited_last_min(self) -> list[int]:
        """Answered beats by WAITED_BOUNDS_MS, and those above."""
        before = self._readings[0].waited if self._readings else 0
        counts: list[int] = (self._waited - before).tolist()
        return counts

    def rejected_last_min(self, rejected: Mapping[str, int]) -> dict[str, int]:
        """By reason, those without any left out."""
        before = self._readings[0].rejected if self._readings else Counter[str]()
        return dict(Counter(rejected) - before)

    def statistics(self) -> ThroughputStatistics:
        bounds = [*(str(bound / 1_000) for bound in WAITED_BOUNDS_MS), "+Inf"]
        seconds = dict(zip(bounds, map(float, np.cumsum(self._waited).tolist()), strict=True))
        return ThroughputStatistics(self.beats_per_s, seconds | {"sum": self._sum_ms / 1_000})
