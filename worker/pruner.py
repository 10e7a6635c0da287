"""Deletes what has expired: nonces, challenges, logins, letters, answers to repeatable requests.

Any number of workers may do this at once. What is history (intervals, events, points) is never pruned here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import trio

from engine.core.ports import StoreUnavailableError
from worker.outage import Outage

PRUNE_EVERY_S = 60.0  # a minute of the highest rate of sessions is what may pile up
PRUNE_ROWS_MAX = 10_000  # rows per transaction: more would hold locks for long


class Prune(Protocol):
    """Deletes one portion of what has expired of one kind; how many went."""

    async def __call__(self, *, now_ms: int, limit: int) -> int: ...


class PrunerStatistics(msgspec.Struct, frozen=True):
    pruned_total: int
    store_away: int


class Pruner:
    def __init__(self, *, prunes: Sequence[Prune], now_ms: Callable[[], int]) -> None:
        self._prunes = prunes
        self._now_ms = now_ms
        self._pruned = 0
        self._outage = Outage("pruner")

    async def run(self) -> None:
        """Until cancelled. Postgres being away is waited for."""
        while True:
            try:
                while await self.run_once() > 0:
                    continue
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
            await trio.sleep(PRUNE_EVERY_S)

    async def run_once(self) -> int:
        """Delete one portion of each kind; how many rows went. StoreUnavailableError."""
        gone = 0
        for prune in self._prunes:
            gone += await prune(now_ms=self._now_ms(), limit=PRUNE_ROWS_MAX)
        self._pruned += gone
        return gone

    def statistics(self) -> PrunerStatistics:
        return PrunerStatistics(pruned_total=self._pruned, store_away=int(self._outage.away))
