"""Sealing over real stores: what is sealed, when, and that it is sealed once."""

from __future__ import annotations

from storage.open import AllStores
from tests.sealing import new_sealer, seal_a_day, tell_view


async def _project(stores: AllStores) -> str:
    return (await stores.directory.create_project("alpha", now_ms=1)).project_id


async def test_a_day_is_sealed_with_a_row_for_each_workload(stores: AllStores) -> None:
    await tell_view(stores)
    day = await seal_a_day(stores, await _project(stores), nodes=2, workloads=3)
    assert day.seal is not None
    rows = await stores.seals.rows(day.seal, after_place=-1, limit=100)
    assert [row.workload_id for _, row in rows] == day.workload_ids
    assert all(sum(row.ms) == 86_400_000 for _, row in rows)
    assert await new_sealer(stores).run_once() == []
