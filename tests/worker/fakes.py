"""What the worker's tests share: events and channels to hand around, and stores that can fail on command.

The stores are the ports' memory twins; `Failing` wraps one so that its n-th call fails, before or after it
took effect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import trio

from engine.core.news import notice_of
from engine.core.outbox import Channel, Delivery
from engine.core.records import INTERVAL_DTYPE, Event, FlushBatch, event_id
from storage.memory_directory import MemoryDirectory
from storage.memory_history import MemoryHistory
from storage.memory_live import MemoryLiveView
from storage.memory_newsroom import MemoryNewsroom
from storage.memory_outbox import MemoryOutbox
from storage.memory_sending import MemorySending
from storage.memory_world import MemoryDelivery, MemoryWorld

PROJECT = "01900000-0000-7000-8000-00000000aaaa"
NODE = "01900000-0000-7000-8000-0000000000aa"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
T0 = 1_790_000_000_000


def make_event(
    number: int = 0, *, kind: str = "node.down", project_id: str | None = PROJECT, node_id: str = NODE, **more
) -> Event:
    since_ms = T0 + number
    return Event(
        event_id=event_id(kind, node_id, since_ms),
        kind=kind,
        shard=0,
        project_id=project_id,
        node_id=node_id,
        workload_id=more.pop("workload_id", None),
        since_ms=since_ms,
        at_ms=since_ms + 90_000,
        **more,
    )


def make_channel(number: int = 0, *, kind: str = "webhook", target: str = "", project_id: str = PROJECT):
    return Channel(
        channel_id=f"01900000-0000-7000-8000-{number:012x}",
        project_id=project_id,
        kind=kind,
        target=target or ("http://127.0.0.1:1/" if kind == "webhook" else "owner@example.org"),
        secret=SECRET if kind == "webhook" else "",
    )


def make_delivery(
    event: Event | None = None, channel: Channel | None = None, *, attempts: int = 1
) -> Delivery:
    return Delivery(
        delivery_id="01900000-0000-7000-8000-0000000000dd",
        channel=channel or make_channel(),
        notice=notice_of(event or make_event()),
        attempts=attempts,
        due_ms=T0,
    )


def wall_ms() -> int:
    """Unix milliseconds that follow trio's mock clock, which starts at 0."""
    return T0 + 200_000 + int(trio.current_time() * 1000)


class Memory:
    """The stores in memory, with these channels in them, and a look at the outbox from outside."""

    def __init__(self, *channels: Channel) -> None:
        self.world = MemoryWorld()
        self.world.channels.update({channel.channel_id: channel for channel in channels})
        self.outbox = MemoryOutbox(self.world)
        self.newsroom = MemoryNewsroom(self.world)
        self.sending = MemorySending(self.world)
        self.history = MemoryHistory(self.world)
        self.live = MemoryLiveView(self.world)
        self.directory = MemoryDirectory(self.world)

    async def happen(self, *events: Event) -> None:
        nothing = np.zeros(0, INTERVAL_DTYPE)
        await self.history.flush(FlushBatch(0, 1, T0, nothing, events=events))

    @property
    def rows(self) -> list[MemoryDelivery]:
        return list(self.world.deliveries.values())

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.rows]

    def by_kind(self) -> dict[str, MemoryDelivery]:
        """The deliveries by their channel's kind."""
        return {self.world.channels[row.channel_id].kind: row for row in self.rows}


class Killed(BaseException):
    """The process ends here, as by kill -9: nobody may catch it."""


class Failing:
    """Wraps a store so that call number `at` (1 = the first) raises `error`, before or after its effect.

    With `pause` it waits for that instead and then goes on. Several stores may share one `count` (a list of
    one number).
    """

    def __init__(
        self,
        store,
        *,
        at: int,
        after: bool,
        count: list[int],
        error: BaseException | None = None,
        pause: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store, self._at, self._after = store, at, after
        self._error, self._pause, self._count = error, pause, count

    def __getattr__(self, name: str):
        method = getattr(self._store, name)

        async def call(*args, **kwargs):
            self._count[0] += 1
            mine = self._count[0] == self._at
            if mine and not self._after:
                await self._fail()
            result = await method(*args, **kwargs)
            if mine and self._after:
                await self._fail()
            return result

        return call

    async def _fail(self) -> None:
        if self._pause is not None:
            await self._pause()
        if self._error is not None:
            raise self._error
