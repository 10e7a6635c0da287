"""The layout of packed columns: no two share a byte, and a row's line is its record in the live view."""

from __future__ import annotations

import numpy as np

from engine.columns import GENERATION_PACKED, ROW_PACKED, ROW_PLACES, Columns
from engine.core.liveview import ROW_DTYPE
from engine.entries import Entries
from engine.pages import capture

OF_THE_LINE = ("generation", "ttl_ms", "last_t_ms", "plane0", "plane1", "slots", "slot_base", "slot_count")


def test_no_two_packed_columns_share_a_byte_and_an_entry_is_one_cache_line():
    for packed, places in ((ROW_PACKED, ROW_PLACES), (GENERATION_PACKED, None)):
        columns = Columns(packed=packed, places=places, capacity=2)
        assert columns.lines.dtype.itemsize == 64
        written = np.zeros(64, np.uint8)
        for name in packed:
            columns.lines.view(np.uint8)[:] = 0
            columns.arrays[name][0] = (
                -1 if columns.arrays[name].dtype.kind == "i" else ~columns.arrays[name][0]
            )
            written += columns.lines.view(np.uint8)[:64] != 0
        assert written.max() == 1, written.tolist()


def test_a_page_says_what_the_columns_say_and_nothing_of_what_only_the_table_knows():
    table = Entries(shard=0, shards=1, rows=4, slots=1)
    table.take_rows(2)
    for number, name in enumerate((*ROW_PACKED, "state", "since_ms"), start=1):
        table.row.arrays[name][:2] = number
    ((offset, page),) = capture(table).rows
    records = np.frombuffer(page, ROW_DTYPE)
    assert (offset, len(records)) == (0, 2)
    for name in (*OF_THE_LINE, "state", "since_ms"):
        assert records[name].tolist() == table.row.arrays[name][:2].tolist(), name
    assert not records["flags"].any()
    assert not records["seen"].any()
    assert not records["pad"].any()
