"""What was composed, by the hour: milliseconds of each kind in each hour, and what lies between two instants.

For seals: the leaf of an hour, and a day that two owners of a licence share. What an instant counts as is
decided before (compose.py, compose_many.py); here it is only cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.core.compose import Composition
from engine.core.records import KINDS

HOUR_MS = 3_600_000
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


class Hours:
    """`ms[i, h, k]`: milliseconds of KINDS[k] of workload i in hour h, counted from `first_ms`."""

    def __init__(self, workloads: int, first_ms: int, count: int) -> None:
        self.first_ms = first_ms
        self.ms = np.zeros((workloads, count, len(KINDS)), np.int64)
        self._pieces = _Pieces(*(np.empty(0, np.int64) for _ in range(4)))
        self._composed: dict[int, tuple[tuple[str, int, int], ...]] = {}

    def add(self, of: np.ndarray, from_ms: np.ndarray, to_ms: np.ndarray, rank: np.ndarray) -> None:
        """Take the whole time of all workloads, in pieces without overlap; arrays of shape (m,). Once."""
        self._pieces = _Pieces(of, from_ms, to_ms, rank)
        last_ms = self.first_ms + HOUR_MS * self.ms.shape[1]
        # Most workloads were one thing all the time, and most of the others' pieces lie within few hours.
        whole = (from_ms <= self.first_ms) & (to_ms >= last_ms)
        self.ms[of[whole], :, rank[whole]] = HOUR_MS
        cut = np.flatnonzero(~whole & (to_ms > from_ms))
        self._add_cut(of[cut], from_ms[cut], to_ms[cut], rank[cut])

    def _add_cut(self, of: np.ndarray, from_ms: np.ndarray, to_ms: np.ndarray, rank: np.ndarray) -> None:
        """Pieces that cover a part of some hours."""
        count = self.ms.shape[1]
        first = np.clip((from_ms - self.first_ms) // HOUR_MS, 0, count)
        hours = np.clip(-((self.first_ms - to_ms) // HOUR_MS), first, count) - first
        piece = np.repeat(np.arange(len(of)), hours)
        hour = np.arange(len(piece)) - np.repeat(np.cumsum(hours) - hours, hours) + first[piece]
        begins_ms = self.first_ms + HOUR_MS * hour
        reached = np.minimum(to_ms[piece], begins_ms + HOUR_MS) - np.maximum(from_ms[piece], begins_ms)
        np.add.at(self.ms, (of[piece], hour, rank[piece]), reached)

    def put(self, index: int, answer: Composition) -> None:
        """Take over what `compose` answered for one workload."""
        self._composed[index] = answer.intervals
        self.ms[index] = 0
        for kind, started_ms, ended_ms in answer.intervals:
            for hour in range((started_ms - self.first_ms) // HOUR_MS, self.ms.shape[1]):
                begins_ms = self.first_ms + hour * HOUR_MS
                if begins_ms >= ended_ms:
                    break
                cut = min(ended_ms, begins_ms + HOUR_MS) - max(started_ms, begins_ms)
                self.ms[index, hour, _RANK[kind]] += cut

    def take(self, places: Sequence[int], other: Hours) -> None:
        """Take over all of another one, which is of these workloads here."""
        self.ms[places] = other.ms
        for number, place in enumerate(places):
            self._composed[place] = other.spans_of(number)

    def spans_of(self, index: int) -> tuple[tuple[str, int, int], ...]:
        """(kind, from_ms, to_ms) of one workload, without overlap."""
        if index in self._composed:
            return self._composed[index]
        return self._pieces.of_workload(index)

    def within(self, index: int, from_ms: int, to_ms: int) -> dict[str, int]:
        """Milliseconds by kind of one workload in [from_ms, to_ms); kinds without any are left out."""
        found: dict[str, int] = {}
        for kind, started_ms, ended_ms in self.spans_of(index):
            cut = min(ended_ms, to_ms) - max(started_ms, from_ms)
            if cut > 0:
                found[kind] = found.get(kind, 0) + cut
        return found


class _Pieces:
    """The time of many workloads in pieces; found by workload once that is asked for."""

    def __init__(self, of: np.ndarray, from_ms: np.ndarray, to_ms: np.ndarray, rank: np.ndarray) -> None:
        self._of, self._from_ms, self._to_ms, self._rank = of, from_ms, to_ms, rank
        self._order: np.ndarray | None = None

    def of_workload(self, index: int) -> tuple[tuple[str, int, int], ...]:
        if self._order is None:
            self._order = np.argsort(self._of, kind="stable")
        ordered = self._of[self._order]
        low, high = np.searchsorted(ordered, [index, index + 1]).tolist()
        mine = self._order[low:high]
        return tuple(
            (KINDS[rank], started_ms, ended_ms)
            for rank, started_ms, ended_ms in zip(
                self._rank[mine].tolist(),
                self._from_ms[mine].tolist(),
                self._to_ms[mine].tolist(),
                strict=True,
            )
        )
