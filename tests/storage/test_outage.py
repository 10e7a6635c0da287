"""Stores that go away and come back: calls say so in time, and work again, without anybody's help."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from pathlib import Path

import pytest
import trio

from engine.core.ports import StoreUnavailableError
from storage.embedded import ValkeyServer
from storage.migrate import migrate_embedded
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings
from tests.conftest import FastPostgresServer
from tests.contract.given import NOW, batch, given_node, make_event
from tests.contract.test_live import head, row_record, slot_record

WORKLOAD = "01900000-0000-7000-8000-0000000000ff"
PATIENCE_S = 10.0  # how long anything here may take before it counts as hanging


@pytest.fixture
async def postgres(on_uvloop, tmp_path):
    server = FastPostgresServer(tmp_path)
    await server.start()
    await migrate_embedded(server)
    yield server
    await server.stop()


@pytest.fixture
async def valkey(on_uvloop, tmp_path):
    server = ValkeyServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


def settings_of(postgres, valkey):
    database = DatabaseSettings(url=postgres.url, connect_timeout_s=0.5, command_timeout_s=1.0)
    return database, RedisSettings(url=valkey.url, timeout_s=0.5)


async def every_postgres_call_says_so(stores) -> None:
    calls = (
        stores.registry.position,
        lambda: stores.registry.changes(0, shard=0, shards=1),
        lambda: stores.history.flush(batch(events=(make_event(),))),
        lambda: stores.history.events(project_id=None, after=0, limit=1),
        lambda: stores.directory.create_project("alpha", now_ms=NOW),
        lambda: stores.ledger.window_total("01900000-0000-7000-8000-000000000000", None, None),
        lambda: stores.sending.claim(kind="mail", limit=1, now_ms=NOW, lease_ms=1),
        stores.outbox.take_notifier_lock,
    )
    for call in calls:
        with trio.fail_after(PATIENCE_S), pytest.raises(StoreUnavailableError):
            await call()


async def every_redis_call_says_so(stores) -> None:
    calls = (
        stores.live.heads,
        lambda: stores.live.read(0, shards=1),
        lambda: stores.live.write(head(), rows=[], slots=[]),
        lambda: stores.live.reset(head()),
        lambda: stores.live.announce_events([make_event()]),
    )
    for call in calls:
        with trio.fail_after(PATIENCE_S), pytest.raises(StoreUnavailableError):
            await call()


async def postgres_works(stores) -> None:
    with trio.fail_after(PATIENCE_S):
        node = await given_node(stores)
        assert await stores.directory.node(node.node_id) == node
        await stores.history.flush(batch(position=3))
        assert await stores.history.flushed_position(0) == 3


async def postgres_works_again(stores) -> None:
    """The first call may still meet a connection that died; it then says so, and no later one does."""
    with contextlib.suppress(StoreUnavailableError):
        await stores.registry.position()
    await postgres_works(stores)


async def test_stores_open_though_nothing_is_there_and_work_once_it_is(postgres, valkey):
    settings = settings_of(postgres, valkey)
    await postgres.stop()
    await valkey.stop()
    async with open_stores(*settings) as stores:
        await every_postgres_call_says_so(stores)
        await every_redis_call_says_so(stores)
        with trio.fail_after(PATIENCE_S):
            await stores.registry.wait_hint(0.01)
            await stores.live.wait_events(0.01)
        await postgres.start()
        await valkey.start()
        await postgres_works(stores)
        await stores.live.reset(head())
        assert await stores.outbox.take_notifier_lock()


def lives(pid: int) -> bool:
    """Whether the process runs still; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("how", ["in order", "killed"])
async def test_postgres_stopped_and_started_again_is_healed(postgres, valkey, how):
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        await postgres_works(stores)
        assert await stores.outbox.take_notifier_lock()
        if how == "killed":
            backends = children_of(postgres.process.pid)
            os.kill(postgres.process.pid, signal.SIGKILL)
            await postgres.wait()
            with trio.fail_after(PATIENCE_S):
                while any(map(lives, backends)):  # noqa: ASYNC110 - they answer a moment more
                    await trio.sleep(0.01)
        else:
            await postgres.stop()
        await every_postgres_call_says_so(stores)
        await postgres.start()
        await postgres_works_again(stores)
        assert await stores.outbox.take_notifier_lock()


async def test_a_connection_whose_server_died_a_moment_ago_is_unavailable_and_nothing_worse(postgres, valkey):
    # Again and again, to meet each moment between the server's last word and the end of the stream.
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        for delay_ms in range(8):
            await postgres_works_again(stores)
            os.kill(postgres.process.pid, signal.SIGKILL)
            await trio.sleep(delay_ms / 1_000)
            for number in range(10):
                with contextlib.suppress(StoreUnavailableError):
                    await stores.registry.position()
                with contextlib.suppress(StoreUnavailableError):
                    await stores.history.flush(
                        batch((WORKLOAD, 1, NOW, NOW + 1), events=(make_event(number),))
                    )
            await postgres.wait()
            await postgres.start()


