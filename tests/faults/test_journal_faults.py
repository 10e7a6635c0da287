"""EIO and ENOSPC from each of the journal's system calls (WIRE.md, rule 3 of the server; LIVENESS.md 3).

Promises kept: an ACK with a crediting code means durable, whatever fails; a beat that cannot be recorded is
told BUSY, the shard is not ready and resumes by itself; the time in between is a gap with cause disk_full; a
shard that cannot write stops all the same.
"""

from __future__ import annotations

import errno
import random
from types import SimpleNamespace

import numpy as np
import pytest
import trio

from np1.codec import CREDITING, Code
from tests.e2e.api import now_ms
from tests.faults.promise import missing, vouched
from tests.faults.shard_world import RETRY_S, TTL_MS, ShardWorld, merged, with_settings

FAULTS = [
    pytest.param({"write": errno.EIO}, id="write-EIO"),
    pytest.param({"write": errno.ENOSPC}, id="write-ENOSPC"),
    pytest.param({"sync": errno.EIO}, id="sync-EIO"),
    pytest.param({"sync": errno.ENOSPC}, id="sync-ENOSPC"),
    pytest.param({"write": errno.EIO, "create": errno.EIO, "cut": errno.EIO}, id="everything-EIO"),
    pytest.param({"write": errno.ENOSPC, "create": errno.ENOSPC}, id="write-and-create-ENOSPC"),
]


@pytest.fixture
async def world(tmp_path):
    made = ShardWorld(tmp_path / "journal")
    await made.open()
    yield made
    made.close()


async def check_acknowledged(world: ShardWorld) -> None:
    """In a next life, time vouched for by acknowledged beats is up."""
    world.files.fails, world.files.chance = {}, 0.0
    async with world.living(orderly=False):
        listening_ms = now_ms()
        await until(lambda: world.live_watermark_ms() > listening_ms)
        for node in range(len(world.nodes)):
            wanted = vouched(np.array(world.credited(node), np.int64), TTL_MS)
            for slot in range(2):
                found = await world.found_up(node, slot)
                assert missing(wanted, found, until_ms=2**62) == []


async def until(look, *, within_s: float = 5.0) -> None:
    with trio.fail_after(within_s):
        while not look():  # noqa: ASYNC110 - what it waits for says nothing by itself
            await trio.sleep(0.01)


@pytest.mark.parametrize("fails", FAULTS)
async def test_beats_are_busy_while_the_journal_fails_and_it_resumes_by_itself(world, fails):
    async with world.living(orderly=False) as shard:
        before = await world.beat(0)
        assert before.code is Code.OK
        assert shard.ready()["journal"] == ""
        world.files.fails = fails
        for node in (0, 1, 2, 0):
            refused = await world.beat(node)
            assert (refused.code, refused.ttl_ms) == (Code.BUSY, 0)
            assert refused.next_ms > 0
        assert shard.ready()["journal"] != ""
        world.files.fails = {}
        await until(lambda: shard.ready()["journal"] == "")
        after = await world.beat(0)
        assert after.code in CREDITING
        await until(lambda: world.gaps("disk_full"))
        ((from_ms, to_ms),) = world.gaps("disk_full")
        assert from_ms <= refused.server_ms < to_ms <= after.server_ms
        assert from_ms >= before.server_ms
    await check_acknowledged(world)


@pytest.mark.parametrize("fails", FAULTS[2:5])
async def test_a_shard_that_dies_while_its_journal_fails_has_what_it_acknowledged(world, fails):
    async with world.living(orderly=False):
        for node in (0, 1, 2):
            assert (await world.beat(node)).code is Code.OK
        world.files.fails = fails
        assert (await world.beat(1)).code is Code.BUSY
    await check_acknowledged(world)


@pytest.mark.parametrize("fails", FAULTS[4:])
async def test_a_shard_whose_journal_fails_stops_when_told_to(world, fails):
    async with world.living(orderly=True):
        assert (await world.beat(0)).code is Code.OK
        world.files.fails = fails
        assert (await world.beat(0)).code is Code.BUSY
        deadline = trio.current_time() + 4.0  # serve.stop_engine_s, with a second to spare
    assert trio.current_time() < deadline
    await check_acknowledged(world)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_fails_whenever_nothing_acknowledged_is_lost(world, seed):
    with_settings(world, segment_bytes_max=4_096)
    chance = random.Random(seed)
    world.files.seed(seed)
    for _ in range(4):
        world.files.chance = 0.0  # a shard that is to start must be able to
        async with world.living(orderly=False):
            world.files.chance = chance.choice((0.0, 0.05, 0.3))
            for _ in range(chance.randrange(5, 25)):
                ack = await world.beat(chance.randrange(3), within_s=20 * RETRY_S)
                if ack is not None and ack.code is Code.BUSY:
                    await trio.sleep(RETRY_S)
    await check_acknowledged(world)
    assert len(world.acks) > 20


@pytest.mark.parametrize("orderly", [True, False], ids=["stopped", "killed"])
async def test_a_shard_that_ends_while_short_of_disk_has_a_gap_from_the_first_refused_beat(
    world, monkeypatch, orderly
):
    with_settings(world, reserve_bytes=1)
    async with world.living(orderly=orderly):
        assert (await world.beat(0)).code is Code.OK
        monkeypatch.setattr("engine.shard.os.statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4_096))
        refused = []
        with trio.fail_after(5):
            while not refused:
                ack = await world.beat(0)
                refused += [ack] if ack.code is Code.BUSY else []
                await trio.sleep(0.05)
        await trio.sleep(2.2)  # ticks go by; nothing was listened to
        assert (await world.beat(0)).code is Code.BUSY
    monkeypatch.undo()
    async with world.living(orderly=False):
        again = await world.beat(0)
        assert again.code in CREDITING
        listening_ms = now_ms()
        await until(lambda: world.live_watermark_ms() > listening_ms)
        spans = merged([span for cause in ("disk_full", "crash", "restart") for span in world.gaps(cause)])
    last = [ack for node, ack in world.acks if ack.code in CREDITING][-2]
    assert any(start <= refused[0].server_ms and again.server_ms <= end + 100 for start, end in spans), spans
    assert last.server_ms <= spans[0][0]
