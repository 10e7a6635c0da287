"""Where the beats of each row come from: two source addresses that take turns are evidence of a clone.

One number per row, compared as arrays with each batch: a batch in which nobody moved costs a look. Which
turns make a case is engine/core/clones.py's. Nothing is journaled: after a restart turns are counted afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.core.clones import Turns, alternate, source_text
from engine.table import Table

Array = npt.NDArray[Any]

WATCHED_MAX = 65_536  # rows whose turns are remembered; above it the one remembered longest is forgotten


class SourceStatistics(NamedTuple):
    moves: int
    watched: int


class Sources:
    """The source addresses of one shard's rows. For the one thread of the loops."""

    def __init__(self, table: Table, *, cloned: Callable[[int, int, int, str], None]) -> None:
        """`cloned`: told of a row (index), since when, when it was seen (unix ms), and between whom."""
        self._table, self._cloned = table, cloned
        self._turns: dict[int, Turns[int]] = {}
        self._moves = 0

    def watch(self, index: Array, source: Array, t_ms: int) -> None:
        """Accepted beats of these rows (indexes) came from these sources (`clones.source_of`; 0: unknown),
        in this order, shapes (n,)."""
        column = self._table.row.source
        known = column[index]
        moved = source != known
        if not moved.any():
            return
        moved &= source != 0
        new = moved & (known == 0)
        column[index[new]] = source[new]
        moved &= ~new
        if not moved.any():
            return
        # A row that stands twice in the batch may have gone and come back: all of its beats, in order.
        concerned = np.flatnonzero(np.isin(index, index[moved]) & (source != 0))
        for row, now in zip(index[concerned].tolist(), source[concerned].tolist(), strict=True):
            was = int(column[row])
            if was != now:
                column[row] = now
                self._move(row, was, now, t_ms)

    def _move(self, row: int, was: int, now: int, t_ms: int) -> None:
        self._moves += 1
        turns, since_ms = alternate(self._turns.pop(row, None), was, now, t_ms)
        if len(self._turns) >= WATCHED_MAX:
            del self._turns[next(iter(self._turns))]
        self._turns[row] = turns
        if since_ms is not None:
            first, second = sorted(source_text(source) for source in turns.pair)
            self._cloned(row, since_ms, t_ms, f"beats of one key take turns between {first} and {second}")

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(self._moves, len(self._turns))
