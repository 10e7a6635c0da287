"""Beats of known rows that were not credited, counted per row, UTC day and reason, on their way to history.

Counts are of this run of the shard and only grow; each second those that grew are journaled as they stand.
So whatever is written twice, or copied into another shard's journal, counts once, and a block that is lost is
made up for by the next. What cannot be trusted (anybody can send it) is kept apart, within its own bound, and
journaled once a minute. Accepted beats cost nothing here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.core.beats import REFUSED_DTYPE
from engine.core.evidence import REASONS, UNTRUSTED
from engine.core.sealed import DAY_MS
from engine.decisions import Appends
from engine.journal_blocks import Kind
from engine.table import Table
from np1.codec import Code

Array = npt.NDArray[Any]

STALE, CLOCK, BUSY, TOKEN, SESSION, MAC = range(len(REASONS))
_OF_CODE = np.zeros(16, np.int64)
_OF_CODE[Code.STALE], _OF_CODE[Code.CLOCK], _OF_CODE[Code.BUSY] = STALE, CLOCK, BUSY
_REASON_BITS, _INDEX_BITS = 4, 32  # a key: day, row index, reason
_PENDING_MAX = 65_536  # keys gathered before they are put together
_UNTRUSTED_EVERY_MS = 60_000
_KEPT_MS = 3_600_000  # after a day's end: what was forwarded may come late


class RefusalStatistics(NamedTuple):
    counted: dict[str, int]
    uncounted: int
    entries: int


class _Tally:
    """Growing counts by key, at most `entries_max` of them; above it what is new is not counted."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._keys = np.empty(0, np.int64)  # sorted
        self._counts = np.empty(0, np.int64)
        self._grown = np.empty(0, bool)  # since they were last taken
        self._pending: list[Array] = []
        self._pending_keys = 0
        self.uncounted = 0

    def add(self, keys: Array) -> None:
        self._pending.append(keys)
        self._pending_keys += len(keys)
        if self._pending_keys >= _PENDING_MAX:
            self._gather()

    def _gather(self) -> None:
        if not self._pending:
            return
        keys, counts = np.unique(np.concatenate(self._pending), return_counts=True)
        self._pending, self._pending_keys = [], 0
        at = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = at < len(self._keys)
        known[inside] = self._keys[at[inside]] == keys[inside]
        self._counts[at[known]] += counts[known]
        self._grown[at[known]] = True
        new = np.flatnonzero(~known)
        room = max(0, self._entries_max - len(self._keys))
        self.uncounted += int(counts[new[room:]].sum())
        new = new[:room]
        self._keys = np.insert(self._keys, at[new], keys[new])
        self._counts = np.insert(self._counts, at[new], counts[new])
        self._grown = np.insert(self._grown, at[new], values=True)

    def take(self, *, from_day: int) -> tuple[Array, Array]:
        """Keys and counts of those that grew since the last call; days before `from_day` are forgotten."""
        self._gather()
        keys, counts = self._keys[self._grown], self._counts[self._grown]
        self._grown[:] = False
        old = int(np.searchsorted(self._keys, from_day << (_INDEX_BITS + _REASON_BITS)))
        if old:
            self._keys, self._counts, self._grown = self._keys[old:], self._counts[old:], self._grown[old:]
        return keys, counts

    def __len__(self) -> int:
        return len(self._keys)


class Refusals:
    """The refused beats of one shard's rows. For the one thread of the loops."""

    def __init__(self, table: Table, *, run_ms: int, rows_max: int) -> None:
        """`run_ms`: when this run of the shard began. `rows_max`: entries of each of the two kinds."""
        self._table, self._run_ms = table, run_ms
        self._trusted, self._untrusted = _Tally(rows_max), _Tally(rows_max)
        self._untrusted_ms = run_ms
        self._counted = np.zeros(len(REASONS), np.int64)

    def add(self, index: Array, reason: int, t_ms: Array | int) -> None:
        """Beats of these rows (indexes, shape (n,), a row as often as it has some), received at `t_ms`."""
        if not len(index):
            return
        keys = _keys(index, reason, t_ms)
        (self._untrusted if REASONS[reason] in UNTRUSTED else self._trusted).add(keys)
        self._counted[reason] += len(index)

    def add_coded(self, index: Array, codes: Array, t_ms: Array | int) -> None:
        """Beats that authenticated and were answered STALE, CLOCK or BUSY, shapes (n,)."""
        if not len(index):
            return
        reasons = _OF_CODE[codes]
        self._trusted.add(_keys(index, reasons, t_ms))
        self._counted += np.bincount(reasons, minlength=len(REASONS))

    def drain(self, journal: Appends, now_ms: int, *, last: bool = False) -> None:
        """Journal what grew; what is not trusted only once a minute, and when the shard stops (`last`)."""
        from_day = (now_ms - _KEPT_MS) // DAY_MS
        parts = [self._trusted.take(from_day=from_day)]
        if last or now_ms - self._untrusted_ms >= _UNTRUSTED_EVERY_MS:
            self._untrusted_ms = now_ms
            parts.append(self._untrusted.take(from_day=from_day))
        keys, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
        if not len(keys):
            return
        index = keys >> _REASON_BITS & (1 << _INDEX_BITS) - 1
        refused = np.zeros(len(keys), REFUSED_DTYPE)
        refused["hi"], refused["lo"] = self._table.row.node_hi[index], self._table.row.node_lo[index]
        refused["run_ms"], refused["count"] = self._run_ms, counts
        refused["day"] = keys >> (_INDEX_BITS + _REASON_BITS)
        refused["reason"] = keys & (1 << _REASON_BITS) - 1
        journal.append(Kind.REFUSED, now_ms, refused.tobytes())

    def statistics(self) -> RefusalStatistics:
        counted = {str(reason): int(self._counted[at]) for at, reason in enumerate(REASONS)}
        uncounted = self._trusted.uncounted + self._untrusted.uncounted
        return RefusalStatistics(counted, uncounted, len(self._trusted) + len(self._untrusted))


def _keys(index: Array, reason: Array | int, t_ms: Array | int) -> Array:
    day = t_ms // DAY_MS
    keys: Array = (day << (_INDEX_BITS + _REASON_BITS)) | (index.astype(np.int64) << _REASON_BITS) | reason
    return keys
