"""Many workloads' time put together from the live view and history: web/reading.py's seam, a chunk at once.

The same order (the view first, history after) and the same conditions, each as an array operation: what
`Reader` decides about one workload, `BulkReader` decides about all of a chunk. A workload whose rows are just
on their way into history is not waited for, but handed back, to be read again a moment later with others.
What each instant was is composed in engine/core/compose_many.py. Bulk uptime (web) and seals (worker) are
made with this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import trio

from engine.core.bulk import Bulk, BulkItem, Touching
from engine.core.catalog import UptimeSource
from engine.core.compose import Composition, compose, needed_range
from engine.core.compose_many import (
    MAINTENANCE_OWN,
    NEVER,
    STANDBY,
    Lives,
    Totals,
    compose_many,
)
from engine.core.forgive_many import Spans
from engine.core.ports import LiveView
from engine.core.records import BASE_NONE, BaseInterval, Claim, Gap, Lease, Window
from engine.core.timing import grace_of_ttl, ttl_of_interval
from storage.view_arrays import Seen, look

MARGIN_MS = grace_of_ttl(ttl_of_interval(60_000))  # around a window at first; needed_range widens it further
ROUNDS_MAX = 8  # of widening; each reaches over one more chain of gaps
SLICE = 50  # composed one by one before others have their turn


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A window, unix ms, half-open, and what holds in it by the project's policies.

    `paying`: the parts of it in which claims are paid. `hours`: tell each of so many hours as well.
    """

    from_ms: int
    to_ms: int
    source: UptimeSource
    paying: tuple[tuple[int, int], ...]
    hours: int = 0


class Chunk(NamedTuple):
    """Workloads and what their window was; the places of those that can be told now, and of the late."""

    items: Sequence[BulkItem]
    totals: Totals
    told: list[int]
    late: list[int]


class BulkReader:
    """Reads for one request or seal, over a live view of this many shards."""

    def __init__(self, bulk: Bulk, live: LiveView, *, shards: int, asked: Asked) -> None:
        self._bulk, self._live = bulk, live
        self._shards = shards
        self._asked = asked

    async def read(self, items: Sequence[BulkItem], *, overdue: int) -> Chunk:
        """What the window was for these. The first `overdue` of them are not waited for any longer: what is
        late is then told older, never wrong.

        StoreUnavailableError when history is away.
        """
        asked = self._asked
        row = np.array([item.row for item in items], np.int64)
        slot = np.array([item.slot for item in items], np.int64)
        created = np.array([item.created_ms for item in items], np.int64)
        seen, undecided = await look(self._live, self._shards, row, slot)
        covered = (
            (seen.kind != BASE_NONE)
            & (seen.started_ms <= np.maximum(asked.from_ms, created))
            & (seen.ended_ms >= np.minimum(asked.to_ms, seen.as_of_ms))
        )
        touching = await self._bulk.touching(
            [item.workload_id for item in items],
            [item.node_id for item in items],
            bare=np.flatnonzero(~covered).tolist(),
            ttl_ms_max=int(seen.ttl_ms.max(initial=0)),
            from_ms=asked.from_ms,
            to_ms=asked.to_ms,
            claims_from_ms=asked.from_ms - MARGIN_MS,
        )
        known = [touching.watermarks.get(shard, 0) for shard in range(self._shards)]
        late = seen.known & ~covered & (seen.settled_ms > np.array(known, np.int64)[row % self._shards])
        seen = _blinded(seen, late & (np.arange(len(items)) < overdue))
        late[:overdue] = False
        seen = await self._dated(items, seen, created)
        reading = _Reading(asked, items, seen, touching, undecided, _lives(items, row, created, seen))
        totals = compose_many(
            reading.lives,
            reading.base(),
            touching.records,
            (*touching.gaps, *undecided.values()),
            claimed=touching.claimed,
            from_ms=asked.from_ms,
            to_ms=asked.to_ms,
            hours=asked.hours,
        )
        await self._compose_unsure(reading, totals, np.flatnonzero(totals.unsure & ~late).tolist())
        return Chunk(items, totals, np.flatnonzero(~late).tolist(), np.flatnonzero(late).tolist())

    async def _dated(self, items: Sequence[BulkItem], seen: Seen, created: np.ndarray) -> Seen:
        """With an as_of for those of whom the view told nothing: the end of the last closed row."""
        blind = np.flatnonzero(~seen.known)
        if len(blind):
            ends = await self._bulk.last_ends([items[place].workload_id for place in blind.tolist()])
            seen.as_of_ms[blind] = np.maximum(created[blind], ends)
        return seen

    async def _compose_unsure(self, reading: _Reading, totals: Totals, unsure: list[int]) -> None:
        """Those of whom a gap may forgive something, one by one, with all that has a say in it."""
        ranges = {place: reading.first_range(place) for place in unsure}
        for left in range(ROUNDS_MAX - 1, -1, -1):
            if not ranges:
                return
            found, gaps = await self._bulk.around(
                [(reading.items[place].workload_id, low, high) for place, (low, high) in ranges.items()],
                claims_from_ms=self._asked.from_ms - MARGIN_MS,
                claims_to_ms=self._asked.to_ms,
            )
            wider: dict[int, tuple[int, int]] = {}
            for number, (place, (low, high)) in enumerate(ranges.items()):
                if number % SLICE == 0:
                    await trio.lowlevel.checkpoint()
                around = reading.with_open(place, found[number].base)
                mine = reading.gaps_of(place, gaps, low, high)
                need_low, need_high = needed_range(mine, *reading.window(place), base=around)
                if left and (need_low < low or high < need_high):
                    wider[place] = (min(low, need_low), max(high, need_high))
                else:
                    answer = reading.compose(place, around, mine, found[number].claims)
                    totals.put(place, answer, claims_paid_ms=_claims_paid(answer, self._asked.paying))
            ranges = wider


