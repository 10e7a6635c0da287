"""An engine that only pretends: what it does is exactly what web relies on."""

from __future__ import annotations

import numpy as np
import trio

from engine.core.liveview import ROW_BYTES, ROW_DTYPE, SLOT_BYTES, SLOT_DTYPE
from engine.core.ports import NodeRecord
from engine.core.records import BASE_UP, NODE_STATES, ShardHead
from storage.open import Stores
from tests.contract.given import batch
from web.main import system_ms


class Engine:
    """One shard that takes over registry changes and tells what it is told to tell."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.position = 0
        self.pages: list[tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]] = []

    def _head(self) -> ShardHead:
        now_ms = system_ms()
        return ShardHead(
            shard=0,
            shards=1,
            epoch="e",
            watermark_ms=now_ms,
            registry_position=self.position,
            rows=1,
            degraded=False,
            wall_ms=now_ms,
        )

    async def run(self) -> None:
        await self.stores.live.reset(self._head())
        journal = 0
        while True:
            self.position, _ = await self.stores.registry.changes(self.position, shard=0, shards=1)
            rows, slots = self.pages.pop(0) if self.pages else ([], [])
            assert await self.stores.live.write(self._head(), rows=rows, slots=slots)
            journal += 1
            await self.stores.history.flush(batch(position=journal, watermark_ms=system_ms()))
            await trio.sleep(0.1)

    def beat(self, node: NodeRecord, started_ms: int, t_ms: int) -> None:
        """Slot 0 of the node is up since `started_ms`; the last beat was at `t_ms`."""
        row, slot = np.zeros(1, ROW_DTYPE), np.zeros(1, SLOT_DTYPE)
        row[0] = (NODE_STATES.index("up"), 0, 1, 90_000, t_ms, 1, 0, 1, 1, started_ms, 0, 1, 0)
        slot[0] = (BASE_UP, 0, 0, 90_000, started_ms, 0, started_ms)
        self.pages.append(([(node.row * ROW_BYTES, row.tobytes())], [(0 * SLOT_BYTES, slot.tobytes())]))
