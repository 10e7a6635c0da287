"""Sealing over real stores: what is sealed, when, and that it is sealed once, whatever happens."""

from __future__ import annotations

import uuid
from hashlib import sha256
from typing import Any

import asyncpg
import msgspec
import numpy as np
import pytest
import trio

from engine.core.liveview import ROW_BYTES, ROW_DTYPE, SLOT_DTYPE
from engine.core.people import Act
from engine.core.ports import StoreUnavailableError
from engine.core.records import BASE_UP, INTERVAL_DTYPE, KINDS, NODE_STATES, FlushBatch, ShardHead
from engine.core.sealed import DAY_MS, DAY_TREE, HOURS, Seal, row_text
from engine.core.sealing import Due, Grant
from storage.bridge import await_host
from storage.ids import new_id
from storage.open import AllStores
from storage.postgres_events import CONTROL_PLANE
from storage.postgres_seals import day_of
from tests.conftest import as_owner
from tests.sealing import (
    TTL_MS,
    Day,
    halves,
    make_day,
    new_sealer,
    seal_a_day,
    seal_days,
    system_ms,
    tell_view,
    yesterday_ms,
)
from worker import seal_day

HOUR_MS = 3_600_000
UP, UNHEALTHY, SILENT = (KINDS.index(kind) for kind in ("up", "unhealthy", "silent"))


async def a_project(stores: AllStores, slug: str = "alpha") -> str:
    await tell_view(stores)
    return (await stores.directory.create_project(slug, now_ms=1)).project_id


async def sql(url: str, statement: str, *arguments: object) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(as_owner(url))
        try:
            found: list[Any] = await connection.fetch(statement, *arguments)
            return found
        finally:
            await connection.close()

    return await await_host(run)


def due_of(day: Day) -> Due:
    return Due(project_id=day.project_id, project="alpha", day_ms=day.day_ms)


def tree(leaves: list[bytes]) -> bytes:
    """RFC 6962, by its text: split at the largest power of two below n."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + tree(leaves[:half]) + tree(leaves[half:])).digest()


async def whole(stores: AllStores, seal: Seal) -> None:
    """Everything that can be read of a seal agrees with its roots, counted apart from the product's code."""
    rows = [row for _, row in await stores.seals.rows(seal, after_place=-1, limit=10_000)]
    texts = [row_text(row, project=seal.project, day=seal.day, revision=seal.revision) for row in rows]
    assert tree([sha256(b"\x00nodepulse.day.v1\n" + text).digest() for text in texts]) == seal.root
    assert seal.rows == len(rows)
    nodes = list(dict.fromkeys(row.node_id for row in rows))
    assert seal.nodes == len(nodes)
    assert [row.node_id for row in rows] == sorted(row.node_id for row in rows)
    sums = {row.workload_id: [0] * len(KINDS) for row in rows}
    for hour in range(HOURS):
        leaves = []
        for place, node_id in enumerate(nodes):
            found = await stores.seals.hour_leaf(seal, hour, node_id)
            assert found is not None
            assert found[0] == place
            leaves.append(sha256(b"\x00nodepulse.hour.v1\n" + found[1]).digest())
            for at in range(24, len(found[1]), 64):
                cell = found[1][at : at + 64]
                mine = sums[str(uuid.UUID(bytes=cell[:16]))]
                for kind in range(len(KINDS)):
                    mine[kind] += int.from_bytes(cell[16 + 4 * kind : 20 + 4 * kind], "big")
        assert tree(leaves) == seal.hour_roots[hour]
        assert tree(await stores.seals.block_roots(seal, hour)) == seal.hour_roots[hour]
    assert {row.workload_id: list(row.ms) for row in rows} == sums
    assert seal.paid_ms == sum(row.paid_ms for row in rows)
    told = await stores.seals.kinds_ms(seal)
    assert list(told.values()) == [sum(row.ms[kind] for row in rows) for kind in range(len(KINDS))]


# -- what is sealed -----------------------------------------------------------------------------------------


async def test_a_day_is_sealed_with_a_row_for_each_workload(stores: AllStores) -> None:
    day = await seal_a_day(stores, await a_project(stores), nodes=2, workloads=3)
    assert day.seal is not None
    rows = [row for _, row in await stores.seals.rows(day.seal, after_place=-1, limit=100)]
    assert [row.workload_id for row in rows] == day.workload_ids
    assert rows[0].ms[UP] == rows[0].paid_ms == DAY_MS
    assert (rows[1].ms[UP], rows[1].ms[SILENT]) == (DAY_MS - 3 * HOUR_MS - 1, 3 * HOUR_MS + 1)
    assert rows[2].ms[UNHEALTHY] == 3 * HOUR_MS
    assert (day.seal.seal_no, day.seal.revision, day.seal.actor) == (1, 1, "system")
    await whole(stores, day.seal)
    assert await seal_days(stores) == []


