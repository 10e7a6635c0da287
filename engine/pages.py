"""Dirty pages of the live view out of the table's columns (`engine.core.liveview`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.core.liveview import ROW_DTYPE, SLOT_DTYPE
from engine.entries import DIRTY_ROWS, DIRTY_SLOTS, Entries

Array = npt.NDArray[Any]
Pages = list[tuple[int, bytes]]  # (byte offset, bytes)

# A page costs what some kilobytes cost: so many clean marks between two dirty ones go along.
_CLEAN_MARKS_MAX = 3

_ROW_FIELDS = {
    "state": "state",
    "generation": "generation",
    "ttl_ms": "ttl_ms",
    "last_t_ms": "last_t_ms",
    "plane0": "plane0",
    "plane1": "plane1",
    "slots": "slots",
    "since_ms": "since_ms",
    "slot_base": "slot_base",
    "slot_count": "slot_count",
}
_SLOT_FIELDS = {
    "kind": "kind",
    "ttl_ms": "open_ttl_ms",
    "started_ms": "started_ms",
    "own_t_ms": "own_t_ms",
    "first_report_ms": "first_report_ms",
}


class Captured(NamedTuple):
    """Pages copied at one moment, and which marks they came from."""

    rows: Pages
    slots: Pages
    row_marks: Array
    slot_marks: Array


def capture(table: Entries) -> Captured:
    """Copy everything marked dirty and clear the marks."""
    row_marks, slot_marks = table.dirty_rows, table.dirty_slots
    table.dirty_rows, table.dirty_slots = np.zeros_like(row_marks), np.zeros_like(slot_marks)
    return Captured(
        _pages(row_marks, DIRTY_ROWS, table.rows, table.row.arrays, _ROW_FIELDS, ROW_DTYPE),
        _pages(slot_marks, DIRTY_SLOTS, table.slots, table.slot.arrays, _SLOT_FIELDS, SLOT_DTYPE),
        row_marks,
        slot_marks,
    )


def give_back(table: Entries, captured: Captured) -> None:
    """What was captured could not be written: mark it dirty again."""
    table.dirty_rows[: len(captured.row_marks)] |= captured.row_marks[: len(table.dirty_rows)]
    table.dirty_slots[: len(captured.slot_marks)] |= captured.slot_marks[: len(table.dirty_slots)]


def _pages(
    marks: Array, per_mark: int, used: int, columns: dict[str, Array], fields: dict[str, str], dtype: Any
) -> Pages:
    marked = np.flatnonzero(marks[: (used + per_mark - 1) // per_mark])
    if not len(marked):
        return []
    # Neighbours go out as one page, and so do those that few clean entries lie between.
    breaks = np.flatnonzero(np.diff(marked) > _CLEAN_MARKS_MAX + 1)
    starts = marked[np.concatenate(([0], breaks + 1))] * per_mark
    ends = np.minimum((marked[np.concatenate((breaks, [len(marked) - 1]))] + 1) * per_mark, used)
    lengths = ends - starts
    cuts = np.concatenate(([0], np.cumsum(lengths)))
    entries = np.arange(cuts[-1]) + np.repeat(starts - cuts[:-1], lengths)
    records = np.zeros(len(entries), dtype)
    for field, column in fields.items():
        records[field] = columns[column].take(entries)
    size = dtype.itemsize
    data = records.tobytes()
    cuts *= size
    return [
        (offset, data[start:end])
        for offset, start, end in zip(
            (starts * size).tolist(), cuts[:-1].tolist(), cuts[1:].tolist(), strict=True
        )
    ]
