"""What only the real stores can get wrong: commits that come late, owners that die, two at once, volume."""

from __future__ import annotations

import time
import uuid
from functools import partial

import asyncpg
import numpy as np
import pytest
import trio

from engine.core.news import notice_of
from engine.core.ports import NewNode, NonceSeenError, StoreUnavailableError
from engine.core.records import INTERVAL_DTYPE, FirstReport, FlushBatch
from storage.bridge import await_host
from storage.ids import new_id
from storage.open import open_stores
from storage.postgres_events import _CURSOR_LOCK
from storage.postgres_sessions import GENERATION_MAX
from storage.settings import DatabaseSettings, RedisSettings
from tests.contract.given import NOW, batch, given_node, given_project, make_event, open_session


@pytest.fixture
async def sql(on_uvloop, postgres_url):
    """A connection of the test's own, on the host loop: ``await sql("execute", ...)``."""
    connection = await await_host(asyncpg.connect, postgres_url)
    yield lambda method, *args: await_host(getattr(connection, method), *args)
    await await_host(connection.close)


async def test_a_late_committing_transaction_does_not_make_an_event_cursor_skip(stores, sql):
    early, late = make_event(1), make_event(2)
    await sql("execute", "begin")
    await sql("execute", f"select pg_advisory_xact_lock({_CURSOR_LOCK})")
    await sql(
        "execute",
        """
        insert into event (event_id, kind, shard, since_ms, at_ms) values ($1, 'k', 0, 1, 1)
        """,
        early.event_id,
    )
    async with trio.open_nursery() as nursery:
        flushed = trio.Event()

        async def flush() -> None:
            await stores.history.flush(batch(events=(late,)))
            flushed.set()

        nursery.start_soon(flush)
        # The second flush waits for the first: nothing can be seen that the first would slip in before.
        with trio.move_on_after(0.3):
            await flushed.wait()
        assert not flushed.is_set()
        assert await stores.history.events(project_id=None, after=0, limit=10) == []
        await sql("execute", "commit")
    found = await stores.history.events(project_id=None, after=0, limit=10)
    assert [event.event_id for _, event in found] == [early.event_id, late.event_id]


