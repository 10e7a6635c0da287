"""Changes of a kind on their way to many nodes: in chunks, by several workers, through an outage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from engine.core.orders import Worked
from engine.core.people import Act
from engine.core.ports import NewNode, NodeRecord, StoreUnavailableError
from engine.core.rollout import admits
from storage.ids import new_id
from storage.open import AllStores
from worker.rollouts import NODES_PER_CHUNK, RolloutFollower

T0 = 1_790_000_000_000
NODES = 60


def act() -> Act:
    return Act(actor="key:test", now_ms=T0, request_id="", made_id=new_id())


class Fleet:
    """A kind, and nodes with one workload of it each; all have a session and have fetched."""

    def __init__(self, stores: AllStores) -> None:
        self.stores = stores
        self.nodes: list[NodeRecord] = []
        self.kind_id = ""
        self._position = 0

    async def fill(self) -> None:
        project = await self.stores.directory.create_project("alpha", now_ms=T0)
        kind = await self.stores.catalog.create_kind(act(), project.project_id, slug="gateway", name="")
        self.kind_id = kind.kind_id
        new = [
            NewNode(project.project_id, f"n{i}", "node", bytes(32), 1_000, ("w0",), (kind.kind_id,))
            for i in range(NODES)
        ]
        self.nodes = await self.stores.directory.create_nodes(new, now_ms=T0)
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(self.open_session, node)
        for node in self.nodes:
            await self.stores.orders.fetch(node.node_id, now_ms=T0)
        await self.told()

    async def open_session(self, node: NodeRecord) -> None:
        await self.stores.directory.open_session(
            node.node_id,
            nonce=new_id(),
            nonce_expires_ms=T0 + 300_000,
            rate_per_min=10,
            now_ms=T0,
            life_ms=86_400_000,
            secret_id=1,
        )

    async def offer(self, version: str, percent: int) -> str:
        made = await self.stores.catalog.create_version(
            act(), self.kind_id, version=version, manifest="{}", rollout_percent=percent
        )
        return made.version_id

    async def told(self) -> dict[str, bool]:
        """What engines have heard of the nodes since the last look: resync by node id."""
        self._position, specs = await self.stores.registry.changes(self._position, shard=0, shards=1)
        return {spec.node_id: spec.resync for spec in specs}

    def admitted(self, version_id: str, percent: int) -> set[str]:
        return {
            node.node_id for node in self.nodes if admits(version_id, node.node_id, rollout_percent=percent)
        }


@pytest.fixture
async def fleet(stores: AllStores) -> Fleet:
    made = Fleet(stores)
    await made.fill()
    return made


async def work_off(stores: AllStores, *, nodes: int) -> list[Worked]:
    done = []
    while worked := await stores.rollouts.work(nodes=nodes, now_ms=T0):
        done.append(worked)
    return done


async def test_a_rollout_is_told_to_those_that_it_reaches_and_announced_for_no_other(fleet: Fleet):
    version_id = await fleet.offer("1.0.0", 30)
    done = await work_off(fleet.stores, nodes=7)
    assert sum(worked.nodes for worked in done) == NODES
    assert max(worked.nodes for worked in done) == 7
    reached = fleet.admitted(version_id, 30)
    assert 5 < len(reached) < 35
    assert await fleet.told() == dict.fromkeys(reached, True)


async def test_a_growing_rollout_is_told_to_those_that_it_newly_reaches(fleet: Fleet):
    version_id = await fleet.offer("1.0.0", 30)
    await work_off(fleet.stores, nodes=100)
    await fleet.told()
    await fleet.stores.catalog.change_version(act(), version_id, rollout_percent=60)
    await work_off(fleet.stores, nodes=100)
    new = fleet.admitted(version_id, 60) - fleet.admitted(version_id, 30)
    assert await fleet.told() == dict.fromkeys(new, True)


async def test_a_shrinking_rollout_takes_back_what_was_not_fetched_and_tells_who_had(fleet: Fleet):
    version_id = await fleet.offer("1.0.0", 60)
    await work_off(fleet.stores, nodes=100)
    fetched = sorted(fleet.admitted(version_id, 60) - fleet.admitted(version_id, 30))[0]
    await fleet.stores.orders.fetch(fetched, now_ms=T0)
    await fleet.told()
    await fleet.stores.catalog.change_version(act(), version_id, rollout_percent=30)
    await work_off(fleet.stores, nodes=100)
    back = fleet.admitted(version_id, 60) - fleet.admitted(version_id, 30) - {fetched}
    assert await fleet.told() == {**dict.fromkeys(back, False), fetched: True}


async def test_a_change_that_comes_while_another_is_worked_off_begins_again(fleet: Fleet):
    first = await fleet.offer("1.0.0", 100)
    assert await fleet.stores.rollouts.work(nodes=40, now_ms=T0) == Worked(40, 40, 0)
    await fleet.stores.catalog.change_version(act(), first, rollout_percent=0)
    await work_off(fleet.stores, nodes=40)
    told = await fleet.told()
    assert set(told.values()) == {False}
    assert len(told) == 40  # the others never heard of it


async def test_two_workers_do_it_together_once(fleet: Fleet):
    version_id = await fleet.offer("1.0.0", 50)
    done: list[Worked] = []

    async def one() -> None:
        done.extend(await work_off(fleet.stores, nodes=5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    # Whoever finds the task taken goes; so one may have done it all, and nothing is done twice.
    assert sum(worked.nodes for worked in done) == NODES
    assert sum(worked.changed for worked in done) == len(fleet.admitted(version_id, 50))
    assert await fleet.told() == dict.fromkeys(fleet.admitted(version_id, 50), True)


async def test_revoked_and_retired_nodes_and_other_kinds_are_left_alone(fleet: Fleet):
    revoked, emptied = fleet.nodes[0], fleet.nodes[1]
    await fleet.stores.directory.revoke_node(revoked.node_id, now_ms=T0)
    await fleet.stores.directory.retire_workload(emptied.workload_ids[0], now_ms=T0)
    await fleet.told()
    await fleet.offer("1.0.0", 100)
    await work_off(fleet.stores, nodes=100)
    assert set(await fleet.told()) == {node.node_id for node in fleet.nodes[2:]}


async def test_sessions_open_while_a_change_is_worked_off(fleet: Fleet):
    version_id = await fleet.offer("1.0.0", 100)
    async with trio.open_nursery() as nursery:
        for node in fleet.nodes[:20]:
            nursery.start_soon(fleet.open_session, node)
        await work_off(fleet.stores, nodes=10)
    await fleet.stores.catalog.change_version(act(), version_id, rollout_percent=0)
    await work_off(fleet.stores, nodes=100)
    assert not any((await fleet.told()).values())


class Scripted:
    """A port that does what it is told, one step per call, and then ends the run."""

    def __init__(self, *steps: Worked | Exception | None, then: Callable[[], None]) -> None:
        self.steps, self.then, self.asked = list(steps), then, 0

    async def work(self, *, nodes: int, now_ms: int) -> Worked | None:
        assert (nodes, now_ms) == (NODES_PER_CHUNK, T0)
        self.asked += 1
        if not self.steps:
            self.then()
            await trio.sleep_forever()
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


async def run_until_done(*steps: Worked | Exception | None) -> tuple[RolloutFollower, Scripted]:
    with trio.CancelScope() as scope:
        port = Scripted(*steps, then=scope.cancel)
        follower = RolloutFollower(rollouts=port, now_ms=lambda: T0, poll_s=0.25)
        await follower.run()
    return follower, port


async def took(run: Awaitable[object]) -> float:
    before = trio.current_time()
    await run
    return trio.current_time() - before


async def test_chunks_follow_one_another_and_then_it_waits(autojump_clock: trio.testing.MockClock):
    assert await took(run_until_done(Worked(500, 3, 0), Worked(500, 2, 1), Worked(0, 0, 0))) == 0
    assert await took(run_until_done(None, None)) == 0.5
    follower, port = await run_until_done(Worked(500, 3, 0), Worked(10, 2, 1), Worked(0, 0, 0), None)
    assert port.asked == 5
    told = follower.statistics()
    assert (told.chunks_total, told.nodes_total, told.told_total, told.below_minimum_total) == (3, 510, 5, 1)


async def test_an_outage_is_waited_for(autojump_clock: trio.testing.MockClock):
    away = StoreUnavailableError("away")
    follower, port = await run_until_done(away, away, Worked(1, 1, 0))
    assert port.asked == 4
    assert follower.statistics().told_total == 1
    assert follower.statistics().store_away == 0
