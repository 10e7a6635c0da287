"""The packed layout of the live view: one 64-byte record per row, one 32-byte record per slot.

The engine writes pages of these arrays, web reads single records. Little-endian, fixed offsets. A slot's
record stands at index ``slot_base + slot`` of the slots array; a zero row record is a row never heard of.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from engine.core.records import NODE_STATES, LiveNode, LiveSlot, ShardHead

ROW_DTYPE = np.dtype(
    [
        ("state", "u1"),  # index into NODE_STATES
        ("flags", "u1"),
        ("generation", "<u2"),
        ("ttl_ms", "<u4"),
        ("last_t_ms", "<i8"),
        ("plane0", "<u8"),
        ("plane1", "<u8"),
        ("slots", "<u8"),  # map of the last accepted frame: these slots follow the row's last_t and ttl
        ("seen", "<u8"),  # slots with a first report
        ("since_ms", "<i8"),  # of `state`
        ("slot_base", "<u4"),
        ("slot_count", "<u2"),
        ("pad", "<u2"),
    ]
)
SLOT_DTYPE = np.dtype(
    [
        ("kind", "u1"),  # BASE_*: kind of the open base interval
        ("flags", "u1"),
        ("pad", "<u2"),
        ("ttl_ms", "<u4"),  # ttl of the open base interval
        ("started_ms", "<i8"),  # of the open base interval
        ("own_t_ms", "<i8"),  # last beat that spoke of this slot; 0 = the row's last_t_ms
        ("first_report_ms", "<i8"),
    ]
)
ROW_BYTES = ROW_DTYPE.itemsize
SLOT_BYTES = SLOT_DTYPE.itemsize
_ROW = struct.Struct("<BBHIqQQQQqIHH")  # ROW_DTYPE, field by field
_SLOT = struct.Struct("<BBHIqqq")  # SLOT_DTYPE
assert (ROW_BYTES, SLOT_BYTES) == (64, 32) == (_ROW.size, _SLOT.size)


class LivePage(NamedTuple):
    """Many rows of one shard as arrays, read under one header."""

    head: ShardHead
    rows: np.ndarray  # ROW_DTYPE, in the order asked for; all zeros: never heard of
    slots: np.ndarray  # SLOT_DTYPE, the slots of these rows one after the other

    @property
    def first_slot(self) -> np.ndarray:
        """Where in `slots` each row's own begin."""
        counts = self.rows["slot_count"].astype(np.int64)
        return np.asarray(np.cumsum(counts) - counts)


def live_page(head: ShardHead, rows: bytes, slots: bytes) -> LivePage:
    """The arrays of what was read; slots that are not there yet (the view is being written) say nothing."""
    records = np.frombuffer(rows, ROW_DTYPE)
    wanted = int(records["slot_count"].sum()) * SLOT_BYTES
    return LivePage(head, records, np.frombuffer(slots.ljust(wanted, b"\0"), SLOT_DTYPE))


def slot_range(row_record: bytes) -> tuple[int, int]:
    """Byte offset and byte length of a row's slot records, read off its row record."""
    record = np.frombuffer(row_record, ROW_DTYPE)[0]
    return int(record["slot_base"]) * SLOT_BYTES, int(record["slot_count"]) * SLOT_BYTES


def decode(row_record: bytes, slot_records: bytes) -> LiveNode:
    """Read one row and its slots; both byte strings must be whole records."""
    # By struct, not by numpy: for a single record it takes a tenth of the time.
    state, _, generation, ttl_ms, last_t_ms, _, _, _, _, since_ms, _, _, _ = _ROW.unpack(row_record)
    slots = {
        index: LiveSlot(
            kind=kind,
            ttl_ms=slot_ttl_ms,
            started_ms=started_ms,
            last_t_ms=own_t_ms or last_t_ms,
            first_report_ms=first_report_ms,
        )
        for index, (kind, _, _, slot_ttl_ms, started_ms, own_t_ms, first_report_ms) in enumerate(
            _SLOT.iter_unpack(slot_records)
        )
    }
    return LiveNode(
        state=NODE_STATES[state],
        generation=generation,
        ttl_ms=ttl_ms,
        last_t_ms=last_t_ms,
        since_ms=since_ms,
        slots=slots,
    )
