"""How many nodes and workloads of a project are how: the registry's census counted against the live view.

A million are counted in a second or two, so answers are shared: the census is read again after CENSUS_S, the
view after VIEW_S, by one at a time. What is told is web/summary.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import trio

from engine.core.fleet import Census
from engine.core.records import NODE_STATES
from storage.view_arrays import HEARD
from web.view_arrays import look, wait_view

if TYPE_CHECKING:
    from web.backend import Backend

CENSUS_S, VIEW_S = 10.0, 1.0
KEPT_MAX = 8  # projects; the one asked for longest ago goes first
PART = 10_000  # nodes counted before others have their turn
UNKNOWN = "unknown"  # the state of everybody whose view is away
NODE_COLUMNS, HEARD_COLUMNS = (*NODE_STATES, UNKNOWN), (*HEARD, UNKNOWN)


class Counts(msgspec.Struct, frozen=True):
    """Arrays of counts, by region and state (NODE_COLUMNS), and by region, group and state (HEARD_COLUMNS).

    `as_of_ms`: the oldest of the shards'; None: none could be read.
    """

    census: Census
    nodes: np.ndarray
    workloads: np.ndarray
    as_of_ms: int | None


class _Kept:
    """What is known of one project."""

    def __init__(self) -> None:
        self.reading = trio.Lock()
        self.census: Census | None = None
        self.census_at = self.counted_at = 0.0
        self.counts: Counts | None = None


class Summaries:
    """Counts of projects, kept for a moment."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._counted = 0

    async def of(self, backend: Backend, project_id: str) -> Counts:
        """At most VIEW_S old. StoreUnavailableError when the registry is away."""
        kept = self._kept.pop(project_id, None) or _Kept()
        self._kept[project_id] = kept  # the last one now
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        async with kept.reading:
            if kept.counts is None or trio.current_time() - kept.counted_at >= VIEW_S:
                if kept.census is None or trio.current_time() - kept.census_at >= CENSUS_S:
                    kept.census = await backend.stores.fleet.census(project_id)
                    kept.census_at = trio.current_time()
                await wait_view(backend)
                kept.counts = await _count(backend, kept.census)
                kept.counted_at = trio.current_time()
                self._counted += 1
            return kept.counts

    def statistics(self) -> dict[str, float]:
        return {"projects": len(self._kept), "counted_total": self._counted}


async def _count(backend: Backend, census: Census) -> Counts:
    nodes = np.zeros((len(census.regions), len(NODE_COLUMNS)), np.int64)
    workloads = np.zeros((len(census.regions), len(census.groups), len(HEARD_COLUMNS)), np.int64)
    as_of: list[int] = []
    for first in range(0, len(census.node_row), PART):
        of_node = slice(first, first + PART)
        rows = census.node_row[of_node]
        of_workload = slice(*np.searchsorted(census.workload_row, (rows[0], rows[-1] + 1)).tolist())
        count = len(rows)
        # One read for both: a node's place is its row with any slot.
        seen, _undecided = await look(
            backend,
            np.concatenate([rows, census.workload_row[of_workload]]),
            np.concatenate([np.zeros(count, np.int64), census.workload_slot[of_workload]]),
        )
        state = np.where(seen.known, seen.node_state, NODE_COLUMNS.index(UNKNOWN))[:count]
        heard = np.where(seen.known, seen.heard, HEARD_COLUMNS.index(UNKNOWN))[count:]
        np.add.at(nodes, (census.node_region[of_node], state), 1)
        places = (census.workload_region[of_workload], census.workload_group[of_workload], heard)
        np.add.at(workloads, places, 1)
        if seen.known.any():
            as_of.append(int(seen.as_of_ms[seen.known].min()))
        await trio.lowlevel.checkpoint()
    return Counts(census, nodes, workloads, min(as_of, default=None))
