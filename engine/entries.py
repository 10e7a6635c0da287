"""The entries of a shard's table: rows, their generations and slots, how they grow, which were touched.

What beats do to them is `engine.table`; what the registry does to them `engine.rows`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.columns import (
    GENERATION_COLUMNS,
    GENERATION_PACKED,
    ROW_COLUMNS,
    ROW_PACKED,
    ROW_PLACES,
    SLOT_COLUMNS,
    Columns,
)
from engine.core.beats import SAY_DTYPE

Array = npt.NDArray[Any]
Room = dict[str, dict[str, Array]]  # group -> name -> array

DIRTY_ROWS = 16  # rows of one dirty mark; 1 KB of the live view
DIRTY_SLOTS = 32


class TableStatistics(NamedTuple):
    rows: int
    slots: int
    bytes: int


class Entries:
    """Columns of one shard. `rows` and `slots` count the entries in use; a row's index is row // shards."""

    def __init__(self, *, shard: int, shards: int, rows: int, slots: int) -> None:
        self.shard, self.shards = shard, shards
        self.row = Columns(packed=ROW_PACKED, places=ROW_PLACES, plain=ROW_COLUMNS, capacity=rows)
        self.generation = Columns(
            packed=GENERATION_PACKED, plain=GENERATION_COLUMNS, capacity=rows, per_entry=2
        )
        self.slot = Columns(plain=SLOT_COLUMNS, capacity=slots)
        self.rows = 0
        self.slots = 0
        self.unknown_secrets: Counter[int] = Counter()  # sessions passed over, by the secret's id
        self.says: list[tuple[int, int, int]] = []  # on licences: (slot index, at, SAY_*)
        self.absent: set[int] | None = None  # slots with a positive `away_ms`; None: to be looked for
        self._project_ids: list[str] = []
        self._project_numbers: dict[str, int] = {}
        self._mark()

    def _mark(self) -> None:
        self.dirty_rows = np.zeros(self.row.capacity // DIRTY_ROWS + 1, bool)
        self.dirty_slots = np.zeros(self.slot.capacity // DIRTY_SLOTS + 1, bool)
        self.mark_all_dirty()

    def mark_all_dirty(self) -> None:
        """Let the next flush of the live view write everything."""
        self.dirty_rows[:] = True
        self.dirty_slots[:] = True

    def restore_entries(
        self,
        columns: dict[str, dict[str, Array]],
        *,
        rows: int,
        slots: int,
        project_ids: list[str],
    ) -> None:
        """Take over stored columns: group -> name -> array."""
        self.row.restore(columns["row"])
        self.generation.restore(columns["generation"])
        self.slot.restore(columns["slot"])
        self.generation.grow(self.row.capacity)
        self.rows, self.slots = rows, slots
        for project_id in project_ids:
            self.project_number(project_id)
        self._mark()

    def room(self) -> Room:
        """Memory for `copy_columns` (`engine.columns.Columns.room`); for a worker thread."""
        return {
            "row": self.row.room(self.rows),
            "generation": self.generation.room(self.rows),
            "slot": self.slot.room(self.slots),
        }

    def copy_columns(self, room: Room | None = None) -> Room:
        """Copies of all columns as they are now: group -> name -> array, as `restore_entries` takes them."""
        room = room or {}
        return {
            "row": self.row.copy(self.rows, room.get("row")),
            "generation": self.generation.copy(self.rows, room.get("generation")),
            "slot": self.slot.copy(self.slots, room.get("slot")),
        }

    @property
    def project_ids(self) -> list[str]:
        """Project ids by their numbers."""
        return list(self._project_ids)

    def index_of(self, row: int) -> int:
        return row // self.shards

    def number_of(self, index: int) -> int:
        return index * self.shards + self.shard

    def take_rows(self, rows: int) -> None:
        """Make room for row indexes below `rows`."""
        if self.row.grow(rows):
            self.generation.grow(self.row.capacity)
            self._mark()
        self.rows = max(self.rows, rows)

    def session_unheard(self, index: int) -> bool:
        """Whether no beat of the row's newest session has been credited yet."""
        sessions, entry = self.generation, 2 * index
        if not sessions.newest[entry]:
            entry += 1
        return bool(sessions.newest[entry] and sessions.live[entry] >= 0 and not sessions.heard[entry])

    def honour_expired(self, *, honour: bool) -> None:
        """Honour sessions beyond their expiry (or no longer).

        While the registry is out of reach nobody could open another (WIRE.md, Session).
        """
        sessions, used = self.generation, 2 * self.rows
        until_ms = sessions.until_away_ms if honour else sessions.until_near_ms
        at = np.flatnonzero(until_ms[:used])
        sessions.until_ms[at] = until_ms[at]

    def take_slots(self, count: int) -> int:
        """A fresh run of slot entries; its first index."""
        base = self.slots
        self.slots += count
        if self.slot.grow(self.slots):
            self._mark()
        return base

    def slots_of(self, index: Array) -> tuple[Array, Array, Array]:
        """All slot entries of some rows: (slot index, position of its row in `index`, slot number)."""
        counts = self.row.slot_count[index].astype(np.int64)
        owner = np.repeat(np.arange(len(index)), counts)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return number + self.row.slot_base[index][owner], owner, number

    def take_says(self) -> Array:
        """What was said of licensed workloads since the last call, as SAY_DTYPE."""
        says, self.says = self.says, []
        array = np.zeros(len(says), SAY_DTYPE)
        if says:
            slot, when, what = np.array(says).T
            array["hi"], array["lo"] = self.slot.workload_hi[slot], self.slot.workload_lo[slot]
            array["at_ms"], array["what"] = when, what
        return array

    def statistics(self) -> TableStatistics:
        nbytes = self.row.nbytes() + self.generation.nbytes() + self.slot.nbytes()
        return TableStatistics(self.rows, self.slots, nbytes)

    def project_of(self, index: int) -> str:
        return self._project_ids[int(self.row.project[index])]

    def project_number(self, project_id: str) -> int:
        """A small number for a project, the same ever after."""
        if project_id not in self._project_numbers:
            self._project_numbers[project_id] = len(self._project_ids)
            self._project_ids.append(project_id)
        return self._project_numbers[project_id]

    def touch(self, index: int) -> None:
        self.dirty_rows[index // DIRTY_ROWS] = True

    def touch_slot(self, slot: int) -> None:
        self.dirty_slots[slot // DIRTY_SLOTS] = True
