"""The memory twin of redis_live.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from engine.core.liveview import ROW_BYTES, LivePage, decode, live_page, slot_range
from engine.core.ports import LiveRow, Page, StoreUnavailableError
from engine.core.records import Event, ShardHead
from storage.hint import Hint
from storage.memory_world import MemoryWorld
from storage.redis_live import present_heads


@dataclass(slots=True)
class MemoryShardView:
    """One shard's part of the live view."""

    head: ShardHead
    rows: bytearray = field(default_factory=bytearray)
    slots: bytearray = field(default_factory=bytearray)


class MemoryLiveView:
    """engine.core.ports.LiveView in memory."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world
        self._hint = Hint()
        self.shards: dict[int, MemoryShardView] = {}  # clear it to play a flushed Redis
        self.announced: list[Event] = []

    async def write(
        self,
        head: ShardHead,
        *,
        rows: Sequence[Page],
        slots: Sequence[Page],
    ) -> bool:
        await self._enter()
        view = self.shards.get(head.shard)
        if view is None or view.head.epoch != head.epoch:
            return False
        for records, pages in ((view.rows, rows), (view.slots, slots)):
            for offset, page in pages:
                records.extend(bytes(max(0, offset + len(page) - len(records))))
                records[offset : offset + len(page)] = page
        view.head = head
        return True

    async def reset(self, head: ShardHead) -> None:
        await self._enter()
        self.shards[head.shard] = MemoryShardView(msgspec.structs.replace(head, watermark_ms=0))

    async def heads(self) -> dict[int, ShardHead]:
        await self._enter()
        return present_heads(view.head for view in self.shards.values())

    async def read(self, row: int, *, shards: int) -> LiveRow | None:
        await self._enter()
        view = self.shards.get(row % shards)
        if view is None or view.head.shards != shards:
            return None
        at = row // shards * ROW_BYTES
        record = bytes(view.rows[at : at + ROW_BYTES])
        if not record.strip(b"\0"):
            return view.head, None
        offset, length = slot_range(record)
        return view.head, decode(record, bytes(view.slots[offset : offset + length]))

    async def read_rows(self, rows: Sequence[int], *, shards: int) -> dict[int, LiveRow]:
        found = {row: await self.read(row, shards=shards) for row in rows}
        return {
            row: (one[0], one[1] and msgspec.structs.replace(one[1], slots={}))
            for row, one in found.items()
            if one is not None
        }

    async def read_page(self, shard: int, indices: Sequence[int], *, shards: int) -> LivePage | None:
        await self._enter()
        view = self.shards.get(shard)
        if view is None or view.head.shards != shards:
            return None
        records = (bytes(view.rows[at * ROW_BYTES : (at + 1) * ROW_BYTES]) for at in indices)
        rows = b"".join(record.ljust(ROW_BYTES, b"\0") for record in records)
        places = [slot_range(rows[at : at + ROW_BYTES]) for at in range(0, len(rows), ROW_BYTES)]
        slots = [bytes(view.slots[offset : offset + n]).ljust(n, b"\0") for offset, n in places]
        return live_page(view.head, rows, b"".join(slots))

    async def announce_events(self, events: Iterable[Event]) -> None:
        await self._enter()
        fresh = list(events)
        self.announced += fresh
        if fresh:
            self._hint.tell()

    async def wait_events(self, timeout_s: float) -> None:
        await self._hint.wait(timeout_s)

    async def _enter(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._world.redis_away:
            raise StoreUnavailableError("Redis is away (in memory)")
