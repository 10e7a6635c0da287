"""The packed layout of the live view: one 64-byte record per row, one 32-byte record per slot.

The engine writes pages of these arrays, web reads single records. Little-endian, fixed offsets. A slot's
record stands at index ``slot_base + slot`` of the slots array; a zero row record is a row never heard of.
"""

from __future__ import annotations

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
assert (ROW_BYTES, SLOT_BYTES) == (64, 32)


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
    row = np.frombuffer(row_record, ROW_DTYPE)[0]
    slots = {}
    for index, slot in enumerate(np.frombuffer(slot_records, SLOT_DTYPE)):
        slots[index] = LiveSlot(
            kind=int(slot["kind"]),
            ttl_ms=int(slot["ttl_ms"]),
            started_ms=int(slot["started_ms"]),
            last_t_ms=int(slot["own_t_ms"]) or int(row["last_t_ms"]),
            first_report_ms=int(slot["first_report_ms"]),
        )
    return LiveNode(
        state=NODE_STATES[int(row["state"])],
        generation=int(row["generation"]),
        ttl_ms=int(row["ttl_ms"]),
        last_t_ms=int(row["last_t_ms"]),
        since_ms=int(row["since_ms"]),
        slots=slots,
    )
