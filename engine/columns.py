"""The memory of a shard: one column per field, one entry per row or per slot, nothing else.

A row's index here is ``row // shards``. Columns of a generation have two entries per row, at ``2 * index +
(generation & 1)``: a generation and the one before it never share an entry. A row's slots lie together in
the slot columns, at ``slot_base[index] + slot``. Columns grow by doubling; nothing points into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NEVER = np.int64(2**62)  # a deadline that does not come

# name: (dtype, value of an unused entry)
ROW_COLUMNS: dict[str, tuple[str, int]] = {
    "known": ("u1", 0),  # the registry has told of this row
    "refused": ("u1", 0),  # revoked or retired: no beat of it is taken
    "check": ("u1", 0),  # not a node: 1 a stand-alone check, 2 a canary
    "interval_ms": ("u4", 0),
    "capability_generation": ("i4", 0),
    "node_hi": ("u8", 0),
    "node_lo": ("u8", 0),
    "project": ("u4", 0),  # index into the table's list of project ids
    "slots_now": ("u8", 0),  # slots that are not retired; a session with another map is told RESYNC
    "slot_base": ("u4", 0),
    "slot_count": ("u2", 0),
    "slot_room": ("u2", 0),
    # what the last accepted beat said
    "last_t_ms": ("i8", 0),
    "ttl_ms": ("u4", 0),
    "plane0": ("u8", 0),
    "plane1": ("u8", 0),
    "slots": ("u8", 0),
    "stopped": ("u1", 0),
    "generation": ("u2", 0),
    # the verdict
    "state": ("u1", 0),  # index into NODE_STATES
    "since_ms": ("i8", 0),
    "silence_from_ms": ("i8", 0),  # silence is counted from here: last_t, or the end of a window
    "deadline_ms": ("i8", int(NEVER)),
    "before_window": ("u1", 0),  # the state when a maintenance window opened
    "hot": ("u1", 0),  # every beat of this row is a change for its node: it is not UP, or being decided
    "counting": ("u1", 0),  # every beat of this row is a change for its workloads: one contradicts its health
    "refusal_told_ms": ("i8", 0),  # last STALE or CLOCK reply
}
GENERATION_COLUMNS: dict[str, tuple[str, int]] = {
    "live": ("i4", -1),  # the generation in this entry, -1 for none
    "key0": ("u8", 0),
    "key1": ("u8", 0),
    "from_ms": ("i8", 0),
    "until_ms": ("i8", 0),
    "rekey_ms": ("i8", int(NEVER)),
    "map": ("u8", 0),
    "session_ttl_ms": ("u4", 0),
    "last_seq": ("u8", 0),
}
SLOT_COLUMNS: dict[str, tuple[str, int]] = {
    "workload_hi": ("u8", 0),
    "workload_lo": ("u8", 0),
    "kind": ("u1", 0),  # BASE_* of the open base interval
    "open_ttl_ms": ("u4", 0),
    "started_ms": ("i8", 0),
    "own_t_ms": ("i8", 0),  # last beat that spoke of the slot, once the row's frames no longer do; 0: row's
    "first_report_ms": ("i8", 0),
    "health": ("u1", 0),  # confirmed: 0 unknown, 1 up, 2 down
    "turning_ms": ("i8", 0),  # first beat that contradicts `health`; 0 = none
    "row_index": ("u4", 0),
}


class Columns:
    """A growing set of equally long arrays, reached as attributes: ``columns.last_t_ms[index]``."""

    def __init__(self, layout: dict[str, tuple[str, int]], *, capacity: int, per_entry: int = 1) -> None:
        self._layout = layout
        self._per_entry = per_entry
        self.capacity = capacity
        self.arrays: dict[str, Array] = {}
        for name, (dtype, unused) in layout.items():
            self._put(name, np.full(capacity * per_entry, unused, dtype))

    def __getattr__(self, name: str) -> Array:
        raise AttributeError(name)  # columns are set as attributes; this only tells type checkers they exist

    def _put(self, name: str, array: Array) -> None:
        self.arrays[name] = array
        setattr(self, name, array)

    def grow(self, needed: int) -> bool:
        """Make room for entries 0..needed-1. True when the arrays were replaced."""
        if needed <= self.capacity:
            return False
        capacity = max(needed, self.capacity * 2)
        for name, (dtype, unused) in self._layout.items():
            larger = np.full(capacity * self._per_entry, unused, dtype)
            larger[: self.capacity * self._per_entry] = self.arrays[name]
            self._put(name, larger)
        self.capacity = capacity
        return True

    def copy(self, used: int) -> dict[str, Array]:
        """Copies of the first `used` entries of every column."""
        return {name: array[: used * self._per_entry].copy() for name, array in self.arrays.items()}

    def restore(self, stored: dict[str, Array]) -> None:
        """Take over stored columns; a column that was not stored keeps its unused value."""
        used = max((len(array) for array in stored.values()), default=0) // self._per_entry
        self.grow(used)
        for name, array in stored.items():
            if name in self.arrays:
                self.arrays[name][: len(array)] = array

    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())
