"""Asking shards for rows over Redis: one channel per shard for asks, one per asker for answers.

Published messages are not kept: an ask or an answer that is lost is one that comes too late, and whoever
asked reads the live view instead. What is asked and why stands in engine/core/asks.py.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import redis.asyncio
import redis.exceptions
import trio

from engine.core.asks import Ask, Found, Told
from engine.core.figures import ShardFigures
from engine.core.liveview import LivePage, decode, live_page
from engine.core.records import LiveNode, ShardHead
from storage.bridge import await_host, end_tasks, is_closed_transport
from storage.settings import RedisSettings

ASKS_WAITING_MAX = 10_000  # of a shard that is busy; the oldest go, who asked reads the view
RETRY_S = 0.5
_LOST = (redis.exceptions.RedisError, OSError, TimeoutError)


class RedisAsks:
    """engine.core.asks.RowAsks and RowAnswers on Redis or Valkey. `open` first, `close` last."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._redis: Any = None
        self._own = f"{settings.prefix}:told:{uuid.uuid4().hex}"
        self._numbers = itertools.count(1)
        self._futures: dict[int, asyncio.Future[Told]] = {}
        self._waiting: deque[Ask] = deque(maxlen=ASKS_WAITING_MAX)
        self._news = trio.Event()
        self._listeners: dict[str, asyncio.Task[None]] = {}
        self._asks = self._answers = self._late = 0

    async def open(self) -> None:
        """Connects to nothing: the server may be away."""
        self._redis = redis.asyncio.Redis.from_url(
            self._settings.url, socket_connect_timeout=self._settings.timeout_s, protocol=2
        )

    async def close(self) -> None:
        await await_host(self._close)

    # -- who asks ------------------------------------------------------------------------------------

    async def ask(self, rows: Sequence[int], *, shards: int, timeout_s: float) -> Found | None:
        indices = [row // shards for row in rows]
        told = await await_host(self._ask, rows[0] % shards, timeout_s, indices, False)
        if told is None:
            return None
        page = live_page(msgspec.json.decode(told.head, type=ShardHead), told.rows, told.slots)
        if page.head.shards != shards:
            return None
        found = {row: (page.head, node) for row, node in zip(rows, _nodes(page), strict=True)}
        return Found(found, tuple(told.gaps))

    async def figures(self, shard: int, *, timeout_s: float) -> ShardFigures | None:
        told = await await_host(self._ask, shard, timeout_s, [], True)
        return None if told is None else told.figures

    async def _ask(self, shard: int, timeout_s: float, indices: list[int], figures: bool) -> Told | None:
        """On the host."""
        await self._listen(self._own, self._take_told)
        number = next(self._numbers)
        future = self._futures[number] = asyncio.get_running_loop().create_future()
        message = msgspec.msgpack.encode(Ask(self._own, number, indices, figures))
        self._asks += 1
        try:
            async with asyncio.timeout(timeout_s):
                if await self._redis.publish(self._channel(shard), message):
                    told: Told = await future
                    return told
        except _LOST:
            self._late += 1
        finally:
            del self._futures[number]
        return None

    def _take_told(self, message: bytes) -> None:
        for told in msgspec.msgpack.decode(message, type=list[Told]):
            future = self._futures.get(told.number)
            if future is not None and not future.done():
                future.set_result(told)

    # -- who answers ---------------------------------------------------------------------------------

    async def asked(self, shard: int) -> list[Ask]:
        channel = self._channel(shard)
        if channel not in self._listeners:
            await await_host(self._listen, channel, self._taker(trio.lowlevel.current_trio_token()))
        while not self._waiting:
            if self._listeners[channel].done():
                self._listeners[channel].result()  # it never ends but by a bug
            self._news = trio.Event()
            await self._news.wait()
        asks = list(self._waiting)
        self._waiting.clear()
        return asks

    def _taker(self, token: trio.lowlevel.TrioToken) -> Callable[[bytes], None]:
        def take(message: bytes) -> None:
            if not self._waiting:  # who was told of one takes all
                token.run_sync_soon(self._tell)
            self._waiting.append(msgspec.msgpack.decode(message, type=Ask))

        return take

    def _tell(self) -> None:
        self._news.set()

    async def answer(self, told: Sequence[tuple[Ask, Told]]) -> None:
        to: dict[str, list[Told]] = {}
        for ask, answer in told:
            to.setdefault(ask.reply_to, []).append(answer)
        await await_host(self._answer, to)

    async def _answer(self, to: dict[str, list[Told]]) -> None:
        """On the host."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                for channel, told in to.items():
                    self._answers += await self._redis.publish(channel, msgspec.msgpack.encode(told))
        except _LOST:
            self._late += 1

    # -- both ----------------------------------------------------------------------------------------

    def _channel(self, shard: int) -> str:
        return f"{self._settings.prefix}:ask:{shard}"

    async def _listen(self, channel: str, take: Callable[[bytes], None]) -> None:
        """On the host: have a task that hears the channel, and return once it does (or cannot)."""
        task = self._listeners.get(channel)
        if task is not None:
            if task.done():
                task.result()  # it never ends but by a bug
            return
        hears = asyncio.Event()
        self._listeners[channel] = asyncio.get_running_loop().create_task(self._hear(channel, take, hears))
        try:
            async with asyncio.timeout(RETRY_S):
                await hears.wait()
        except TimeoutError:
            self._late += 1  # it goes on trying

    async def _hear(self, channel: str, take: Callable[[bytes], None], hears: asyncio.Event) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as heard:
                    await heard.subscribe(channel)
                    hears.set()
                    while True:
                        message = await heard.get_message(timeout=None)
                        if message is not None:
                            take(message["data"])
            except Exception as error:
                if not isinstance(error, _LOST) and not is_closed_transport(error):
                    raise
                await asyncio.sleep(RETRY_S)

    async def _close(self) -> None:
        if self._listeners:
            await end_tasks(list(self._listeners.values()))
        if self._redis is not None:
            await self._redis.aclose()

    def statistics(self) -> dict[str, int]:
        return {"row_asks": self._asks, "row_answers": self._answers, "row_asks_unanswered": self._late}


def _nodes(page: LivePage) -> list[LiveNode | None]:
    """Each row as `LiveView.read` tells it; None: never heard of."""
    nodes: list[LiveNode | None] = []
    for record, first in zip(page.rows, page.first_slot.tolist(), strict=True):
        raw = record.tobytes()
        slots = page.slots[first : first + int(record["slot_count"])]
        nodes.append(decode(raw, slots.tobytes()) if raw.strip(b"\0") else None)
    return nodes