async def test_calls_of_all_kinds_under_way_live_through_kill_after_kill(postgres, valkey):
    done: dict[str, int] = {}
    async with open_stores(*settings_of(postgres, valkey)) as stores, trio.open_nursery() as nursery:
        for name, call in calls_under_way(stores).items():
            nursery.start_soon(keep_calling, done, name, call)
        for number in range(6):
            await trio.sleep(0.2 + 0.03 * number)
            for server in (postgres, valkey):
                os.kill(server.process.pid, signal.SIGKILL)
            for server in (postgres, valkey):
                await server.wait()
                await server.start()
        done.clear()
        with trio.fail_after(PATIENCE_S):
            while done.keys() != calls_under_way(stores).keys():  # noqa: ASYNC110 - each once more
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


def calls_under_way(stores):
    rows = [(f"01900000-0000-7000-8000-{number:012x}", 1, NOW, NOW + 1) for number in range(500)]
    return {
        "flush": lambda: stores.history.flush(batch(*rows, events=tuple(map(make_event, range(50))))),
        "create": lambda: given_node(stores, workloads=3),
        "read": lambda: stores.history.events(project_id=None, after=0, limit=100),
        "lock": stores.outbox.take_notifier_lock,
        "reset": lambda: stores.live.reset(head()),
        "heads": stores.live.heads,
        "hint": lambda: stores.registry.wait_hint(0.01),
        "news": lambda: stores.live.wait_events(0.01),
    }


async def keep_calling(done: dict[str, int], name: str, call) -> None:
    while True:
        try:
            await call()
        except StoreUnavailableError:
            await trio.sleep(0.001)
        else:
            done[name] = done.get(name, 0) + 1


async def test_a_postgres_that_hangs_costs_a_call_its_timeout_and_no_more(postgres, valkey):
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        await postgres_works(stores)
        everyone = [postgres.process.pid, *children_of(postgres.process.pid)]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        try:
            await every_postgres_call_says_so(stores)
        finally:
            for pid in everyone:
                os.kill(pid, signal.SIGCONT)
        await postgres_works_again(stores)


async def test_hints_come_again_after_postgres_did(postgres, valkey):
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        node = await given_node(stores)
        await stores.registry.wait_hint(0.1)
        await postgres.stop()
        await postgres.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_rotating, stores, node.node_id)
            with trio.fail_after(PATIENCE_S):
                await stores.registry.wait_hint(math.inf)
            nursery.cancel_scope.cancel()


async def keep_rotating(stores, node_id: str) -> None:
    while True:
        try:
            await stores.directory.rotate_capability(node_id, now_ms=NOW)
        except StoreUnavailableError:  # the one connection that died with the server
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.02)


async def test_a_database_that_is_not_migrated_yet_is_unavailable(on_uvloop, tmp_path, valkey):
    server = FastPostgresServer(tmp_path)
    await server.start()
    try:
        async with open_stores(*settings_of(server, valkey)) as stores:
            with pytest.raises(StoreUnavailableError, match="does not exist"):
                await stores.registry.position()
            await migrate_embedded(server)
            assert await stores.registry.position() == 0
    finally:
        await server.stop()


async def test_a_flushed_redis_wants_everything_again(postgres, valkey):
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        await stores.live.reset(head())
        assert await stores.live.write(head(), rows=[(0, row_record())], slots=[(0, slot_record())])
        await valkey.stop()  # it keeps nothing, so this flushes it
        await every_redis_call_says_so(stores)
        await valkey.start()
        assert await stores.live.write(head(), rows=[(0, row_record())], slots=[]) is False
        assert await stores.live.heads() == {}
        await stores.live.reset(head())
        assert await stores.live.write(head(), rows=[(0, row_record())], slots=[(0, slot_record())])
        _, node = await stores.live.read(0, shards=1)
        assert node.state == "up"


async def test_a_redis_that_hangs_costs_a_call_its_timeout_and_no_more(postgres, valkey):
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        await stores.live.reset(head())
        os.kill(valkey.process.pid, signal.SIGSTOP)
        try:
            await every_redis_call_says_so(stores)
        finally:
            os.kill(valkey.process.pid, signal.SIGCONT)
        with trio.fail_after(PATIENCE_S):
            await stores.live.heads()


async def test_news_come_again_after_redis_did(postgres, valkey):
    async with open_stores(*settings_of(postgres, valkey)) as stores:
        await stores.live.wait_events(0.1)
        await valkey.stop()
        await valkey.start()

        async def announce() -> None:
            while True:
                await stores.live.announce_events([make_event()])
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(announce)
            with trio.fail_after(PATIENCE_S):
                await stores.live.wait_events(math.inf)
            nursery.cancel_scope.cancel()


async def test_stores_close_though_everything_is_gone(postgres, valkey):
    with trio.fail_after(PATIENCE_S):
        async with open_stores(*settings_of(postgres, valkey)) as stores:
            await postgres_works(stores)
            await stores.live.heads()
            await stores.live.wait_events(0.01)
            await stores.registry.wait_hint(0.01)
            assert await stores.outbox.take_notifier_lock()
            await postgres.stop()
            await valkey.stop()


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]
