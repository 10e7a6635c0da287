"""The memory twin of postgres_outbox.py."""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.news import Notice
from engine.core.outbox import Channel
from storage.ids import new_id
from storage.memory_world import MemoryDelivery, MemoryWorld


class MemoryOutbox:
    """engine.core.outbox.Outbox in memory. Of several over one world, one can be the notifier."""

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    async def add_channel(
        self, project_id: str, *, kind: str, target: str, secret: str, now_ms: int
    ) -> Channel:
        await self._world.enter()
        channel = Channel(new_id(), project_id, kind, target, secret)
        self._world.channels[channel.channel_id] = channel
        return channel

    async def channels(self, project_id: str) -> list[Channel]:
        await self._world.enter()
        mine = [one for one in self._world.channels.values() if one.project_id == project_id]
        return [channel for channel in mine if self._on(channel)]

    async def take_notifier_lock(self) -> bool:
        await self._world.enter()
        if self._world.notifier is None:
            self._world.notifier = self
        return self._world.notifier is self

    async def close(self) -> None:
        """Give the notifier's lock up."""
        if self._world.notifier is self:
            self._world.notifier = None

    async def notifier_cursor(self) -> int:
        await self._world.enter()
        return self._world.notifier_cursor

    async def pass_over(self, cursor: int) -> None:
        await self._world.enter()
        self._world.notifier_cursor = max(self._world.notifier_cursor, cursor)

    async def put(self, notices: Sequence[tuple[Notice, str]], *, now_ms: int) -> int:
        await self._world.enter()
        return self.put_nowait(notices, now_ms=now_ms)

    def put_nowait(self, notices: Sequence[tuple[Notice, str]], *, now_ms: int) -> int:
        """`put` without a checkpoint, as a part of something that must be done as a whole."""
        known = {(one.notice.notice_id, one.channel_id) for one in self._world.deliveries.values()}
        before = len(self._world.deliveries)
        for notice, channel_id in notices:
            channel = self._world.channels.get(channel_id)
            if (notice.notice_id, channel_id) not in known and channel is not None and self._on(channel):
                known.add((notice.notice_id, channel_id))
                made = MemoryDelivery(new_id(), channel_id, notice, now_ms)
                self._world.deliveries[made.delivery_id] = made
        return len(self._world.deliveries) - before

    def _on(self, channel: Channel) -> bool:
        return channel.channel_id not in self._world.disabled_channels
