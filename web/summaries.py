"""How many nodes and workloads of a project are how: the registry's census counted against the live view.

A million are counted in a second or so, so nobody waits for it who need not: while a project is asked about
it is counted again and again in the background, and whoever asks is told what was counted last. The census is
read again after CENSUS_S, or later where it takes long, the view after VIEW_S or when something has happened.
What is told is summary.py's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import trio

from engine.core.fleet import Census
from engine.core.ports import StoreUnavailableError
from engine.core.records import NODE_STATES
from storage.view_arrays import HEARD
from web.view_arrays import look, wait_view

if TYPE_CHECKING:
    from web.backend import Backend

CENSUS_S, VIEW_S = 10.0, 1.0
CENSUS_TIMES = 20  # and a census is read at least so many times as seldom as it takes
LATE_S = 3.0  # the oldest counts that are told
WATCHED_S = 15.0  # so long after it was asked about, a project is counted
PATIENCE_S = 20.0  # so long the first one to ask about a big project waits
PAUSE_S = 0.2  # at least between two counts,
PAUSE_TIMES = 2  # and so many times what they took: web has others to answer
# Who would rather not wait does not where counts are so old, waits so long for newer ones, and is told then
# what was counted at most so long ago.
HASTE_ENOUGH_S, HASTE_S, HASTE_LATE_S = 6.0, 0.1, 60.0
FIRST_S = 1.5  # but so long in any case where nothing was counted yet: all but the biggest are by then
KEPT_MAX = 8  # projects; the one asked for longest ago goes first
PART = 1_000  # nodes counted before others have their turn
STALE_MS = 5_000  # a shard whose view is older does not listen, as far as can be seen
UNKNOWN = "unknown"  # the state of everybody whose view is away
NODE_COLUMNS, HEARD_COLUMNS = (*NODE_STATES, UNKNOWN), (*HEARD, UNKNOWN)
_BEATS = [HEARD_COLUMNS.index(kind) for kind in ("up", "unhealthy", "updating")]


class Counts(msgspec.Struct, frozen=True):
    """Arrays of counts, by region and state (NODE_COLUMNS), and by region, group and state (HEARD_COLUMNS).

    `as_of_ms`: the oldest of the shards'; None: none could be read. `standby`: workloads that beat while
    another run holds their licence; `unobserved`: those whose shard does not listen now. `change`: another
    number each time that anybody's state is another. `node_state`, `heard`: by the census.
    """

    census: Census
    nodes: np.ndarray
    workloads: np.ndarray
    as_of_ms: int | None
    standby: int
    unobserved: int
    node_state: np.ndarray
    heard: np.ndarray
    change: int = 0


class StillCountingError(StoreUnavailableError):
    """The first count of a big project takes longer than whoever asked would wait; it goes on."""


class _Kept:
    """What is known of one project."""

    def __init__(self) -> None:
        self.census: Census | None = None
        self.census_due = self.asked_at = 0.0
        self.census_read = False  # is being read now
        self.counts: Counts | None = None
        self.begun_at = self.counted_at = -math.inf
        self.failed: StoreUnavailableError | None = None
        self.followed = False


class Summaries:
    """Counts of projects. `run` must be running for anything to be counted."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._counted = self._changes = 0
        self._asked, self._bell = trio.Event(), trio.Event()

    @property
    def bell(self) -> trio.Event:
        """Set when something was counted, or could not be. Take it before asking, and wait for it after."""
        return self._bell

    async def of(
        self,
        backend: Backend,
        project_id: str,
        *,
        patience_s: float = PATIENCE_S,
        enough_s: float | None = None,
        late_s: float = 0.0,
    ) -> Counts:
        """At most `enough_s` (LATE_S) old; when patience is out, at most `late_s`.

        StoreUnavailableError when the registry is away, StillCountingError.
        """
        kept = self._kept.pop(project_id, None) or _Kept()
        self._kept[project_id] = kept  # the last one now
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        asked_at = kept.asked_at = trio.current_time()
        enough_s = LATE_S if enough_s is None else enough_s
        kept.failed = None
        self._asked.set()
        with trio.move_on_after(patience_s if kept.counts is not None else max(patience_s, FIRST_S)):
            while kept.begun_at < asked_at and trio.current_time() - kept.counted_at >= enough_s:
                await self._bell.wait()
                if kept.failed is not None:
                    raise StoreUnavailableError(str(kept.failed)) from kept.failed
        fresh = kept.begun_at >= asked_at or trio.current_time() - kept.counted_at < max(late_s, enough_s)
        if kept.counts is None or not fresh:
            raise StillCountingError("so many are being counted: ask again in a moment")
        return kept.counts

    async def run(self, backend: Backend) -> None:
        """Count the projects that are asked about, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._asked = trio.Event()
                for project_id, kept in self._kept.items():
                    if not kept.followed and trio.current_time() - kept.asked_at < WATCHED_S:
                        kept.followed = True
                        nursery.start_soon(self._follow, backend, project_id, kept, nursery)
                await self._asked.wait()

    async def _follow(self, backend: Backend, project_id: str, kept: _Kept, nursery: trio.Nursery) -> None:
        """Count a project until nobody has asked about it for a while."""
        wanted = True
        while wanted:
            began, bell = trio.current_time(), backend.tails.bell
            try:
                await self._count(backend, project_id, kept, nursery)
            except StoreUnavailableError as error:
                kept.failed = error
            rung, self._bell = self._bell, trio.Event()
            rung.set()
            pause_s = max(PAUSE_S, (trio.current_time() - began) * PAUSE_TIMES)
            await trio.sleep(pause_s)
            with trio.move_on_after(max(0.0, VIEW_S - pause_s)):
                await bell.wait()
            lately = trio.current_time() - kept.asked_at < WATCHED_S
            wanted = lately and self._kept.get(project_id) is kept
        kept.followed = False

    async def _count(self, backend: Backend, project_id: str, kept: _Kept, nursery: trio.Nursery) -> None:
        if kept.census is None:
            await self._read_census(backend, project_id, kept)
        elif trio.current_time() >= kept.census_due and not kept.census_read:
            nursery.start_soon(self._renew_census, backend, project_id, kept)
        assert kept.census is not None
        begun_at = trio.current_time()
        await wait_view(backend)
        counts = await _count(backend, kept.census)
        self._counted += 1
        if kept.counts is None or _differs(kept.counts, counts):
            self._changes += 1
        kept.counts = msgspec.structs.replace(counts, change=self._changes)
        kept.begun_at, kept.counted_at = begun_at, trio.current_time()

    async def _renew_census(self, backend: Backend, project_id: str, kept: _Kept) -> None:
        """Beside the counting, which goes on with the census that there is."""
        try:
            await self._read_census(backend, project_id, kept)
        except StoreUnavailableError:
            kept.census_due = trio.current_time() + CENSUS_S  # told and counted where stores are watched

    async def _read_census(self, backend: Backend, project_id: str, kept: _Kept) -> None:
        kept.census_read, began = True, trio.current_time()
        try:
            kept.census = await backend.stores.fleet.census(project_id)
        finally:
            kept.census_read = False
        now = trio.current_time()
        kept.census_due = now + max(CENSUS_S, (now - began) * CENSUS_TIMES)

    def statistics(self) -> dict[str, float]:
        return {"projects": len(self._kept), "counted_total": self._counted}


def _differs(before: Counts, now: Counts) -> bool:
    """Whether anybody's state is another: one may have fallen while another one came back."""
    if before.census is not now.census:
        return _tallies(before) != _tallies(now)
    same = (before.standby, before.unobserved) == (now.standby, now.unobserved)
    arrays = ((before.node_state, now.node_state), (before.heard, now.heard))
    return not (same and all(np.array_equal(*each) for each in arrays))


