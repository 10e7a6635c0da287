"""The memory of a shard: one column per field, one entry per row or per slot, nothing else.

A row's index here is ``row // shards``. Columns of a generation have two entries per row, at ``2 * index +
(generation & 1)``: a generation and the one before it never share an entry. A row's slots lie together in
the slot columns, at ``slot_base[index] + slot``. Columns grow by doubling; nothing points into them.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.core.liveview import ROW_DTYPE

Array = npt.NDArray[Any]

NEVER = np.int64(2**62)  # a deadline that does not come
_LINE_BYTES = 64
_LINES = "lines"  # of the packed columns together, where columns are told by name
REVOKED, RETIRED = 1, 2  # values of `refused`; of a retired row nothing is expected any more

# name: (dtype, value of an unused entry). PACKED columns lie together, one cache line per entry: a beat of a
# random row among a million costs one miss, not one per column. The others are scanned whole by the judge.
# A row's line is laid out like its record in the live view, which is so copied as it stands; what only we
# know lies where the view has fields that come from elsewhere (ROW_PLACES).
ROW_PACKED: dict[str, tuple[str, int]] = {
    # what the last accepted beat said
    "last_t_ms": ("i8", 0),
    "plane0": ("u8", 0),
    "plane1": ("u8", 0),
    "slots": ("u8", 0),
    "slots_now": ("u8", 0),  # slots that are not retired; a session with another map is told RESYNC
    "ttl_ms": ("u4", 0),
    "interval_ms": ("u4", 0),
    "slot_base": ("u4", 0),
    "slot_count": ("u2", 0),
    "generation": ("u2", 0),  # of the last beat that changed something
    "stopped": ("u1", 0),
    "hot": ("u1", 0),  # every beat of this row is a change for its node: it is not UP, or being decided
    "counting": ("u1", 0),  # every beat of this row is a change for its workloads: one contradicts its health
    "known": ("u1", 0),  # the registry has told of this row
    "resync": ("u1", 0),  # its manager shall fetch the desired state
    "refused": ("u1", 0),  # REVOKED or RETIRED: no beat of it is taken
    "leasing": ("u1", 0),  # CONTENDS, STANDBY: its beats bear on a licence (engine/standing.py)
}
ROW_COLUMNS: dict[str, tuple[str, int]] = {
    "state": ("u1", 0),  # the verdict: index into NODE_STATES
    "check": ("u1", 0),  # not a node: 1 a stand-alone check, 2 a canary
    "since_ms": ("i8", 0),
    "window_end_ms": ("i8", 0),  # silence is counted from here, if it lies after the last beat
    # When the judge looks next. Beats do not move it: one found early is put off to the real deadline.
    "deadline_ms": ("i8", int(NEVER)),
    "before_window": ("u1", 0),  # the state when a maintenance window opened
    "capability_generation": ("i4", 0),
    "node_hi": ("u8", 0),
    "node_lo": ("u8", 0),
    "project": ("u4", 0),  # index into the table's list of project ids
    "slot_room": ("u2", 0),
    # Masks of slots (engine/standing.py): under a licence; of these, its lease held here; or by another run
    "licensed": ("u8", 0),
    "holds": ("u8", 0),
    "standby": ("u8", 0),
    "refusal_told_ms": ("i8", 0),  # last STALE or CLOCK reply
    "source": ("u8", 0),  # where its last beat came from, as clones.source_of; 0: not known
}
GENERATION_PACKED: dict[str, tuple[str, int]] = {
    "live": ("i4", -1),  # the generation in this entry, -1 for none
    "key0": ("u8", 0),
    "key1": ("u8", 0),
    "until_ms": ("i8", 0),
    "rekey_ms": ("i8", int(NEVER)),
    "map": ("u8", 0),
    "session_ttl_ms": ("u4", 0),
    "last_seq": ("u8", 0),
    "heard": ("u1", 0),  # a beat of this generation was credited
    "newest": ("u1", 0),  # 1: the current generation of its row, 0: the one before it
}
GENERATION_COLUMNS: dict[str, tuple[str, int]] = {
    # What `until_ms` is while the registry can be reached, and while it cannot.
    "until_near_ms": ("i8", 0),
    "until_away_ms": ("i8", 0),
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
    # Of a licensed slot: absent since then; negative: the lease was let go then; 0: neither
    "away_ms": ("i8", 0),
}


_VIEW = {name: offset for name, (_, offset, *_) in (ROW_DTYPE.fields or {}).items()}
ROW_PLACES = {
    **{name: _VIEW[name] for name in ROW_PACKED if name in _VIEW},
    "slots_now": _VIEW["seen"],
    "interval_ms": _VIEW["since_ms"],
    "stopped": _VIEW["since_ms"] + 4,
    "hot": _VIEW["since_ms"] + 5,
    "counting": _VIEW["since_ms"] + 6,
    "leasing": _VIEW["since_ms"] + 7,
    "known": _VIEW["state"],
    "refused": _VIEW["flags"],
    "resync": _VIEW["pad"],
}


class Columns:
    """A growing set of equally long arrays, reached as attributes: ``columns.last_t_ms[index]``."""

    def __init__(
        self,
        *,
        packed: dict[str, tuple[str, int]] | None = None,
        places: dict[str, int] | None = None,
        plain: dict[str, tuple[str, int]] | None = None,
        capacity: int,
        per_entry: int = 1,
    ) -> None:
        self._packed, self._plain = packed or {}, plain or {}
        self._dtype = _cache_line(self._packed, places or _one_behind_the_other(self._packed))
        self._per_entry = per_entry
        self.capacity = capacity
        self.arrays: dict[str, Array] = {}
        self.lines: Array  # the packed columns of all entries, one record each
        self._allocate(capacity)

    def __getattr__(self, name: str) -> Array:
        raise AttributeError(name)  # columns are set as attributes; this only tells type checkers they exist

    def _allocate(self, capacity: int) -> None:
        entries = capacity * self._per_entry
        self.lines = lines = np.zeros(entries, self._dtype)
        for name, (_, unused) in self._packed.items():
            if unused:
                lines[name] = unused
            self._put(name, lines[name])
        for name, (dtype, unused) in self._plain.items():
            self._put(name, np.full(entries, unused, dtype) if unused else np.zeros(entries, dtype))
        self.capacity = capacity

    def _put(self, name: str, array: Array) -> None:
        self.arrays[name] = array
        setattr(self, name, array)

    def grow(self, needed: int) -> bool:
        """Make room for entries 0..needed-1. True when the arrays were replaced."""
        if needed <= self.capacity:
            return False
        smaller = dict(self.arrays)
        self._allocate(max(needed, self.capacity * 2))
        for name, array in smaller.items():
            self.arrays[name][: len(array)] = array
        return True

    def room(self, used: int) -> dict[str, Array]:
        """Memory for a `copy` of so many entries. It has been touched: the first touch of fresh memory takes
        many times as long as copying does, and can so be left to a worker thread. It is one piece that goes
        back to the system when it is dropped; a heap would keep most of it."""
        entries = used * self._per_entry
        dtypes = {_LINES: _bytes(self._dtype)} | {
            name: np.dtype(each) for name, (each, _) in self._plain.items()
        }
        size = max(1, entries * sum(dtype.itemsize for dtype in dtypes.values()))
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)  # as numpy asks for its own: a fifth of the time
        np.frombuffer(memory, np.uint8).fill(0)
        room, at = {}, 0
        for name, dtype in sorted(dtypes.items(), key=lambda item: -item[1].itemsize):
            room[name] = np.frombuffer(memory, dtype, entries, at)
            at += room[name].nbytes
        return room

    def copy(self, used: int, room: dict[str, Array] | None = None) -> dict[str, Array]:
        """Copies of the first `used` entries of every column, in `room` if they fit there."""
        entries = used * self._per_entry
        if room is None or len(room[_LINES]) < entries:
            room = self.room(used)
        lines = room[_LINES][:entries]
        lines[:] = self.lines[:entries].view(lines.dtype)
        copied = {name: lines.view(self._dtype)[name] for name in self._packed}
        for name in self._plain:
            copied[name] = room[name][:entries]
            copied[name][:] = self.arrays[name][:entries]
        return copied

    def restore(self, stored: dict[str, Array]) -> None:
        """Take over stored columns; a column that was not stored keeps its unused value."""
        self.grow(max((len(array) for array in stored.values()), default=0) // self._per_entry)
        for name, array in stored.items():
            if name in self.arrays:
                self.arrays[name][: len(array)] = array

    def nbytes(self) -> int:
        lines = self.capacity * self._per_entry * self._dtype.itemsize
        return lines + sum(self.arrays[name].nbytes for name in self._plain)


def _one_behind_the_other(packed: dict[str, tuple[str, int]]) -> dict[str, int]:
    """Places of packed columns, widest first."""
    places, at = {}, 0
    for name, (dtype, _) in sorted(packed.items(), key=lambda item: -np.dtype(item[1][0]).itemsize):
        places[name] = at
        at += np.dtype(dtype).itemsize
    return places


def _cache_line(packed: dict[str, tuple[str, int]], places: dict[str, int]) -> np.dtype[Any]:
    """The packed columns as one record at these places (bytes), padded to whole cache lines."""
    end = max((places[name] + np.dtype(dtype).itemsize for name, (dtype, _) in packed.items()), default=0)
    return np.dtype(
        {
            "names": list(packed),
            "formats": [dtype for dtype, _ in packed.values()],
            "offsets": [places[name] for name in packed],
            "itemsize": -(-end // _LINE_BYTES) * _LINE_BYTES or 1,
        }
    )


def _bytes(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Records of this size without fields: numpy copies those at the speed of memory."""
    return np.dtype((np.void, dtype.itemsize))
