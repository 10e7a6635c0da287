"""What projects, keys, nodes, workloads and sessions promise, on both stores."""

from __future__ import annotations

import hashlib

import pytest
import trio

from engine.core.maintenance import DAY_MS
from engine.core.ports import (
    NewNode,
    NodeRefusedError,
    NonceSeenError,
    RateLimitedError,
    RowFullError,
    WindowRefusedError,
)
from storage import postgres_sessions
from storage.ids import new_id
from tests.contract.given import NOW, given_node, given_project, open_session

NOBODY = "01900000-0000-7000-8000-000000000000"


async def test_a_project_is_made_once(stores):
    first = await stores.directory.create_project("alpha", now_ms=NOW)
    again = await stores.directory.create_project("alpha", now_ms=NOW + 1)
    assert first == again == await stores.directory.project("alpha")
    assert await stores.directory.project("beta") is None


async def test_a_key_speaks_for_its_project_until_it_is_revoked(stores):
    project = await given_project(stores)
    sha256 = hashlib.sha256(b"secret").digest()
    key_id = await stores.directory.create_key(
        scope="project", project_id=project, key_sha256=sha256, name="ci", now_ms=NOW
    )
    principal = await stores.directory.principal(sha256, now_ms=NOW)
    assert (principal.key_id, principal.scope, principal.project_id) == (key_id, "project", project)
    assert await stores.directory.revoke_key(key_id, now_ms=NOW)
    assert not await stores.directory.revoke_key(key_id, now_ms=NOW)
    assert await stores.directory.principal(sha256, now_ms=NOW) is None


async def test_an_admin_key_has_no_project(stores):
    sha256 = hashlib.sha256(b"admin").digest()
    await stores.directory.create_key(scope="admin", project_id=None, key_sha256=sha256, name="", now_ms=NOW)
    assert (await stores.directory.principal(sha256, now_ms=NOW)).project_id is None


async def test_what_is_unknown_is_none_also_when_it_is_no_id_at_all(stores):
    directory = stores.directory
    for stranger in (NOBODY, "no-id", ""):
        assert await directory.node(stranger) is None
        assert await directory.workload(stranger) is None
        assert await directory.workloads_of_project(stranger, [stranger]) == {}
        assert await directory.revoke_node(stranger, now_ms=NOW) is None
        assert not await directory.retire_workload(stranger, now_ms=NOW)
        assert not await directory.revoke_key(stranger, now_ms=NOW)
        assert await directory.list_nodes(stranger, after=None, limit=10) == []
        for call in (
            open_session(stores, stranger),
            directory.add_workload(stranger, name="", now_ms=NOW),
            directory.rotate_capability(stranger, now_ms=NOW),
            directory.open_window(stranger, None, from_ms=1, to_ms=2, own=False, now_ms=NOW),
        ):
            with pytest.raises(NodeRefusedError):
                await call


async def test_rows_are_dense_and_slots_follow_the_order_of_the_names(stores):
    project = await given_project(stores)
    new = [NewNode(project, f"n{i}", "node", bytes([i]) * 32, 60_000, ("a", "b", "c")) for i in range(5)]
    made = await stores.directory.create_nodes(new[:2], now_ms=NOW)
    made += await stores.directory.create_nodes(new[2:], now_ms=NOW)
    assert [node.row for node in made] == [0, 1, 2, 3, 4]
    for node, wanted in zip(made, new, strict=True):
        assert node == await stores.directory.node(node.node_id)
        assert (node.name, node.public_key) == (wanted.name, wanted.public_key)
        found = await stores.directory.workloads_of_project(project, node.workload_ids)
        assert [(found[one].slot, found[one].name) for one in node.workload_ids] == [
            (0, "a"),
            (1, "b"),
            (2, "c"),
        ]
        assert found[node.workload_ids[1]] == await stores.directory.workload(node.workload_ids[1])


async def test_a_failed_creation_leaves_no_hole_in_the_rows(stores):
    project = await given_project(stores)
    await given_node(stores, project)
    too_short = NewNode(project, "bad", "node", None, 60_000, tuple(str(i) for i in range(65)))
    with pytest.raises(AssertionError):
        await stores.directory.create_nodes([too_short], now_ms=NOW)
    assert (await given_node(stores, project)).row == 1


async def test_workloads_of_another_project_are_not_found(stores):
    mine, other = await given_project(stores, "mine"), await given_project(stores, "other")
    node = await given_node(stores, mine)
    assert await stores.directory.workloads_of_project(other, node.workload_ids) == {}


