"""Points are committed all or nothing, once per project and day, on both stores."""

from __future__ import annotations

import pytest

from engine.core.ledger import AlreadyCommittedError, KeyReusedError, PointsRow
from tests.contract.given import NOW, given_node, given_project

DAY = "2026-10-31"


async def commit(stores, project_id: str, *points: tuple[str, int], day=DAY, key="k1", body=b"b" * 32):
    rows = [PointsRow(workload_id, micro) for workload_id, micro in points]
    return await stores.ledger.commit(
        project_id, day, rows, idempotency_key=key, body_sha256=body, now_ms=NOW
    )


async def test_a_commit_says_what_it_holds(stores):
    project = await given_project(stores)
    one, two = (await given_node(stores, project, workloads=2)).workload_ids
    made, fresh = await commit(stores, project, (one, 5_000_000), (two, 2**62))
    assert fresh
    assert (made.project_id, made.day, made.rows, made.committed_ms) == (project, DAY, 2, NOW)
    assert made.total_micro_points == 5_000_000 + 2**62


async def test_the_same_key_and_body_again_is_the_stored_commit(stores):
    project = await given_project(stores)
    (one,) = (await given_node(stores, project)).workload_ids
    made, _ = await commit(stores, project, (one, 7))
    assert await commit(stores, project, (one, 7)) == (made, False)
    assert await stores.ledger.totals(project, day=None) == [
        ((await stores.directory.workload(one)).node_id, 7)
    ]


async def test_a_key_is_not_used_for_two_bodies_not_even_of_two_days(stores):
    project = await given_project(stores)
    await commit(stores, project, body=b"a" * 32)
    for day in (DAY, "2026-11-01"):
        with pytest.raises(KeyReusedError):
            await commit(stores, project, day=day, body=b"c" * 32)


async def test_a_day_is_committed_once(stores):
    project = await given_project(stores)
    await commit(stores, project, key="k1")
    with pytest.raises(AlreadyCommittedError):
        await commit(stores, project, key="k2")
    _, fresh = await commit(stores, project, key="k2", day="2026-11-01")
    assert fresh


async def test_projects_do_not_share_keys_or_days(stores):
    for slug in ("alpha", "beta"):
        _, fresh = await commit(stores, await given_project(stores, slug))
        assert fresh


async def test_a_workload_twice_commits_nothing(stores):
    project = await given_project(stores)
    (one,) = (await given_node(stores, project)).workload_ids
    with pytest.raises(ValueError, match="twice"):
        await commit(stores, project, (one, 1), (one, 2))
    assert await stores.ledger.totals(project, day=None) == []
    _, fresh = await commit(stores, project, (one, 1))
    assert fresh


async def test_totals_are_by_node_in_descending_order_for_a_day_or_for_all(stores):
    project = await given_project(stores)
    big, small = await given_node(stores, project, workloads=2), await given_node(stores, project)
    (lonely,) = small.workload_ids
    await commit(stores, project, (big.workload_ids[0], 10), (big.workload_ids[1], 5), (lonely, 14))
    await commit(stores, project, (lonely, 3), key="k2", day="2026-11-01")
    assert await stores.ledger.totals(project, day=DAY) == [(big.node_id, 15), (small.node_id, 14)]
    assert await stores.ledger.totals(project, day="2026-11-01") == [(small.node_id, 3)]
    assert await stores.ledger.totals(project, day=None) == [(small.node_id, 17), (big.node_id, 15)]
    assert await stores.ledger.totals(await given_project(stores, "beta"), day=None) == []
    assert await stores.ledger.totals("no-id", day=None) == []
