"""Brings changes of workload kinds to the managers that they concern, chunk by chunk.

What a chunk does is the store's (storage/postgres_rollouts.py); here is only the pace. Any number of workers
may do this at once. A manager hears of it with its next beat (code RESYNC).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from engine.core.orders import Rollouts
from engine.core.ports import StoreUnavailableError
from worker.outage import OUTAGE_POLL_S, Outage

NODES_PER_CHUNK = 500  # more would hold back sessions of these nodes, and the registry, for long


class RolloutStatistics(msgspec.Struct, frozen=True):
    """`told_total`: nodes whose manager is now told to fetch, or need no longer be."""

    chunks_total: int
    nodes_total: int
    told_total: int
    below_minimum_total: int
    store_away: int


class RolloutFollower:
    """The actor. `poll_s`: how soon a change is noticed."""

    def __init__(self, *, rollouts: Rollouts, now_ms: Callable[[], int], poll_s: float) -> None:
        self._rollouts = rollouts
        self._now_ms = now_ms
        self._poll_s = poll_s
        self._outage = Outage("rollouts")
        self._chunks = self._nodes = self._told = self._below = 0

    async def run(self) -> None:
        """Until cancelled. Postgres being away is waited for."""
        while True:
            try:
                working = await self.run_once()
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
                continue
            # Between chunks, too: whoever waits for the same nodes or for the registry comes first.
            await trio.sleep(0 if working else self._poll_s)

    async def run_once(self) -> bool:
        """One chunk; False when nothing waited. StoreUnavailableError."""
        worked = await self._rollouts.work(nodes=NODES_PER_CHUNK, now_ms=self._now_ms())
        if worked is None:
            return False
        self._chunks += 1
        self._nodes += worked.nodes
        self._told += worked.changed
        self._below += worked.below
        return True

    def statistics(self) -> RolloutStatistics:
        return RolloutStatistics(
            chunks_total=self._chunks,
            nodes_total=self._nodes,
            told_total=self._told,
            below_minimum_total=self._below,
            store_away=int(self._outage.away),
        )
