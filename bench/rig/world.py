"""A shard's table as it stands after a while: every row UP, every workload healthy, one beat ago.

Filled by columns instead of by a million registry records, so that a bench begins with what it measures.
"""

from __future__ import annotations

import numpy as np

from bench.rig.frames import GENERATION, keys_of, mask_of
from engine.core.records import BASE_UP
from engine.core.step import UP, WELL
from engine.core.timing import ttl_of_interval
from engine.table import Table

NEVER_MS = 2**61
PROJECT_ID = "00000000-0000-7000-8000-00000000be7c"


def fill(table: Table, *, rows: int, workloads: int, interval_ms: int, now_ms: int) -> None:
    """Give the table those of `rows` rows that are its shard's, `workloads` slots each."""
    mine = np.arange(table.shard, rows, table.shards)
    count = len(mine)
    table.take_rows(count)
    base = table.take_slots(count * workloads)
    table.project_number(PROJECT_ID)
    ttl_ms = ttl_of_interval(interval_ms)
    mask = mask_of(workloads)
    row = table.row
    for name, value in {
        "known": 1,
        "interval_ms": interval_ms,
        "ttl_ms": ttl_ms,
        "slot_base": base + np.arange(count) * workloads,
        "slot_count": workloads,
        "slot_room": workloads,
        "slots_now": mask,
        "capability_generation": GENERATION,
        "slots": mask,
        "plane0": mask,
        "generation": GENERATION,
        "last_t_ms": now_ms,
        "state": UP,
        "since_ms": now_ms,
        "deadline_ms": now_ms + ttl_ms,
        "node_hi": mine.astype(np.uint64) + np.uint64(1 << 62),
        "node_lo": mine.astype(np.uint64),
    }.items():
        row.arrays[name][:count] = value
    key0, key1 = keys_of(mine)
    for name, value in {
        "live": GENERATION,
        "key0": key0,
        "key1": key1,
        "until_ms": NEVER_MS,
        "map": mask,
        "session_ttl_ms": ttl_ms,
    }.items():
        table.generation.arrays[name][GENERATION : 2 * count : 2] = value
    slots = np.arange(count * workloads)
    for name, value in {
        "workload_hi": mine.astype(np.uint64).repeat(workloads),
        "workload_lo": slots.astype(np.uint64),
        "row_index": np.arange(count).repeat(workloads),
        "kind": BASE_UP,
        "open_ttl_ms": ttl_ms,
        "started_ms": now_ms,
        "first_report_ms": now_ms,
        "health": WELL,
    }.items():
        table.slot.arrays[name][base : base + len(slots)] = value
