"""Rows told at once: as a flush at this moment would have them, and never what is not durable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.core.asks import Ask, Told
from engine.core.figures import ShardFigures, waited_ms
from engine.core.liveview import LivePage, decode, live_page
from engine.core.records import BASE_UP, LiveNode, ShardHead
from engine.settings import EngineSettings, FlushSettings
from tests.engine.shard_world import T0, Life

# Nothing is flushed of itself while a test looks.
SLOW = EngineSettings(flush=FlushSettings(live_interval_ms=1_000))


class Asking:
    """The shard's side of asks, in memory."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Ask](0)
        self._told: dict[int, Told] = {}
        self._news = trio.Event()
        self._number = 0

    async def ask(self, *indices: int) -> LivePage:
        self._number += 1
        number = self._number
        await self._send.send(Ask("here", number, list(indices)))
        while number not in self._told:
            await self._news.wait()
        self.last = self._told.pop(number)
        return live_page(msgspec.json.decode(self.last.head, type=ShardHead), self.last.rows, self.last.slots)

    async def figures(self) -> ShardFigures:
        self._number += 1
        number = self._number
        await self._send.send(Ask("here", number, [], figures=True))
        while number not in self._told:
            await self._news.wait()
        figures = self._told.pop(number).figures
        assert figures is not None
        return figures

    async def asked(self, shard: int) -> list[Ask]:
        return [await self._receive.receive()]

    async def answer(self, told: Sequence[tuple[Ask, Told]]) -> None:
        self._told.update({ask.number: answer for ask, answer in told})
        self._news.set()
        self._news = trio.Event()


def node_at(page: LivePage, place: int) -> LiveNode:
    first = page.first_slot[place]
    slots = page.slots[first : first + int(page.rows[place]["slot_count"])]
    return decode(page.rows[place].tobytes(), slots.tobytes())


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path / "0", monkeypatch)


async def test_whoever_asks_after_an_ack_is_told_that_beat_long_before_the_next_flush(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(3)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        for _ in range(20):
            await life.tell(shard, 0, 2)
            acknowledged_ms = shard.clock.now_ms()
            page = await asks.ask(2, 1, 0)
            assert shard.clock.now_ms() - acknowledged_ms < 100
            assert page.head.watermark_ms >= acknowledged_ms
            assert [node_at(page, place).last_t_ms for place in (0, 2)] == [acknowledged_ms] * 2
            assert node_at(page, 0).slots[1].kind == BASE_UP
            assert node_at(page, 1).last_t_ms == 0
            await trio.sleep(7)


async def test_what_is_told_is_what_the_next_flush_writes(life: Life, autojump_clock: MockClock):
    await life.add_nodes(2)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        await life.tell(shard, 0)
        await life.tell(shard, 1, plane0=0b01, plane1=0b10)
        page = await asks.ask(0, 1)
        await trio.sleep(3)
        for row in (0, 1):
            found = await life.stores.live.read(row, shards=1)
            assert found is not None
            assert found[1] == node_at(page, row)


async def test_rows_that_are_not_there_are_told_as_never_heard_of(life: Life, autojump_clock: MockClock):
    await life.add_nodes(1)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        await life.tell(shard, 0)
        page = await asks.ask(7, 0)
        assert not page.rows[0].tobytes().strip(b"\0")
        assert node_at(page, 1).last_t_ms == T0
        assert len((await asks.ask(99)).rows) == 1


async def test_a_gap_that_history_may_not_have_yet_is_told_with_the_rows(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    async with life.serving(SLOW) as shard:
        await life.tell(shard, 0)
    await trio.sleep(20)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        life.world.postgres_away = True
        await life.tell(shard, 0)
        await asks.ask(0)
        (gap,) = asks.last.gaps
        assert (gap.cause, gap.to_ms - gap.from_ms) == ("restart", 20_000)
        life.world.postgres_away = False


async def test_with_a_journal_that_cannot_be_written_nobody_is_told_and_later_asks_are(
    life: Life, autojump_clock: MockClock
):
    await life.add_nodes(1)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        await life.tell(shard, 0)
        life.files.full = True
        with trio.move_on_after(5) as patience:
            await life.tell(shard, 0, plane0=0b00)
            while True:
                page = await asks.ask(0)
                # Whatever is told meanwhile is from before: the beat was refused, not half applied.
                assert node_at(page, 0).slots[0].kind == BASE_UP
                await trio.sleep(0.5)
        assert patience.cancelled_caught
        life.files.full = False
        await trio.sleep(3)
        await life.tell(shard, 0)
        assert node_at(await asks.ask(0), 0).last_t_ms == shard.clock.now_ms()


async def test_a_shard_tells_how_it_is(life: Life, autojump_clock: MockClock):
    await life.add_nodes(2)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        for _ in range(10):
            await life.tell(shard, 0, 1)
            await trio.sleep(1)
        figures = await asks.figures()
        assert (figures.shard, figures.shards, figures.rows) == (0, 1, 2)
        assert figures.taking
        assert figures.phase == "normal"
        assert figures.beats_total == 20
        assert 1.5 <= figures.beats_per_s <= 2.5
        assert sum(figures.waited_last_min) == 18, "the first second was over before the first reading"
        assert waited_ms(figures.waited_last_min, 0.99) is not None
        assert figures.away == []
        assert figures.journal_position > 0


async def test_a_shard_that_can_commit_nothing_tells_how_it_is_at_once(life: Life, autojump_clock: MockClock):
    await life.add_nodes(1)
    asks = Asking()
    async with life.serving(SLOW, asks=asks) as shard:
        await life.tell(shard, 0)
        life.files.full = True
        await trio.sleep(3)  # the tick cannot be written
        asked_at = trio.current_time()
        figures = await asks.figures()
        assert trio.current_time() - asked_at < 0.1
        assert not figures.taking
        assert "disk_full" in figures.gaps_open
        assert figures.journal_failures > 0
        life.files.full = False
        await trio.sleep(3)
        again = await asks.figures()
        assert again.taking
        assert again.gaps_open == {}
        assert again.unobserved_ms_total > 0