async def test_a_seal_of_many_pages_and_blocks_is_whole(
    stores: AllStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of several workloads at the edges of pages, and more rows than a block has leaves."""
    monkeypatch.setattr(seal_day, "PAGE_WORKLOADS", 100)
    day = await seal_a_day(stores, await a_project(stores), nodes=375, workloads=3)
    assert day.seal is not None
    assert len(await stores.seals.block_roots(day.seal, DAY_TREE)) == 2
    blocks = [await stores.seals.block(day.seal, DAY_TREE, block) for block in range(3)]
    assert [len(block) for block in blocks] == [1024, 101, 0]
    assert tree([leaf for block in blocks for leaf in block]) == day.seal.root
    hours = [await stores.seals.block(day.seal, 7, block) for block in range(2)]
    assert [len(block) for block in hours] == [375, 0]
    assert tree(hours[0]) == day.seal.hour_roots[7]
    last = await stores.seals.hour_leaf(day.seal, 7, day.nodes[-1].node_id)
    assert last is not None
    assert last[0] == 374
    place, row = (await stores.seals.rows_of_node(day.seal, day.nodes[200].node_id))[1]
    assert (place, row.workload_id) == (601, day.nodes[200].workload_ids[1])
    assert await stores.seals.row(day.seal, row.workload_id) == (place, row)


async def test_a_row_is_cut_to_the_workloads_life(stores: AllStores, postgres_url: str) -> None:
    day = await make_day(stores, await a_project(stores), nodes=1, workloads=2)
    born, gone = day.workload_ids
    await sql(
        postgres_url, "update workload set created_ms = $2 where workload_id = $1", born, day.day_ms + HOUR_MS
    )
    await sql(
        postgres_url, "update workload set retired_ms = $2 where workload_id = $1", gone, day.day_ms + HOUR_MS
    )
    (seal,) = await seal_days(stores)
    rows = [row for _, row in await stores.seals.rows(seal, after_place=-1, limit=10)]
    assert [(row.from_ms - day.day_ms, row.to_ms - day.day_ms) for row in rows] == [
        (HOUR_MS, DAY_MS),
        (0, HOUR_MS),
    ]
    await whole(stores, seal)


async def test_what_a_licence_was_sold_for_splits_the_paid_time(stores: AllStores, postgres_url: str) -> None:
    """Sold within an hour, to the millisecond; the workload was silent on both sides of the sale."""
    project_id = await a_project(stores)
    licence_id, noon = await a_licence(postgres_url, project_id), yesterday_ms() + 11 * HOUR_MS + 12_345
    for owner, from_ms, to_ms in (("a", 0, noon), ("b", noon, None)):
        await sql(
            postgres_url,
            "insert into ownership (licence_id, owner, from_ms, from_block, to_ms, recorded_ms)"
            " values ($1, $2, $3, 1, $4, 1)",
            licence_id,
            "0x" + owner * 40,
            from_ms,
            to_ms,
        )
    day = await make_day(stores, project_id, nodes=1, workloads=2)
    workload_id = day.workload_ids[1]  # silent from 09:00:00.001 to 12:00:00.002
    await sql(
        postgres_url,
        "insert into licence_binding (workload_id, licence_id, from_ms) values ($1, $2, $3)",
        workload_id,
        licence_id,
        day.day_ms - 1,
    )
    (seal,) = await seal_days(stores)
    found = await stores.seals.row(seal, workload_id)
    assert found is not None
    held = [(each.owner[2], each.from_ms - day.day_ms, each.paid_ms) for each in found[1].held]
    assert held == [("a", 0, 9 * HOUR_MS + 1), ("b", 11 * HOUR_MS + 12_345, 12 * HOUR_MS - 2)]
    assert sum(each.paid_ms for each in found[1].held) == found[1].paid_ms


async def a_licence(url: str, project_id: str) -> str:
    collection_id, licence_id = new_id(), new_id()
    await sql(
        url,
        """
        insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
        values ($1, $2, 1, '0x' || repeat('c', 40), 'erc721', 'c', 1)
        """,
        collection_id,
        project_id,
    )
    await sql(
        url,
        "insert into licence (licence_id, collection_id, project_id, token_id, created_ms)"
        " values ($1, $2, $3, 7, 1)",
        licence_id,
        collection_id,
        project_id,
    )
    return licence_id


async def test_refused_beats_of_the_day_stand_in_the_row(stores: AllStores, postgres_url: str) -> None:
    day = await make_day(stores, await a_project(stores), nodes=1, workloads=1)
    for shift, count in ((0, 3), (1, 5)):
        await sql(
            postgres_url,
            "insert into refused_beat (day, node_id, reason, run_ms, count)"
            " values ($1::date + $2::integer, $3, 'mac', 1, $4)",
            day_of(day.day_ms),
            shift,
            day.nodes[0].node_id,
            count,
        )
    (seal,) = await seal_days(stores)
    found = await stores.seals.row(seal, day.workload_ids[0])
    assert found is not None
    assert found[1].refused == {"mac": 3}


# -- when ---------------------------------------------------------------------------------------------------


async def test_missed_days_are_sealed_in_order_from_the_first_workloads_on(stores: AllStores) -> None:
    first = yesterday_ms() - 3 * DAY_MS
    await make_day(stores, await a_project(stores), nodes=1, workloads=1, day_ms=first)
    other = (await stores.directory.create_project("beta", now_ms=1)).project_id
    await make_day(stores, other, nodes=1, workloads=1, day_ms=yesterday_ms() - DAY_MS)
    await stores.directory.create_project("empty", now_ms=1)
    seals = await seal_days(stores)
    days = sorted({seal.day for seal in seals})
    assert [seal.day for seal in seals if seal.project == "alpha"] == days
    assert len(days) == 4
    assert [seal.day for seal in seals if seal.project == "beta"] == days[2:]
    assert [seal.seal_no for seal in seals] == [1, 2, 3, 4, 5, 6]
    listed = await stores.seals.seals(seals[0].project_id, before=days[3], limit=2)
    assert [seal.day for seal in listed] == [days[2], days[1]]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (ShardHead(0, 1, "e", 1, 1, 0, False, None, 1), "the live view of shard 0 does not reach"),
        (ShardHead(0, 2, "e", 2**50, 1, 0, False, None, 1), "shard 0 is not in the live view"),
        (ShardHead(0, 1, "e", 2**50, 1, 0, True, None, 1), "shard 0 is degraded"),
        (ShardHead(0, 1, "e", 2**50, 1, 0, False, 1, 1), "a gap of shard 0 is not decided"),
    ],
)
async def test_a_day_waits_for_its_shards_and_says_why(
    stores: AllStores, head: ShardHead, reason: str
) -> None:
    project_id = await a_project(stores)
    await make_day(stores, project_id, nodes=1, workloads=1)
    await tell_view(stores, head=head)
    sealer = new_sealer(stores)
    assert await sealer.run_once() == []
    ((told),) = sealer.waiting_for().values()
    assert told.startswith(reason)
    assert list(sealer.statistics().waiting.values()) == [1]
    await tell_view(stores)
    assert len(await sealer.run_once()) == 1
    assert sealer.waiting_for() == {}
    assert sealer.statistics().rows_total == 1


async def test_a_day_waits_until_history_has_passed_midnight_by_so_much(stores: AllStores) -> None:
    project_id = await a_project(stores)
    await make_day(stores, project_id, nodes=1, workloads=1)
    since_midnight_ms = system_ms() % DAY_MS
    sealer = new_sealer(stores, after_ms=since_midnight_ms + 60_000)
    assert await sealer.run_once() == []
    assert list(sealer.waiting_for().values()) == ["history of shard 0 does not reach beyond midnight yet"]
    other = new_sealer(stores, shards=2)
    assert await other.run_once() == []
    assert list(other.waiting_for().values()) == ["shard 0 is not in the live view"]


async def test_a_day_waits_while_leases_are_not_settled(stores: AllStores, postgres_url: str) -> None:
    await make_day(stores, await a_project(stores), nodes=1, workloads=1)
    await sql(postgres_url, "update shard_state set leases_ms = 5")
    sealer = new_sealer(stores)
    assert await sealer.run_once() == []
    assert list(sealer.waiting_for().values()) == ["leases are not settled up to midnight"]


async def test_a_shard_that_is_none_holds_nothing_back(stores: AllStores) -> None:
    """The control plane writes history under a number of its own, as `db seed` does."""
    await make_day(stores, await a_project(stores), nodes=1, workloads=1)
    nothing = np.zeros(0, INTERVAL_DTYPE)
    await stores.history.flush(FlushBatch(CONTROL_PLANE, 0, 1, nothing))
    assert len(await seal_days(stores)) == 1


async def test_a_day_with_time_that_may_still_be_forgiven_waits_and_takes_claims_again(
    stores: AllStores, postgres_url: str
) -> None:
    """A gap near the end of the day whose grace is not over by the view's time."""
    day = await make_day(
        stores,
        await a_project(stores),
        nodes=1,
        workloads=1,
        spans=lambda _number: [(BASE_UP, 0, DAY_MS - HOUR_MS)],
    )
    end_ms = day.day_ms + DAY_MS
    await sql(
        postgres_url,
        "insert into gap (shards, shard, from_ms, to_ms, cause) values (1, 0, $1, $2, 'crash')",
        end_ms - HOUR_MS - 1_000,
        end_ms - 100_000,
    )
    head = ShardHead(0, 1, "e", end_ms + 2_000, 1, 0, False, None, 1)
    await tell_view(stores, head=head)
    sealer = new_sealer(stores)
    assert await sealer.run_once() == []
    assert list(sealer.waiting_for().values()) == ["what a gap forgives is not decided for all workloads"]
    assert await sql(postgres_url, "select * from sealing") == []
    assert await sql(postgres_url, "select * from sealed_row") == []
    await tell_view(stores, head=msgspec.structs.replace(head, watermark_ms=end_ms + HOUR_MS))
    (seal,) = await sealer.run_once()
    assert (await stores.seals.kinds_ms(seal))["unobserved"] == HOUR_MS - 100_000


async def test_a_row_on_its_way_into_history_is_waited_for_alone(
    stores: AllStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view has a row open since after midnight; the one before it, which held all day, is not flushed."""
    monkeypatch.setattr(seal_day, "LATE_S_MAX", 0.2)
    day = await make_day(
        stores,
        await a_project(stores),
        nodes=3,
        workloads=1,
        spans=lambda number: [] if number == 1 else [(BASE_UP, 0, DAY_MS)],
    )
    began_ms = system_ms() + 30_000
    await tell_view(stores, head=ShardHead(0, 1, "e", began_ms + 1_000, 1, 3, False, None, 1))
    row, slot = np.zeros(1, ROW_DTYPE), np.zeros(1, SLOT_DTYPE)
    row["state"], row["ttl_ms"], row["slot_count"] = NODE_STATES.index("up"), TTL_MS, 1
    row["last_t_ms"] = began_ms
    slot["kind"], slot["ttl_ms"], slot["started_ms"] = BASE_UP, TTL_MS, began_ms
    slot["first_report_ms"] = day.day_ms
    head = ShardHead(0, 1, "e", began_ms + 1_000, 1, 3, False, None, 1)
    place = day.nodes[1].row
    assert await stores.live.write(
        head, rows=[(place * ROW_BYTES, row.tobytes())], slots=[(0, slot.tobytes())]
    )
    sealer = new_sealer(stores)
    assert await sealer.run_once() == []
    assert list(sealer.waiting_for().values()) == ["rows are on their way into history"]
    held = [(*halves(day.workload_ids[1]), BASE_UP, day.day_ms, began_ms, TTL_MS)]
    batch = FlushBatch(0, 2, began_ms, np.array(held, INTERVAL_DTYPE), leases_ms=began_ms)

    async def flush() -> None:
        await trio.sleep(0.3)
        await stores.history.flush(batch)

    monkeypatch.setattr(seal_day, "LATE_S_MAX", 20)
    found: list[Seal] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        found += await sealer.run_once()
    assert found[0].paid_ms == 3 * DAY_MS
    await whole(stores, found[0])


# -- once ---------------------------------------------------------------------------------------------------


async def test_two_workers_at_once_seal_a_day_once(stores: AllStores, postgres_url: str) -> None:
    await make_day(stores, await a_project(stores), nodes=4, workloads=2)
    found: list[list[Seal]] = []

    async def work() -> None:
        found.append(await new_sealer(stores).run_once())

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    assert sorted(len(each) for each in found) == [0, 0, 0, 1]
    assert await sql(postgres_url, "select count(*)::integer as n from seal") == [(1,)]
    told = await sql(postgres_url, "select project_id::text, detail from event where kind = 'seal.done'")
    assert len(told) == 1
    assert told[0]["detail"].endswith(" revision 1")


async def test_a_seal_whose_connection_is_killed_leaves_nothing_and_is_made_again(
    stores: AllStores, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_day, "PAGE_WORKLOADS", 70)
    day = await make_day(stores, await a_project(stores), nodes=50, workloads=3)
    real, pages = new_sealer(stores)._stores.sealing.page, 0

    async def page(*args: Any, **how: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 3:
            await sql(
                postgres_url,
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = $1",
                0x4E50_0009,
            )
        return await real(*args, **how)

    monkeypatch.setattr(stores.sealing, "page", page)
    with pytest.raises(StoreUnavailableError):
        await new_sealer(stores).run_once()
    for table in ("seal", "sealed_row", "seal_tree", "event where kind = 'seal.done'"):
        assert await sql(postgres_url, f"select * from {table}") == [], table
    assert len(await sql(postgres_url, "select * from sealing")) == 1
    await stores.sealing.clear()
    assert await sql(postgres_url, "select * from sealing") == []
    (seal,) = await seal_days(stores)
    assert (seal.seal_no, seal.rows) == (1, len(day.workload_ids))
    await whole(stores, seal)


async def test_a_seal_that_is_cancelled_leaves_nothing(stores: AllStores, postgres_url: str) -> None:
    day = await make_day(stores, await a_project(stores), nodes=1, workloads=1)
    async with stores.sealing.writing(due_of(day), now_ms=1) as writing:
        assert writing is not None
        async with stores.sealing.writing(due_of(day), now_ms=1) as second:
            assert second is None
        assert len(await sql(postgres_url, "select * from sealing")) == 1
    assert await sql(postgres_url, "select * from sealing") == []
    assert len(await seal_days(stores)) == 1
    async with stores.sealing.writing(due_of(day), now_ms=1) as again:
        assert again is None


async def test_nobody_seals_while_it_is_paused(stores: AllStores) -> None:
    await make_day(stores, await a_project(stores), nodes=1, workloads=1)
    sealer = new_sealer(stores)
    async with stores.sealing.paused():
        assert await sealer.run_once() == []
        assert list(sealer.waiting_for().values()) == ["another worker seals"]
    assert len(await sealer.run_once()) == 1


@pytest.mark.parametrize("table", ["seal", "sealed_row", "seal_tree"])
@pytest.mark.parametrize(
    "change", ["update {} set seal_no = seal_no", "delete from {}", "truncate {} cascade"]
)
async def test_what_is_sealed_cannot_be_changed(
    stores: AllStores, postgres_url: str, table: str, change: str
) -> None:
    """Not even by the owner, as long as its triggers stand; the application's role: test_roles.py."""
    await seal_a_day(stores, await a_project(stores), nodes=1, workloads=1)
    with pytest.raises(asyncpg.RaiseError, match=r"sealed rows never change|append-only"):
        await sql(postgres_url, change.format(table))


# -- corrections --------------------------------------------------------------------------------------------


async def test_a_correction_is_a_further_revision_and_the_first_one_stays(stores: AllStores) -> None:
    day = await seal_a_day(stores, await a_project(stores), nodes=2, workloads=2)
    assert day.seal is not None
    before = await stores.seals.rows(day.seal, after_place=-1, limit=10)
    act = Act(actor="user:1", now_ms=system_ms(), request_id="r", made_id=new_id())
    window = Grant(day.workload_ids[1], day.day_ms + 10 * HOUR_MS, day.day_ms + 13 * HOUR_MS)
    asked = await stores.corrections.correct(
        day.project_id, day.day, reason="we took it down", grants=[window], gap=None, act=act
    )
    assert (asked.revision, asked.done_ms, asked.grants) == (None, None, 1)
    (second,) = await seal_days(stores)
    assert (second.revision, second.reason, second.actor) == (2, "we took it down", "user:1")
    done = await stores.corrections.correction(day.project_id, day.day, asked.correction_id)
    assert done is not None
    # Silent from 09:00:00.001 to 12:00:00.002: two hours and 2 ms of that are maintenance now.
    gained = 2 * HOUR_MS + 2
    assert (done.revision, done.rows_changed) == (2, 1)
    assert done.paid_after_ms == (done.paid_before_ms or 0) + gained
    (changed,) = done.changed
    assert changed.workload_id == day.workload_ids[1]
    assert (changed.paid_after_ms or 0) - (changed.paid_before_ms or 0) == gained
    assert await stores.seals.rows(day.seal, after_place=-1, limit=10) == before
    await whole(stores, day.seal)
    await whole(stores, second)
    assert await stores.seals.seal(day.project_id, day.day) == second
    assert await stores.seals.seal(day.project_id, day.day, 1) == day.seal
    assert await seal_days(stores) == []
