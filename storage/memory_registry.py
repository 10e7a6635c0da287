"""The memory twin of postgres_registry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

from engine.core.records import RowSpec
from storage.memory_world import MemoryWorld

LOAD_PAGE_ROWS = 5_000


class MemoryRegistryFeed:
    """engine.core.ports.RegistryFeed in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    async def position(self) -> int:
        await self._world.enter()
        return len(self._world.changed_rows)

    async def load(self, *, shard: int, shards: int) -> AsyncIterator[list[RowSpec]]:
        await self._world.enter()
        rows = [row for row in range(shard, len(self._world.rows), shards) if self._live(row)]
        for first in range(0, len(rows), LOAD_PAGE_ROWS):
            yield [self._world.spec(row) for row in rows[first : first + LOAD_PAGE_ROWS]]

    async def changes(
        self, after: int, *, shard: int, shards: int, limit: int = 1000
    ) -> tuple[int, list[RowSpec]]:
        await self._world.enter()
        looked_at = self._world.changed_rows[after : after + limit]
        rows = sorted({row for row in looked_at if row % shards == shard})
        reached = min(after, len(self._world.changed_rows)) + len(looked_at)
        return reached, [self._world.spec(row) for row in rows]

    async def wait_hint(self, timeout_s: float) -> None:
        await self._world.registry_hint.wait(timeout_s)

    def _live(self, row: int) -> bool:
        node = self._world.nodes[self._world.rows[row]]
        return bool(node.generation or node.capability_generation)
