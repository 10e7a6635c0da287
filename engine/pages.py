"""Dirty pages of the live view out of the table's columns (`engine.core.liveview`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.columns import Columns
from engine.core.liveview import ROW_DTYPE, SLOT_DTYPE
from engine.core.ports import Page
from engine.entries import DIRTY_ROWS, DIRTY_SLOTS, Entries

Array = npt.NDArray[Any]
Pages = list[Page]

# A page costs what some kilobytes cost: so many clean marks between two dirty ones go along.
_CLEAN_MARKS_MAX = 3
_PAGES_PER_WRITE = 4_000
_BYTES_PER_WRITE = 8 * 1024 * 1024

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
        _pages(row_marks, DIRTY_ROWS, table.rows, partial(row_records, table.row)),
        _pages(slot_marks, DIRTY_SLOTS, table.slots, partial(slot_records, table.slot)),
        row_marks,
        slot_marks,
    )


def give_back(table: Entries, captured: Captured) -> None:
    """What was captured could not be written: mark it dirty again."""
    table.dirty_rows[: len(captured.row_marks)] |= captured.row_marks[: len(table.dirty_rows)]
    table.dirty_slots[: len(captured.slot_marks)] |= captured.slot_marks[: len(table.dirty_slots)]


def row_records(rows: Columns, entries: Array) -> Array:
    """A row's line is laid out like its record (`engine.columns`), but for what only one of them has."""
    records = rows.lines.take(entries).view(ROW_DTYPE)
    records["state"], records["since_ms"] = rows.state.take(entries), rows.since_ms.take(entries)
    records["flags"] = records["seen"] = records["pad"] = 0
    return records


def slot_records(slots: Columns, entries: Array) -> Array:
    records = np.zeros(len(entries), SLOT_DTYPE)
    for field, column in _SLOT_FIELDS.items():
        records[field] = slots.arrays[column].take(entries)
    return records


def _pages(marks: Array, per_mark: int, used: int, records_of: Callable[[Array], Array]) -> Pages:
    marked = np.flatnonzero(marks[: (used + per_mark - 1) // per_mark])
    if not len(marked):
        return []
    # Neighbours go out as one page, and so do those that few clean entries lie between.
    breaks = np.flatnonzero(np.diff(marked) > _CLEAN_MARKS_MAX + 1)
    starts = marked[np.concatenate(([0], breaks + 1))] * per_mark
    ends = np.minimum((marked[np.concatenate((breaks, [len(marked) - 1]))] + 1) * per_mark, used)
    lengths = ends - starts
    cuts = np.concatenate(([0], np.cumsum(lengths)))
    records = records_of(np.arange(cuts[-1]) + np.repeat(starts - cuts[:-1], lengths))
    size = records.dtype.itemsize
    data = records.view(np.uint8).data  # not copied again: it may be all of the table
    cuts *= size
    return [
        (offset, data[start:end])
        for offset, start, end in zip(
            (starts * size).tolist(), cuts[:-1].tolist(), cuts[1:].tolist(), strict=True
        )
    ]


def in_writes(pages: Pages) -> list[Pages]:
    """Pages in groups that one write may take; a page larger than that is cut."""
    if 0 < len(pages) <= _PAGES_PER_WRITE and sum(len(data) for _, data in pages) <= _BYTES_PER_WRITE:
        return [pages]
    parts: list[Pages] = []
    size = _BYTES_PER_WRITE
    for offset, data in pages:
        for start in range(0, len(data), _BYTES_PER_WRITE):
            piece = (offset + start, data[start : start + _BYTES_PER_WRITE])
            if size + len(piece[1]) > _BYTES_PER_WRITE or len(parts[-1]) >= _PAGES_PER_WRITE:
                parts.append([])
                size = 0
            parts[-1].append(piece)
            size += len(piece[1])
    return parts