async def test_nodes_are_listed_in_pages_of_one_project_or_of_all(stores):
    mine, other = await given_project(stores, "mine"), await given_project(stores, "other")
    nodes = [await given_node(stores, project) for project in (mine, other, mine, mine)]
    first = await stores.directory.list_nodes(mine, after=None, limit=2)
    rest = await stores.directory.list_nodes(mine, after=first[-1].node_id, limit=2)
    assert first + rest == [nodes[0], nodes[2], nodes[3]]
    assert await stores.directory.list_nodes(None, after=None, limit=10) == nodes


async def test_a_session_raises_the_generation_and_keeps_the_previous_one(stores):
    node = await given_node(stores, workloads=3)
    spec, first, position = await open_session(stores, node.node_id, now_ms=NOW, life_ms=1_000, secret_id=7)
    assert (spec.row, spec.node_id, spec.current, spec.previous) == (node.row, node.node_id, first, None)
    assert first.generation == 1
    assert (first.opened_ms, first.expires_ms, first.secret_id) == (NOW, NOW + 1_000, 7)
    assert (first.interval_ms, first.ttl_ms, first.slots) == (60_000, 90_000, 0b111)
    assert len(first.salt) == 8
    assert [slot.workload_id for slot in spec.slots] == list(node.workload_ids)
    spec, second, later = await open_session(stores, node.node_id, now_ms=NOW + 5)
    assert (spec.current, spec.previous) == (second, first)
    assert (second.generation, second.salt, later) == (2, first.salt, position + 1)


async def test_odd_and_even_generations_take_turns_also_where_they_wrap(stores, monkeypatch):
    """An engine keeps the two generations of a row by their parity: of one parity, the older dies at once."""
    monkeypatch.setattr(postgres_sessions, "GENERATION_MAX", 5)
    node = await given_node(stores)
    opened = [await open_session(stores, node.node_id) for _ in range(7)]
    assert [session.generation for _, session, _ in opened] == [1, 2, 3, 4, 5, 2, 3]
    assert len({session.salt for _, session, _ in opened[:5]}) == 1
    assert len({session.salt for _, session, _ in opened[4:6]}) == 2
    assert [spec.previous for spec, _, _ in opened[1:]] == [session for _, session, _ in opened[:-1]]


async def test_sessions_are_ordered_though_the_clock_ran_back(stores):
    node = await given_node(stores)
    _, first, _ = await open_session(stores, node.node_id, now_ms=NOW)
    spec, second, _ = await open_session(stores, node.node_id, now_ms=NOW - 5_000)
    assert (spec.current, spec.previous) == (second, first)
    assert second.opened_ms > first.opened_ms


async def test_a_nonce_is_taken_once_per_node(stores):
    one, two = await given_node(stores), await given_node(stores)
    await open_session(stores, one.node_id, nonce="aa")
    with pytest.raises(NonceSeenError):
        await open_session(stores, one.node_id, nonce="aa")
    await open_session(stores, two.node_id, nonce="aa")
    spec, _, _ = await open_session(stores, one.node_id, nonce="bb")
    assert spec.current.generation == 2


async def test_refused_requests_count_for_the_rate_which_is_judged_before_the_nonce(stores):
    node = await given_node(stores)
    await open_session(stores, node.node_id, nonce="aa", rate_per_min=3)
    for refusal in (NonceSeenError, NonceSeenError, RateLimitedError, RateLimitedError):
        with pytest.raises(refusal):
            await open_session(stores, node.node_id, nonce="aa", rate_per_min=3)
    with pytest.raises(RateLimitedError):
        await open_session(stores, node.node_id, nonce="cc", rate_per_min=3, now_ms=NOW + 59_999)
    spec, _, _ = await open_session(stores, node.node_id, nonce="cc", rate_per_min=3, now_ms=NOW + 120_000)
    assert spec.current.generation == 2


async def test_pruning_takes_what_counts_no_more_and_nothing_else(stores):
    node = await given_node(stores)
    for number in range(3):
        await open_session(stores, node.node_id, nonce=f"n{number}", nonce_expires_ms=NOW + 300_000)
    assert await stores.directory.prune(now_ms=NOW, limit=100) == 0
    assert await stores.directory.prune(now_ms=NOW + 60_000, limit=2) == 2
    assert await stores.directory.prune(now_ms=NOW + 60_000, limit=2) == 1
    with pytest.raises(NonceSeenError):
        await open_session(stores, node.node_id, nonce="n0", now_ms=NOW + 70_000)
    assert await stores.directory.prune(now_ms=NOW + 300_001, limit=100) == 4
    assert await stores.directory.prune(now_ms=NOW + 300_001, limit=100) == 0


