"""Stores that take everything and keep nothing: for benches in which no store is measured.

The memory twins keep what they get, and that memory would be counted as the engine's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

import trio

from engine.core.ports import Page
from engine.core.records import Event, FlushBatch, RowSpec, ShardHead

POSITION = 1  # of the registry, for ever


class StillRegistry:
    """A registry in which nothing changes (engine.core.ports.RegistryFeed)."""

    def __init__(self) -> None:
        self.pages: list[list[RowSpec]] = []

    async def position(self) -> int:
        await trio.lowlevel.checkpoint()
        return POSITION

    async def load(self, *, shard: int, shards: int) -> AsyncIterator[list[RowSpec]]:
        await trio.lowlevel.checkpoint()
        for page in self.pages:
            yield page

    async def changes(
        self, after: int, *, shard: int, shards: int, limit: int = 1000
    ) -> tuple[int, list[RowSpec]]:
        await trio.lowlevel.checkpoint()
        return after, []

    async def wait_hint(self, timeout_s: float) -> None:
        await trio.sleep(timeout_s)


class CountingHistory:
    """Counts what it is given; of engine.core.ports.History what an engine calls."""

    def __init__(self) -> None:
        self.intervals_taken = self.events_taken = 0
        self.position = 0

    async def flushed_position(self, shard: int) -> int:
        await trio.lowlevel.checkpoint()
        return self.position

    async def flush(self, batch: FlushBatch) -> None:
        await trio.lowlevel.checkpoint()
        self.intervals_taken += len(batch.intervals)
        self.events_taken += len(batch.events)
        self.position = batch.position


class CountingLiveView:
    """Counts what it is given; of engine.core.ports.LiveView what an engine calls."""

    def __init__(self) -> None:
        self.bytes_taken = 0

    async def write(self, head: ShardHead, *, rows: Sequence[Page], slots: Sequence[Page]) -> bool:
        await trio.lowlevel.checkpoint()
        self.bytes_taken += sum(len(page) for pages in (rows, slots) for _, page in pages)
        return True

    async def reset(self, head: ShardHead) -> None:
        await trio.lowlevel.checkpoint()

    async def announce_events(self, events: Iterable[Event]) -> None:
        await trio.lowlevel.checkpoint()