async def test_a_reader_of_events_that_runs_beside_many_writers_misses_none(stores):
    wanted, found = 300, []

    async def write(shard: int) -> None:
        for number in range(wanted // 3):
            event = make_event(shard * 1_000 + number, shard=shard)
            await stores.history.flush(batch(shard=shard, events=(event,)))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for shard in range(3):
                nursery.start_soon(write, shard)
            while len(found) < wanted:
                after = found[-1][0] if found else 0
                found += await stores.history.events(project_id=None, after=after, limit=50)
    assert len({event.event_id for _, event in found}) == wanted


async def test_a_follower_of_the_registry_beside_many_writers_misses_none(stores):
    project = await given_project(stores)
    nodes = await stores.directory.create_nodes(
        [NewNode(project, "", "node", None, 60_000, ("w",))] * 60, now_ms=NOW
    )
    seen: dict[int, int] = {}
    position = 0

    async def follow() -> None:
        nonlocal position
        position, specs = await stores.registry.changes(position, shard=0, shards=1, limit=7)
        for spec in specs:
            seen[spec.row] = spec.current.generation

    async def connect(some) -> None:
        for node in some:
            for _ in range(2):
                await open_session(stores, node.node_id)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for first in range(3):
                nursery.start_soon(connect, nodes[first::3])
            while position < 120:
                await follow()
    assert seen == {node.row: 2 for node in nodes}


async def test_one_nonce_used_twice_at_once_opens_one_session(stores):
    node = await given_node(stores)
    outcomes: list[str] = []

    async def attempt() -> None:
        try:
            await open_session(stores, node.node_id, nonce="same", rate_per_min=100)
        except NonceSeenError:
            outcomes.append("refused")
        else:
            outcomes.append("opened")

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    assert sorted(outcomes) == ["opened"] + ["refused"] * 7


async def test_a_generation_that_wraps_takes_a_new_salt(stores, sql):
    node = await given_node(stores)
    _, before, _ = await open_session(stores, node.node_id)
    await sql("execute", "update node set generation = $1", GENERATION_MAX - 1)
    spec, last, _ = await open_session(stores, node.node_id)
    assert (last.generation, last.salt) == (GENERATION_MAX, before.salt)
    spec, wrapped, _ = await open_session(stores, node.node_id)
    assert (spec.current, spec.previous) == (wrapped, last)
    assert wrapped.generation == 2
    assert wrapped.salt != last.salt


async def test_rows_stay_dense_when_many_create_at_once_and_some_fail(stores):
    project = await given_project(stores)

    async def create(number: int) -> None:
        owner = project if number % 3 else new_id()  # no such project: refused by the database
        new = [NewNode(owner, "", "node", None, 60_000, ())] * 4
        if number % 3:
            await stores.directory.create_nodes(new, now_ms=NOW)
        else:
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await stores.directory.create_nodes(new, now_ms=NOW)

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(create, number)
    nodes = await stores.directory.list_nodes(project, after=None, limit=100)
    assert sorted(node.row for node in nodes) == list(range(24))


async def test_the_notifiers_lock_has_one_holder_and_goes_with_its_connection(
    stores, sql, postgres_url, valkey_url
):
    async with open_stores(DatabaseSettings(url=postgres_url), RedisSettings(url=valkey_url)) as others:
        assert await stores.outbox.take_notifier_lock()
        assert not await others.outbox.take_notifier_lock()
        # Its session dies on the server; the holder has not noticed yet, and must.
        await sql("execute", "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
        with trio.fail_after(10):
            while not await others.outbox.take_notifier_lock():  # noqa: ASYNC110 - the server takes a moment
                await trio.sleep(0.01)
        assert not await stores.outbox.take_notifier_lock()
    assert await stores.outbox.take_notifier_lock()


async def test_two_workers_never_claim_the_same_delivery(stores):
    project = await given_project(stores)
    channel = await stores.outbox.add_channel(project, kind="mail", target="a", secret="", now_ms=NOW)
    events = [make_event(number) for number in range(200)]
    await stores.history.flush(batch(events=tuple(events)))
    told = [(notice_of(event), channel.channel_id) for event in events]
    assert await stores.outbox.put(told, now_ms=NOW) == 200
    claimed: list[str] = []

    async def work() -> None:
        while due := await stores.sending.claim(kind="mail", limit=7, now_ms=NOW, lease_ms=60_000):
            claimed.extend(delivery.delivery_id for delivery in due)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    assert len(claimed) == len(set(claimed)) == 200


def many_intervals(count: int, *, started_ms: int = NOW) -> np.ndarray:
    rows = np.zeros(count, INTERVAL_DTYPE)
    rows["hi"], rows["lo"], rows["kind"] = (
        0x0190_0000_0000_7000,
        np.arange(count, dtype="u8") + np.uint64(1 << 63),
        1,
    )
    rows["started_ms"], rows["ended_ms"], rows["ttl_ms"] = started_ms, started_ms + 60_000, 90_000
    return rows


async def test_a_large_batch_is_written_within_seconds_and_again_without_change(stores, sql):
    count = 50_000
    big = FlushBatch(shard=0, position=1, watermark_ms=NOW, intervals=many_intervals(count))
    written_by = []
    for _ in range(2):
        before = time.monotonic()
        await stores.history.flush(big)
        assert time.monotonic() - before < 10
        assert await sql("fetchval", "select count(*) from base_interval") == count
        written_by.append(await sql("fetchval", "select array_agg(distinct xmin::text) from base_interval"))
    assert written_by[0] == written_by[1]  # not one row was written anew
    first = str(uuid.UUID(int=0x0190_0000_0000_7000 << 64 | 1 << 63))
    (found,) = await stores.history.intervals(first, 0, NOW * 2)
    assert (found.kind, found.started_ms, found.ended_ms) == (1, NOW, NOW + 60_000)


async def test_a_mass_outage_of_events_and_first_reports_is_one_quick_batch(stores):
    project = await given_project(stores)
    new = [NewNode(project, "", "node", None, 60_000, tuple("0123456789"))] * 500
    nodes = await stores.directory.create_nodes(new, now_ms=NOW)
    reports = tuple(FirstReport(one, NOW) for node in nodes for one in node.workload_ids)
    events = tuple(make_event(number, workloads=nodes[number % 500].workload_ids) for number in range(20_000))
    before = time.monotonic()
    await stores.history.flush(batch(events=events, first_reports=reports))
    assert time.monotonic() - before < 10
    page = await stores.history.events(project_id=None, after=0, limit=20_001)
    assert [event for _, event in page] == list(events)
    assert (await stores.directory.workload(nodes[-1].workload_ids[-1])).first_report_ms == NOW


async def test_thousands_of_nodes_are_made_within_seconds(stores):
    project = await given_project(stores)
    new = [NewNode(project, str(n), "node", bytes(32), 60_000, tuple("0123456789")) for n in range(3_000)]
    before = time.monotonic()
    nodes = await stores.directory.create_nodes(new, now_ms=NOW)
    assert time.monotonic() - before < 10
    assert [node.row for node in nodes] == list(range(3_000))
    assert await stores.directory.node(nodes[1_234].node_id) == nodes[1_234]


async def test_a_cancelled_call_leaves_its_connection_usable(on_uvloop, postgres_url, valkey_url, sql):
    settings = DatabaseSettings(url=postgres_url, pool_connections_max=1)
    async with open_stores(settings, RedisSettings(url=valkey_url)) as stores:
        await sql("execute", "begin; lock table project in access exclusive mode")
        for _ in range(3):
            with trio.move_on_after(0.05) as scope:
                await stores.directory.project("alpha")
            assert scope.cancelled_caught
        await sql("execute", "commit")
        with trio.fail_after(5):
            assert await stores.directory.project("alpha") is None


async def test_a_call_that_waits_for_a_lock_ends_with_its_timeout(on_uvloop, postgres_url, valkey_url, sql):
    settings = DatabaseSettings(url=postgres_url, command_timeout_s=0.2)
    async with open_stores(settings, RedisSettings(url=valkey_url)) as stores:
        await sql("execute", "begin; lock table project in access exclusive mode")
        with trio.fail_after(5), pytest.raises(StoreUnavailableError, match="in time"):
            await stores.directory.project("alpha")
        await sql("execute", "commit")
        assert await stores.directory.project("alpha") is None


async def test_the_connections_are_told(stores):
    await given_project(stores)
    told = stores.statistics()
    assert told["postgres_connections"] == told["postgres_connections_idle"] == 1
    assert told["postgres_connections_max"] == DatabaseSettings().pool_connections_max
    assert told["redis_calls"] == 0


async def test_more_calls_than_connections_wait_for_their_turn(on_uvloop, postgres_url, valkey_url):
    settings = DatabaseSettings(url=postgres_url, pool_connections_max=2)
    async with open_stores(settings, RedisSettings(url=valkey_url)) as stores, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(partial(stores.directory.create_project, f"p{number}", now_ms=NOW))


async def test_a_whole_fleet_that_looks_its_nodes_up_at_once_does_not_wait_for_connections_in_vain(
    postgres_url, valkey_url, on_uvloop
):
    settings = DatabaseSettings(url=postgres_url, pool_connections_max=1, connect_timeout_s=1.0)
    found = []
    async with open_stores(settings, RedisSettings(url=valkey_url)) as stores, trio.open_nursery() as nursery:
        nodes = [await given_node(stores) for _ in range(3)]

        async def look_up(node) -> None:
            found.append((node, await stores.directory.node(node.node_id)))

        for _ in range(2_000):
            for node in nodes:
                nursery.start_soon(look_up, node)
    assert len(found) == 6_000
    assert all(node == answer for node, answer in found)
