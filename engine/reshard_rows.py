"""Rows of one table into a table of another shard count, with everything that is known of them.

Every column is copied as it is; only what points somewhere is translated: the row's index, its run of slots,
its project's number, detached slots. Which rows, and where the tables come from, is `engine.reshard`'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.columns import Columns
from engine.table import Table

Array = npt.NDArray[Any]


def move_rows(source: Table, target: Table, index: Array) -> Array:
    """Copy known rows (indexes in `source`, shape (n,)) to `target`; their indexes there."""
    if not len(index):
        return index
    moved: Array = (index * source.shards + source.shard) // target.shards
    target.take_rows(int(moved.max()) + 1)
    _copy(source.row, index, target.row, moved)
    for parity in (0, 1):
        _copy(source.generation, 2 * index + parity, target.generation, 2 * moved + parity)
    projects = np.array([target.project_number(name) for name in source.project_ids], np.uint32)
    target.row.project[moved] = projects[source.row.project[index]]
    _move_slots(source, target, index, moved)
    return moved


def _move_slots(source: Table, target: Table, index: Array, moved: Array) -> None:
    rooms = source.row.slot_room[index].astype(np.int64)
    first = target.take_slots(int(rooms.sum()))
    target.row.slot_base[moved] = first + np.cumsum(rooms) - rooms
    old = slots_of(source, index, rooms)
    new = first + np.arange(len(old))
    _copy(source.slot, old, target.slot, new)
    target.slot.row_index[new] = np.repeat(moved, rooms)
    place = np.full(source.slots, -1, np.int64)
    place[old] = new
    detached = place[np.array(source.detached, np.int64)]
    target.detached.extend(detached[detached >= 0].tolist())


def slots_of(table: Table, index: Array, counts: Array) -> Array:
    """The slot entries of some rows, the first `counts` of each (both shape (n,)), row by row."""
    ends = np.cumsum(counts)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    entries: Array = np.repeat(table.row.slot_base[index].astype(np.int64), counts) + within
    return entries


def _copy(source: Columns, at: Array, target: Columns, to: Array) -> None:
    for name, column in source.arrays.items():
        target.arrays[name][to] = column[at]
