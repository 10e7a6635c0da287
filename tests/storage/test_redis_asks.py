"""Asks and answers over a real Valkey: between two ends of their own, and with one of them gone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest
import trio

from engine.core.asks import Ask, Told
from engine.core.liveview import ROW_DTYPE, SLOT_DTYPE
from engine.core.records import BASE_UP, Gap, ShardHead
from storage.redis_asks import RedisAsks
from storage.settings import RedisSettings

HEAD = ShardHead(
    shard=1, shards=2, epoch="e", watermark_ms=1_000, registry_position=1, rows=4, degraded=False
)
GAP = Gap(1, 10, 20, "crash", 2)


def told(ask: Ask) -> Told:
    rows, slots = np.zeros(len(ask.indices), ROW_DTYPE), np.zeros(len(ask.indices), SLOT_DTYPE)
    rows["last_t_ms"], rows["slot_count"] = [100 + index for index in ask.indices], 1
    slots["kind"] = BASE_UP
    return Told(ask.number, msgspec.json.encode(HEAD), rows.tobytes(), slots.tobytes(), [GAP])


@pytest.fixture
async def two(on_uvloop: None, valkey_url: str) -> AsyncIterator[tuple[RedisAsks, RedisAsks]]:
    web, shard = (RedisAsks(RedisSettings(url=valkey_url)) for _ in range(2))
    await web.open()
    await shard.open()
    yield web, shard
    with trio.CancelScope(shield=True):
        await web.close()
        await shard.close()


async def _answer(shard: RedisAsks) -> None:
    while True:
        asks = await shard.asked(1)
        await shard.answer([(ask, told(ask)) for ask in asks])


async def test_rows_are_told_to_the_one_who_asked(
    two: tuple[RedisAsks, RedisAsks], nursery: trio.Nursery
) -> None:
    web, shard = two
    nursery.start_soon(_answer, shard)
    found: dict[int, int] = {}

    async def one(row: int) -> None:
        told = await web.ask([row], shards=2, timeout_s=5)
        while told is None:  # the shard may not have begun to listen
            told = await web.ask([row], shards=2, timeout_s=5)
        assert told.gaps == (GAP,)
        head, node = told.rows[row]
        assert head == HEAD
        assert node is not None
        assert node.slots[0].kind == BASE_UP
        found[row] = node.last_t_ms

    async with trio.open_nursery() as asking:
        for row in range(1, 200, 2):
            asking.start_soon(one, row)
    assert found == {row: 100 + row // 2 for row in range(1, 200, 2)}
    nursery.cancel_scope.cancel()


async def test_many_rows_of_a_shard_are_told_in_one_answer(
    two: tuple[RedisAsks, RedisAsks], nursery: trio.Nursery
) -> None:
    web, shard = two
    nursery.start_soon(_answer, shard)
    found = None
    while found is None:  # the shard may not have begun to listen
        found = await web.ask([7, 1, 3], shards=2, timeout_s=5)
    assert {row: node.last_t_ms for row, (_, node) in found.rows.items() if node} == {7: 103, 1: 100, 3: 101}
    nursery.cancel_scope.cancel()


async def test_when_nobody_listens_one_is_told_so_at_once(two: tuple[RedisAsks, RedisAsks]) -> None:
    web, _ = two
    with trio.fail_after(2):
        assert await web.ask([1], shards=2, timeout_s=30) is None


async def test_who_is_not_answered_in_time_is_told_nothing(
    two: tuple[RedisAsks, RedisAsks], nursery: trio.Nursery
) -> None:
    web, shard = two
    heard: list[Ask] = []

    async def listen() -> None:
        while True:
            heard.extend(await shard.asked(1))

    nursery.start_soon(listen)
    while not heard:
        assert await web.ask([1], shards=2, timeout_s=0.05) is None
    await shard.answer([(heard[0], told(heard[0]))])  # too late: nobody waits for it
    assert web.statistics()["row_asks_unanswered"] >= 1
    nursery.cancel_scope.cancel()


async def test_an_answer_of_another_number_of_shards_is_none(
    two: tuple[RedisAsks, RedisAsks], nursery: trio.Nursery
) -> None:
    web, shard = two
    nursery.start_soon(_answer, shard)
    while await web.ask([1], shards=2, timeout_s=5) is None:
        continue
    assert await web.ask([1], shards=5, timeout_s=5) is None
    nursery.cancel_scope.cancel()


async def test_with_the_store_away_one_is_told_nothing(on_uvloop: None) -> None:
    web = RedisAsks(RedisSettings(url="redis://127.0.0.1:1/0", timeout_s=0.5))
    await web.open()
    assert await web.ask([1], shards=1, timeout_s=0.3) is None
    await web.close()
