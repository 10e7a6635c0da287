"""Outputs for Postgres out of another shard's journal: those of the rows that were taken over from it.

They go with their rows and not with the shard, so that whoever tells of a row in the live view is also the
one that has written its past: a reader waits for no other shard (web/reading.py). Gaps of ours go with every
row that they touch, events of the installation with one heir.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from engine.core.beats import FIRST_REPORT_DTYPE, REFUSED_DTYPE, SAY_DTYPE
from engine.core.records import INTERVAL_DTYPE, Event
from engine.journal_blocks import Kind
from engine.reshard_rows import slots_of
from engine.table import Table

Array = npt.NDArray[Any]

_NOBODY = str(uuid.UUID(int=0))
_ID_DTYPE = np.dtype([("hi", ">u8"), ("lo", ">u8")])
_DTYPES = {
    Kind.INTERVALS: INTERVAL_DTYPE,
    Kind.FIRST_REPORTS: FIRST_REPORT_DTYPE,
    Kind.SAYS: SAY_DTYPE,
    Kind.REFUSED: REFUSED_DTYPE,
}


class Outputs:
    """What of a table's outputs is of some of its rows (indexes, shape (n,))."""

    def __init__(self, table: Table, index: Array, *, installation: bool) -> None:
        rows, slots = table.row, table.slot
        at = slots_of(table, index, rows.slot_count[index].astype(np.int64))
        self._workloads = np.sort(_ids(slots.workload_hi[at], slots.workload_lo[at]))
        self._nodes = np.sort(_ids(rows.node_hi[index], rows.node_lo[index]))
        self._installation = installation

    def of(self, kind: int, payload: bytes) -> bytes:
        """The payload of a block with only what is of the rows; empty when nothing is."""
        if kind == Kind.GAP:
            return payload
        if kind == Kind.EVENTS:
            return self._events(payload)
        records = np.frombuffer(payload, _DTYPES[Kind(kind)])
        whose = self._nodes if kind == Kind.REFUSED else self._workloads
        mine = _among(whose, _ids(records["hi"], records["lo"]))
        return records[mine].tobytes()

    def _events(self, payload: bytes) -> bytes:
        events = msgspec.msgpack.decode(payload, type=list[Event])
        nodes = np.array([uuid.UUID(event.node_id or _NOBODY).bytes for event in events], "S16")
        theirs = _among(self._nodes, nodes).tolist()
        mine = [
            event
            for event, of_node in zip(events, theirs, strict=True)
            if (self._installation if event.node_id is None else of_node)
        ]
        return msgspec.msgpack.encode(mine) if mine else b""


def _ids(high: Array, low: Array) -> Array:
    """Ids as 16 bytes each, which numpy sorts and finds."""
    ids = np.empty(len(high), _ID_DTYPE)
    ids["hi"], ids["lo"] = high, low
    return ids.view("S16")


def _among(known: Array, ids: Array) -> Array:
    """For each id whether it is known (sorted)."""
    if not len(known):
        return np.zeros(len(ids), bool)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    found: Array = known[at] == ids
    return found