async def test_a_revoked_node_has_no_session_and_opens_none(stores):
    node = await given_node(stores)
    await open_session(stores, node.node_id)
    _, session, position = await open_session(stores, node.node_id)
    after = await stores.directory.revoke_node(node.node_id, now_ms=NOW)
    assert after == position + 1
    assert (await stores.directory.node(node.node_id)).revoked
    _, (spec,) = await stores.registry.changes(position, shard=0, shards=1)
    assert (spec.revoked, spec.current, spec.previous) == (True, None, None)
    with pytest.raises(NodeRefusedError):
        await open_session(stores, node.node_id)
    assert await stores.directory.revoke_node(node.node_id, now_ms=NOW + 1) == after + 1
    assert session.generation == 2


async def test_a_slot_number_is_never_used_again(stores):
    node = await given_node(stores, workloads=2)
    assert await stores.directory.retire_workload(node.workload_ids[1], now_ms=NOW + 9)
    assert not await stores.directory.retire_workload(node.workload_ids[1], now_ms=NOW + 10)
    added = await stores.directory.add_workload(node.node_id, name="late", now_ms=NOW + 11)
    assert (added.slot, added.row, added.name, added.created_ms) == (2, node.row, "late", NOW + 11)
    spec, session, _ = await open_session(stores, node.node_id)
    assert session.slots == 0b101
    assert [(slot.slot, slot.retired_ms) for slot in spec.slots] == [(0, None), (1, NOW + 9), (2, None)]
    listed = await stores.directory.node(node.node_id)
    assert listed.workload_ids == (node.workload_ids[0], added.workload_id)
    assert (await stores.directory.workload(node.workload_ids[1])).retired_ms == NOW + 9


async def test_the_65th_slot_is_refused_and_the_64th_has_the_highest_bit(stores):
    node = await given_node(stores, workloads=63)
    await stores.directory.add_workload(node.node_id, name="64th", now_ms=NOW)
    with pytest.raises(RowFullError):
        await stores.directory.add_workload(node.node_id, name="65th", now_ms=NOW)
    _, session, _ = await open_session(stores, node.node_id)
    assert session.slots == 2**64 - 1


async def test_a_row_without_workloads_has_an_empty_map(stores):
    _, session, _ = await open_session(stores, (await given_node(stores, workloads=0)).node_id)
    assert session.slots == 0


async def test_capabilities_rotate_alone(stores):
    node = await given_node(stores)
    _, session, position = await open_session(stores, node.node_id)
    found, generation = await stores.directory.rotate_capability(node.node_id, now_ms=NOW)
    assert (found, generation) == (await stores.directory.node(node.node_id), 1)
    assert (await stores.directory.rotate_capability(node.node_id, now_ms=NOW))[1] == 2
    _, (spec,) = await stores.registry.changes(position, shard=0, shards=1)
    assert (spec.capability_generation, spec.current) == (2, session)


async def test_a_window_is_of_a_node_or_of_a_workload_on_it(stores):
    node, other = await given_node(stores), await given_node(stores)
    window = {"from_ms": NOW + 10, "to_ms": NOW + 60_010, "now_ms": NOW}
    whole = await stores.directory.open_window(node.node_id, None, own=True, **window)
    part = await stores.directory.open_window(node.node_id, node.workload_ids[0], own=False, **window)
    with pytest.raises(NodeRefusedError):
        await stores.directory.open_window(node.node_id, other.workload_ids[0], own=False, **window)
    with pytest.raises(NodeRefusedError):
        await stores.directory.open_window(node.node_id, new_id(), own=False, **window)
    assert (whole.workload_id, whole.own, whole.from_ms, whole.to_ms) == (
        None,
        True,
        NOW + 10,
        NOW + 60_010,
    )
    spec, _, _ = await open_session(stores, node.node_id)
    assert set(spec.windows) == {whole, part}


