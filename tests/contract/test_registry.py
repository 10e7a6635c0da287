"""How engines follow the registry, on both stores."""

from __future__ import annotations

import math

import trio

from engine.core.ports import NewNode
from tests.contract.given import NOW, given_node, given_project, open_session


async def load(stores, *, shard: int = 0, shards: int = 1):
    return [spec async for page in stores.registry.load(shard=shard, shards=shards) for spec in page]


async def test_an_empty_registry_stands_at_zero(stores):
    assert await stores.registry.position() == 0
    assert await stores.registry.changes(0, shard=0, shards=1) == (0, [])
    assert await load(stores) == []


async def test_a_node_is_nothing_to_an_engine_before_its_first_session(stores):
    node = await given_node(stores)
    await stores.directory.add_workload(node.node_id, name="second", now_ms=NOW)
    await stores.directory.open_window(
        node.node_id, None, from_ms=NOW, to_ms=NOW + 60_000, own=True, now_ms=NOW
    )
    assert await stores.registry.position() == 0
    assert await load(stores) == []
    spec, _, position = await open_session(stores, node.node_id)
    assert position == await stores.registry.position() == 1
    assert await load(stores) == [spec]
    assert await stores.registry.changes(0, shard=0, shards=1) == (1, [spec])


async def test_a_check_is_told_with_its_first_capability(stores):
    check = await given_node(stores, kind="check")
    await stores.directory.rotate_capability(check.node_id, now_ms=NOW)
    (spec,) = await load(stores)
    assert (spec.kind, spec.capability_generation, spec.current) == ("check", 1, None)


async def test_a_changed_row_is_told_once_as_it_is_now(stores):
    node = await given_node(stores)
    await open_session(stores, node.node_id)
    for name in ("b", "c"):
        await stores.directory.add_workload(node.node_id, name=name, now_ms=NOW)
    await stores.directory.retire_workload(node.workload_ids[0], now_ms=NOW)
    window = await stores.directory.open_window(
        node.node_id, None, from_ms=NOW + 1, to_ms=NOW + 60_001, own=True, now_ms=NOW
    )
    position, (spec,) = await stores.registry.changes(0, shard=0, shards=1)
    assert position == 5
    assert [slot.retired_ms for slot in spec.slots] == [NOW, None, None]
    assert spec.windows == (window,)
    assert await stores.registry.changes(position, shard=0, shards=1) == (position, [])


async def test_windows_long_over_are_no_longer_told(stores):
    node = await given_node(stores)
    day, minute = 86_400_000, 60_000

    async def window(start: int):
        return await stores.directory.open_window(
            node.node_id, None, from_ms=start, to_ms=start + minute, own=False, now_ms=NOW - 3 * day
        )

    await window(NOW - 2 * day)
    later = await window(NOW + day)
    spec, _, _ = await open_session(stores, node.node_id)
    assert spec.windows == (later,)


async def test_each_shard_hears_of_its_own_rows_and_moves_past_the_others(stores):
    project = await given_project(stores)
    nodes = [await given_node(stores, project) for _ in range(5)]
    for node in nodes:
        await open_session(stores, node.node_id)
    for shard in (0, 1):
        position, specs = await stores.registry.changes(0, shard=shard, shards=2)
        assert position == 5
        assert [spec.row for spec in specs] == [row for row in range(5) if row % 2 == shard]
        assert await load(stores, shard=shard, shards=2) == specs


async def test_changes_come_in_portions_until_the_position_stands_still(stores):
    nodes = [await given_node(stores) for _ in range(5)]
    for node in nodes:
        await open_session(stores, node.node_id)
    position, rows = 0, []
    for _ in range(math.ceil(5 / 2)):
        position, specs = await stores.registry.changes(position, shard=0, shards=1, limit=2)
        rows += [spec.row for spec in specs]
    assert (position, rows) == (5, [0, 1, 2, 3, 4])
    assert await stores.registry.changes(position, shard=0, shards=1, limit=2) == (5, [])


async def test_a_load_longer_than_a_page_is_whole(stores):
    project = await given_project(stores)
    new = [NewNode(project, "", "check", None, 60_000, ("w",))] * 3
    nodes = await stores.directory.create_nodes(new, now_ms=NOW)
    for node in nodes:
        await stores.directory.rotate_capability(node.node_id, now_ms=NOW)
    assert [spec.row for spec in await load(stores)] == [0, 1, 2]


async def test_a_hint_ends_the_wait_and_without_one_the_time_does(stores):
    node = await given_node(stores)
    with trio.fail_after(5):
        await stores.registry.wait_hint(0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_changing, stores, node.node_id)
        with trio.fail_after(5):
            await stores.registry.wait_hint(math.inf)
        nursery.cancel_scope.cancel()


async def keep_changing(stores, node_id: str) -> None:
    while True:
        await stores.directory.rotate_capability(node_id, now_ms=NOW)
        await trio.sleep(0.01)
