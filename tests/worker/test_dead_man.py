"""The dead man's beat: sent while all is well, and silent as soon as anything is not."""

from __future__ import annotations

import pytest
import trio

from engine.core.ports import StoreUnavailableError
from tests.worker.receivers import OK, HttpReceiver, serving
from worker.dead_man import TIMEOUT_S, WATERMARK_AGE_MS_MAX, DeadMan, late_shards
from worker.guarded import GuardedClient

NOW = 1_790_000_000_000
REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"
ERROR = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"


class World:
    def __init__(self, url: str) -> None:
        self.watermarks: dict[int, int] | Exception = {0: NOW, 1: NOW}
        self.checks: dict[str, str] = {"postgres": "", "notifier": ""}
        self.dead_man = DeadMan(
            url=url,
            every_s=60.0,
            watermarks=self.ask,
            shards=2,
            checks=lambda: self.checks,
            now_ms=lambda: NOW,
        )

    async def ask(self) -> dict[int, int]:
        if isinstance(self.watermarks, Exception):
            raise self.watermarks
        return self.watermarks

    async def look(self) -> tuple[int, int, int]:
        async with GuardedClient(user_agent="test/1") as client:
            await self.dead_man.run_once(client)
        found = self.dead_man.statistics()
        return found.sent_total, found.withheld_total, found.failed_total


async def test_it_beats_while_all_is_well_and_is_silent_while_anything_is_not():
    receiver = HttpReceiver(OK)
    async with serving(receiver):
        world = World(f"http://127.0.0.1:{receiver.port}/ping/secret")
        assert await world.look() == (1, 0, 0)
        assert receiver.requests[0][0] == "GET /ping/secret HTTP/1.1"
        assert world.dead_man.statistics().last_sent_seconds == NOW / 1000
        world.checks = {"postgres": "", "notifier": "not running"}
        assert await world.look() == (1, 1, 0)
        world.checks = {}
        world.watermarks = StoreUnavailableError("away")
        assert await world.look() == (1, 2, 0)
        world.watermarks = {0: NOW, 1: NOW - WATERMARK_AGE_MS_MAX - 1}
        assert await world.look() == (1, 3, 0)
        assert len(receiver.requests) == 1
        world.watermarks = {0: NOW, 1: NOW - WATERMARK_AGE_MS_MAX}
        assert await world.look() == (2, 3, 0)


@pytest.mark.parametrize("answer", [ERROR, REDIRECT, b"what is this\r\n\r\n"])
async def test_a_monitor_that_does_not_take_it_is_counted_and_stops_nothing(answer):
    receiver = HttpReceiver(answer, OK)
    async with serving(receiver):
        world = World(f"http://127.0.0.1:{receiver.port}/")
        assert await world.look() == (0, 0, 1)
        assert await world.look() == (1, 0, 1)
    assert await world.look() == (1, 0, 2), "nobody listens"


async def test_a_name_that_does_not_resolve_is_a_failure_and_no_crash():
    assert await World("http://no-such-host.invalid/").look() == (0, 0, 1)
    assert await World("ftp://127.0.0.1/").look() == (0, 0, 1)


async def test_neither_a_monitor_nor_a_database_that_hangs_holds_it_up_for_ever(autojump_clock):
    receiver = HttpReceiver(None)
    async with serving(receiver):
        world = World(f"http://127.0.0.1:{receiver.port}/")
        started = trio.current_time()
        assert await world.look() == (0, 0, 1)
        assert trio.current_time() - started <= TIMEOUT_S + 1

        async def hang() -> dict[int, int]:
            await trio.sleep_forever()
            raise AssertionError

        world.dead_man._watermarks = hang
        assert await world.look() == (0, 1, 1)


async def test_it_goes_on_at_its_pace(autojump_clock):
    world = World("http://127.0.0.1:1/")
    world.checks = {"postgres": "away"}
    with trio.move_on_after(601):
        await world.dead_man.run()
    assert world.dead_man.statistics().withheld_total == 11


def test_a_shard_that_was_never_heard_of_is_late_and_one_of_an_older_count_is_not_asked_for():
    assert late_shards({0: NOW, 5: 1}, shards=1, now_ms=NOW) == ""
    assert late_shards({0: NOW}, shards=2, now_ms=NOW) == "shard 1: no watermark for 60 s"