TOMORROW = (NOW // DAY_MS + 1) * DAY_MS


async def open_tomorrow(
    stores, node_id: str, begin: int, length: int, workload_id: str | None = None, **more
):
    """A window of so many minutes, which begins so many minutes after tomorrow's midnight."""
    from_ms = TOMORROW + begin * 60_000
    given = {"from_ms": from_ms, "to_ms": from_ms + length * 60_000, "own": False, "now_ms": NOW}
    return await stores.directory.open_window(node_id, workload_id, **{**given, **more})


async def test_sixty_minutes_of_windows_per_workload_and_day_are_opened_and_no_more(stores):
    node = await given_node(stores, workloads=2)
    first, second = node.workload_ids
    await open_tomorrow(stores, node.node_id, 0, 30)
    await open_tomorrow(
        stores, node.node_id, 20, 30, first, own=True
    )  # 50 minutes of the first, 30 of the second
    for begin, length, workload_id in ((100, 11, first), (100, 31, second), (100, 11, None)):
        with pytest.raises(WindowRefusedError, match="shorten it or choose another day"):
            await open_tomorrow(stores, node.node_id, begin, length, workload_id)
    await open_tomorrow(stores, node.node_id, 100, 30, second)
    await open_tomorrow(stores, node.node_id, 100, 10, first)
    await open_tomorrow(stores, node.node_id, 1_440, 60)  # another day
    await open_tomorrow(stores, (await given_node(stores)).node_id, 0, 60)  # another node
    spec, _, _ = await open_session(stores, node.node_id)
    assert len(spec.windows) == 5


async def test_of_windows_opened_at_once_no_more_pass_than_may(stores):
    node = await given_node(stores)
    outcomes: list[str] = []

    async def attempt(number: int) -> None:
        try:
            await open_tomorrow(stores, node.node_id, number * 100, 25)
        except WindowRefusedError:
            outcomes.append("refused")
        else:
            outcomes.append("opened")

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(attempt, number)
    assert sorted(outcomes) == ["opened"] * 2 + ["refused"] * 6


async def test_a_late_window_an_empty_one_and_too_long_an_update_are_refused_and_leave_nothing(stores):
    node = await given_node(stores)
    for begin, length, more in (
        (0, 5, {"now_ms": TOMORROW + 1}),
        (0, 0, {}),
        (0, 11, {"update": True}),
        (0, 5, {"update": True, "own": True}),
    ):
        with pytest.raises(WindowRefusedError):
            await open_tomorrow(stores, node.node_id, begin, length, **more)
    kept = await open_tomorrow(stores, node.node_id, 0, 10, update=True)
    spec, _, _ = await open_session(stores, node.node_id)
    assert spec.windows == (kept,)


async def test_twenty_four_windows_of_a_workload_and_day_are_opened_and_no_more(stores):
    node = await given_node(stores, workloads=2)
    for number in range(24):
        await open_tomorrow(stores, node.node_id, number * 2, 1, node.workload_ids[0])
    for workload_id in (node.workload_ids[0], None):
        with pytest.raises(WindowRefusedError, match="24 at most"):
            await open_tomorrow(stores, node.node_id, 100, 1, workload_id)
    await open_tomorrow(stores, node.node_id, 100, 1, node.workload_ids[1])


async def test_windows_of_a_retired_workload_count_for_nobody(stores):
    node = await given_node(stores, workloads=2)
    await open_tomorrow(stores, node.node_id, 0, 60, node.workload_ids[0])
    with pytest.raises(WindowRefusedError):
        await open_tomorrow(stores, node.node_id, 100, 60)
    await stores.directory.retire_workload(node.workload_ids[0], now_ms=NOW)
    await open_tomorrow(stores, node.node_id, 100, 60)


async def clones(stores):
    events = await stores.history.events(project_id=None, after=0, limit=100)
    return [event for _, event in events if event.kind == "node.clone"]


async def test_two_managers_that_take_turns_are_told_of_once_an_hour(stores):
    node, other = await given_node(stores), await given_node(stores)
    minute_ms = 60_000
    for minute in (*range(8), 80, 81, 82, 83):
        address = "192.0.2.1" if minute % 2 else "192.0.2.2"
        at_ms = NOW + minute * minute_ms
        await open_session(stores, node.node_id, now_ms=at_ms, manager_version="1.0", client_address=address)
        await open_session(
            stores, other.node_id, now_ms=at_ms, manager_version="1.0", client_address="192.0.2.3"
        )
    first, second = await clones(stores)
    assert (first.node_id, first.project_id) == (node.node_id, node.project_id)
    assert (first.since_ms, first.at_ms) == (NOW + minute_ms, NOW + 3 * minute_ms)
    assert first.detail == (
        "two managers take turns at opening sessions: 192.0.2.1 (version 1.0) and 192.0.2.2 (version 1.0)"
    )
    assert (second.since_ms, second.at_ms) == (NOW + 80 * minute_ms, NOW + 82 * minute_ms)
    assert first.event_id != second.event_id