class _Reading(NamedTuple):
    """One chunk as it was read."""

    asked: Asked
    items: Sequence[BulkItem]
    seen: Seen
    touching: Touching
    undecided: dict[int, Gap]
    lives: Lives

    def base(self) -> Spans:
        """The closed rows and the open ones; where a row is both, the closed one's end is the final one."""
        closed, seen = self.touching.base, self.seen
        known = set(zip(closed.of.tolist(), closed.from_ms.tolist(), strict=True))
        places = np.flatnonzero(seen.kind != BASE_NONE)
        if known:
            starts = zip(places.tolist(), seen.started_ms[places].tolist(), strict=True)
            places = places[np.array([each not in known for each in starts], bool)]
        opened = Spans(
            places, *(each[places] for each in (seen.kind, seen.started_ms, seen.ended_ms, seen.ttl_ms))
        )
        return Spans(*(np.concatenate(pair) for pair in zip(closed, opened, strict=True)))

    def window(self, place: int) -> tuple[int, int]:
        """The window up to what can be told."""
        to_ms = min(self.asked.to_ms, int(self.seen.as_of_ms[place]))
        return self.asked.from_ms, max(self.asked.from_ms, to_ms)

    def first_range(self, place: int) -> tuple[int, int]:
        from_ms, to_ms = self.window(place)
        return from_ms - MARGIN_MS, to_ms + MARGIN_MS

    def with_open(self, place: int, closed: list[BaseInterval]) -> list[BaseInterval]:
        seen = self.seen
        kind, started_ms = int(seen.kind[place]), int(seen.started_ms[place])
        if kind == BASE_NONE or any(row.started_ms == started_ms for row in closed):
            return closed
        return [
            *closed,
            BaseInterval(
                int(seen.kind[place]), started_ms, int(seen.ended_ms[place]), int(seen.ttl_ms[place])
            ),
        ]

    def gaps_of(self, place: int, gaps: Sequence[Gap], from_ms: int, to_ms: int) -> list[Gap]:
        """The gaps of the workload's own shard that touch the range, the undecided one with them."""
        row = self.items[place].row
        mine = [
            gap
            for gap in gaps
            if row % gap.shards == gap.shard and gap.from_ms < to_ms and gap.to_ms > from_ms
        ]
        if self.seen.known[place]:
            mine += [gap for gap in self.undecided.values() if row % gap.shards == gap.shard]
        return mine

    def compose(
        self, place: int, base: list[BaseInterval], gaps: list[Gap], claims: list[Claim]
    ) -> Composition:
        item, records = self.items[place], self.touching.records
        leases: list[Lease] = []
        windows: list[Window] = []
        for number in np.flatnonzero(records.of == place).tolist():
            from_ms, to_ms = int(records.from_ms[number]), int(records.to_ms[number])
            if records.label[number] == STANDBY:
                leases.append(Lease(from_ms, None if to_ms == NEVER else to_ms))
            else:
                own = bool(records.label[number] == MAINTENANCE_OWN)
                windows.append(Window("", None, from_ms, to_ms, own))
        first_report = int(self.lives.first_report_ms[place])
        return compose(
            base=base,
            gaps=gaps,
            leases=leases,
            maintenances=windows,
            claims=claims,
            life=(item.created_ms, item.retired_ms),
            first_report=None if first_report == NEVER else first_report,
            as_of=int(self.seen.as_of_ms[place]),
            from_ms=self.asked.from_ms,
            to_ms=self.asked.to_ms,
        )


def _blinded(seen: Seen, who: np.ndarray) -> Seen:
    """As if the view had told nothing of these."""
    if not who.any():
        return seen
    others = (~who).astype(np.int64)
    return Seen(seen.known & ~who, *(each * others for each in seen[1:]))


def _lives(items: Sequence[BulkItem], row: np.ndarray, created: np.ndarray, seen: Seen) -> Lives:
    retired = [NEVER if item.retired_ms is None else item.retired_ms for item in items]
    # From the registry once it was flushed there, else from the view.
    flushed = np.array([item.first_report_ms or 0 for item in items], np.int64)
    first = np.where(flushed != 0, flushed, seen.first_report_ms)
    return Lives(
        row=row,
        created_ms=created,
        retired_ms=np.array(retired, np.int64),
        first_report_ms=np.where(first != 0, first, NEVER),
        as_of_ms=seen.as_of_ms,
    )


def _claims_paid(answer: Composition, paying: Sequence[tuple[int, int]]) -> int:
    """Milliseconds of claimed_up that the policy of their time pays."""
    claimed = [(started, ended) for kind, started, ended in answer.intervals if kind == "claimed_up"]
    return sum(
        max(0, min(ended, to_ms) - max(started, from_ms))
        for started, ended in claimed
        for from_ms, to_ms in paying
    )