def _tallies(counts: Counts) -> tuple[object, ...]:
    census = counts.census
    return (
        census.regions,
        census.groups,
        counts.nodes.tolist(),
        counts.workloads.tolist(),
        counts.standby,
        counts.unobserved,
    )


async def _count(backend: Backend, census: Census) -> Counts:
    node_state = np.zeros(len(census.node_row), np.int8)
    heard = np.zeros(len(census.workload_row), np.int8)
    nodes = np.zeros((len(census.regions), len(NODE_COLUMNS)), np.int64)
    workloads = np.zeros((len(census.regions), len(census.groups), len(HEARD_COLUMNS)), np.int64)
    standby = unobserved = 0
    as_of: list[int] = []
    now_ms = np.array([backend.heads.now_ms(shard) for shard in range(backend.shards)])
    for first in range(0, len(census.node_row), PART):
        of_node = slice(first, first + PART)
        rows = census.node_row[of_node]
        of_workload = slice(*np.searchsorted(census.workload_row, (rows[0], rows[-1] + 1)).tolist())
        count, on = len(rows), census.workload_row[of_workload]
        # One read for both: a node's place is its row with any slot.
        seen, undecided = await look(
            backend,
            np.concatenate([rows, on]),
            np.concatenate([np.zeros(count, np.int64), census.workload_slot[of_workload]]),
        )
        state = np.where(seen.known, seen.node_state, NODE_COLUMNS.index(UNKNOWN))[:count]
        health = np.where(seen.known, seen.heard, HEARD_COLUMNS.index(UNKNOWN))[count:]
        node_state[of_node], heard[of_workload] = state, health
        nodes += _tally(nodes.shape, census.node_region[of_node], state)
        groups = census.workload_group[of_workload]
        workloads += _tally(workloads.shape, census.workload_region[of_workload], groups, health)
        standby += int(np.count_nonzero(census.workload_waits[of_workload] & np.isin(health, _BEATS)))
        late = now_ms[on % backend.shards] - seen.as_of_ms[count:] > STALE_MS
        deaf = np.isin(on % backend.shards, list(undecided))
        unobserved += int(np.count_nonzero(~seen.known[count:] | late | deaf))
        if seen.known.any():
            as_of.append(int(seen.as_of_ms[seen.known].min()))
        await trio.lowlevel.checkpoint()
    oldest_ms = min(as_of, default=None)
    return Counts(census, nodes, workloads, oldest_ms, standby, unobserved, node_state, heard)


def _tally(shape: tuple[int, ...], *places: np.ndarray) -> np.ndarray:
    """How many are in each place of an array of this shape."""
    size = int(np.prod(shape))
    flat = np.ravel_multi_index(places, shape) if len(places[0]) else np.zeros(0, np.int64)
    return np.bincount(flat, minlength=size).reshape(shape)
