"""Whose a machine was and what ran on it, in a seal: what held at the day's end, whenever that is sealed."""

from __future__ import annotations

import pytest

from engine.core.people import Act
from engine.core.registration import Asker, NodeChange, WorkloadChange
from engine.core.sealed import DAY_MS, Seal
from storage.ids import new_id
from storage.open import AllStores
from tests.sealing import Day, make_day, seal_days, system_ms, tell_view, yesterday_ms
from tests.worker.test_sealer import sql

HOUR_MS = 3_600_000
PROJECT = Asker(user_id=None, runs_project=True)


def act(now_ms: int) -> Act:
    return Act(actor="admin", now_ms=now_ms, request_id="r", made_id=new_id())


class Was:
    """Yesterday of three nodes of one workload, all olga's and of kind small."""

    def __init__(self, stores: AllStores, day: Day, people: dict[str, str]) -> None:
        self.stores, self.day, self.people = stores, day, people

    async def make(self, number: int, kind: str, at_ms: int) -> None:
        change = WorkloadChange(kind=kind)
        await self.stores.registration.change_workload(
            self.day.workload_ids[number], change, act=act(at_ms), asker=PROJECT
        )

    async def give(self, number: int, to: str | None, at_ms: int) -> None:
        change = NodeChange(owner_id=None if to is None else self.people[to])
        await self.stores.registration.change_node(self.day.nodes[number].node_id, change, act=act(at_ms))

    async def told(self, seal: Seal) -> list[tuple[str | None, str | None]]:
        """Operator and kind, by the nodes' numbers."""
        rows = [row for _, row in await self.stores.seals.rows(seal, after_place=-1, limit=10)]
        names = {user_id: name for name, user_id in self.people.items()}
        by_node = {row.node_id: (names.get(row.operator_id or ""), row.kind) for row in rows}
        return [by_node[node.node_id] for node in self.day.nodes]


@pytest.fixture
async def was(stores: AllStores, postgres_url: str) -> Was:
    await tell_view(stores)
    project_id = (await stores.directory.create_project("alpha", now_ms=1)).project_id
    people, kinds = {}, {}
    for name in ("olga", "sam"):
        people[name] = new_id()
        await sql(
            postgres_url,
            "insert into account (user_id, created_ms, name, email) values ($1, 1, $2, $2 || '@example.org')",
            people[name],
            name,
        )
    for slug in ("small", "big", "huge"):
        kinds[slug] = new_id()
        await sql(
            postgres_url,
            "insert into workload_kind (kind_id, project_id, slug, name, created_ms)"
            " values ($1, $2, $3, $3, 1)",
            kinds[slug],
            project_id,
            slug,
        )
    day = await make_day(
        stores, project_id, nodes=3, workloads=1, owner_id=people["olga"], kind_ids=[kinds["small"]] * 3
    )
    return Was(stores, day, people)


async def test_a_change_after_midnight_is_nothing_to_the_day_that_is_over(was: Was) -> None:
    """An operator made a small thing a heavy one at ten past midnight, and was paid for a heavy day."""
    begin_ms, end_ms = was.day.day_ms, was.day.day_ms + DAY_MS
    await was.make(0, "big", begin_ms + HOUR_MS)
    await was.make(1, "huge", end_ms)
    await was.give(2, "sam", end_ms)
    await was.make(0, "huge", end_ms + 1)
    (seal,) = await seal_days(was.stores)
    assert await was.told(seal) == [("olga", "big"), ("olga", "small"), ("olga", "small")]


async def test_a_correction_takes_what_held_on_its_day_too(was: Was) -> None:
    end_ms = was.day.day_ms + DAY_MS
    await was.give(0, None, end_ms - 1)
    await seal_days(was.stores)
    for number, later_ms in enumerate((end_ms, end_ms + HOUR_MS)):
        await was.make(1, ("big", "huge")[number], later_ms)
        await was.give(0, ("sam", "olga")[number], later_ms)
    await was.stores.corrections.correct(
        was.day.project_id, was.day.day, reason="again", grants=[], gap=None, act=act(system_ms())
    )
    (second,) = await seal_days(was.stores)
    assert second.revision == 2
    assert await was.told(second) == [(None, "small"), ("olga", "small"), ("olga", "small")]


async def test_of_a_workload_that_was_retired_its_last_moment_counts(was: Was) -> None:
    noon_ms = yesterday_ms() + 12 * HOUR_MS
    await was.make(0, "big", noon_ms - 1)
    await was.stores.registration.retire_workload(was.day.workload_ids[0], act=act(noon_ms))
    await was.give(0, "sam", noon_ms)
    (seal,) = await seal_days(was.stores)
    assert await was.told(seal) == [("olga", "big"), ("olga", "small"), ("olga", "small")]


async def test_of_changes_within_a_millisecond_only_what_held_before_and_after_is_kept(was: Was) -> None:
    end_ms = was.day.day_ms + DAY_MS
    await was.make(0, "big", end_ms)
    await was.make(0, "huge", end_ms)
    await was.make(0, "big", end_ms - HOUR_MS)  # a clock that went back: no later than what is known
    (seal,) = await seal_days(was.stores)
    assert await was.told(seal) == [("olga", "small")] * 3
