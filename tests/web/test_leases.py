"""Licence leases as Postgres keeps them: settled from what shards and people said, read by the API."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.leases import Settling
from engine.core.records import Say, SlotSpec
from storage.ids import new_id
from tests.contract.given import batch
from tests.web.control import Control
from web.main import system_ms

SHARDS = 2
FAR_MS = 10**15


class Trial:
    """Three workloads of alpha: two of its node, one of another; one licence."""

    def __init__(self, control: Control, licence_id: str, runs: list[str]) -> None:
        self.control, self.stores = control, control.stores
        self.licence_id, self.runs = licence_id, runs
        self.begin_ms = system_ms()
        self._position = 1

    async def bind(self, run: str, licence_id: str | None, *, by: str = "owner") -> None:
        body = {"licence_id": licence_id}
        answer = await self.control.ask("PATCH", f"/v1/workloads/{run}", by=by, json=body)
        assert answer.status == 200, answer.json

    async def say(self, *says: tuple[int, str, str], shard: int = 0) -> None:
        """(ms after the beginning, what, run)"""
        self._position += 1
        said = tuple(Say(run, self.begin_ms + at_ms, what) for at_ms, what, run in says)
        await self.stores.history.flush(batch(shard=shard, position=self._position, says=said))

    async def told(self, shard: int, at_ms: int) -> None:
        self._position += 1
        now_ms = self.begin_ms + at_ms
        await self.stores.history.flush(batch(shard=shard, position=self._position, leases_ms=now_ms))

    async def settle(self, at_ms: int | None = None) -> Settling:
        """Settle; with a time once all shards have told of it."""
        if at_ms is not None:
            for shard in range(SHARDS):
                await self.told(shard, at_ms)
        return await self.stores.lease_settling.settle(shards=SHARDS, now_ms=system_ms())

    async def held(self) -> list[tuple[str, int, int | None, str]]:
        found = await self.stores.leases.history(self.licence_id, after_epoch=0, limit=100)
        return [
            (one.holder_id, one.from_ms - self.begin_ms, self.after(one.to_ms), one.ended) for one in found
        ]

    async def waited(self, run: str) -> list[tuple[int, int | None]]:
        """Standby spans as everyone who reads uptime finds them."""
        found = await self.stores.history.leases(run, 0, FAR_MS)
        return [(one.from_ms - self.begin_ms, self.after(one.to_ms)) for one in found]

    def after(self, at_ms: int | None) -> int | None:
        return None if at_ms is None else at_ms - self.begin_ms


@pytest.fixture
async def trial(control: Control) -> Trial:
    licence_id = await add_licence(control, 1)
    added = await control.stores.directory.add_workload(control.node.node_id, name="w2", now_ms=system_ms())
    made = Trial(control, licence_id, sorted([*control.node.workload_ids, added.workload_id]))
    for run in made.runs:
        await made.bind(run, licence_id)
    made.begin_ms = system_ms() + 1_000
    return made


async def add_licence(control: Control, token: int) -> str:
    licence_id, collection_id = new_id(), new_id()
    await control.sql(
        """
        insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
        values ($1, $2, 1, $3, 'erc721', 'licences', 0)
        """,
        collection_id,
        control.alpha.project_id,
        f"0x{token:040x}",
    )
    await control.sql(
        """
        insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)
        values ($1, $2, $3, $4, $5, 0)
        """,
        licence_id,
        collection_id,
        control.alpha.project_id,
        token,
        "0x" + "ab" * 20,
    )
    return licence_id


async def spec_of(trial: Trial, run: str) -> SlotSpec:
    """As engines are told."""
    async for page in trial.stores.registry.load(shard=0, shards=1):
        for spec in page:
            for slot in spec.slots:
                if slot.workload_id == run:
                    return slot
    raise AssertionError


async def test_what_another_shard_may_still_say_is_waited_for(trial: Trial):
    a, b, c = trial.runs
    await trial.say((10, "claim", b), shard=0)
    await trial.told(0, 20)
    assert await trial.settle() == Settling(says=0, changes=0, waiting=True)
    await trial.say((5, "claim", a), shard=1)
    await trial.told(1, 20)
    done = await trial.settle()
    assert (done.changes, done.waiting) == (1, False)
    assert await trial.held() == [(a, 5, None, "")]
    assert [await trial.waited(run) for run in (a, b, c)] == [[], [(5, None)], [(5, None)]]
    assert await trial.settle() == Settling(says=0, changes=0, waiting=False)


async def test_a_handover_closes_the_standbys_of_one_epoch_and_opens_those_of_the_next(trial: Trial):
    a, b, c = trial.runs
    await trial.say((1, "claim", a), (4, "claim", b))
    await trial.settle(20)
    await trial.say((30, "stopped", a), (33, "claim", b))
    await trial.settle(40)
    assert await trial.held() == [(a, 1, 30, "stopped"), (b, 33, None, "")]
    assert await trial.waited(a) == [(33, None)]
    assert await trial.waited(b) == [(1, 30)]
    assert await trial.waited(c) == [(1, 30), (33, None)]
    found = (await trial.stores.leases.standbys_during([b, c], 0, FAR_MS))[b]
    assert [(one.holder_id, one.epoch, trial.after(one.claimed_ms)) for one in found] == [(a, 1, 4)]
    holders = await trial.stores.leases.holders_during(
        [trial.licence_id], trial.begin_ms + 30, trial.begin_ms + 34
    )
    assert [one.epoch for one in holders[trial.licence_id]] == [2]


async def test_engines_are_told_who_holds_and_who_stands_by(trial: Trial):
    a, b, _ = trial.runs
    before = await trial.stores.registry.position()
    assert (await spec_of(trial, a)).licensed
    await trial.say((1, "claim", a))
    await trial.settle(20)
    assert await trial.stores.registry.position() > before
    holder, other = await spec_of(trial, a), await spec_of(trial, b)
    assert (holder.licensed, holder.held_from_ms - trial.begin_ms, holder.standby) == (True, 1, False)
    assert (other.licensed, other.held_from_ms, other.standby) == (True, 0, True)


async def test_the_conflict_is_told_once_per_epoch_with_licence_and_holder(trial: Trial):
    a, b, _ = trial.runs
    await trial.say((1, "claim", a), (4, "claim", b), (6, "claim", b))
    await trial.settle(20)
    await trial.say((24, "claim", b))
    await trial.settle(30)
    events = await trial.stores.history.events(
        project_id=trial.control.alpha.project_id, after=0, limit=1_000
    )
    told = [event for _, event in events if event.kind == "licence.conflict"]
    assert [(one.workload_id, one.since_ms - trial.begin_ms) for one in told] == [(b, 4)]
    assert trial.licence_id in told[0].detail
    assert a in told[0].detail


async def test_who_is_bound_while_another_holds_it_stands_by_and_who_is_unbound_does_not(trial: Trial):
    a, b, c = trial.runs
    await trial.bind(c, None)
    trial.begin_ms = system_ms()
    await trial.say((1, "claim", a))
    await trial.settle(1)
    assert await trial.waited(b) == [(1, None)]
    assert await trial.waited(c) == []
    await trial.bind(c, trial.licence_id)
    await trial.bind(b, None)
    bindings = await trial.stores.leases.bindings_during([a, b, c], 0, FAR_MS)
    assert [len(bindings[run]) for run in (a, b, c)] == [1, 1, 2]
    bound_ms, unbound_ms = bindings[c][1].from_ms - trial.begin_ms, trial.after(bindings[b][0].to_ms)
    assert await trial.settle(2) == Settling(says=0, changes=0, waiting=True)
    assert await trial.waited(c) == []  # not decided yet
    await trial.settle(60_000)
    assert await trial.waited(c) == [(bound_ms, None)]
    assert await trial.waited(b) == [(1, unbound_ms)]


async def test_retiring_the_holder_ends_its_lease_when_it_is_recorded(trial: Trial):
    a, b, _ = trial.runs
    trial.begin_ms = system_ms()
    await trial.say((1, "claim", a))
    await trial.settle(1)
    answer = await trial.control.ask("POST", f"/v1/workloads/{a}/retire", by="owner")
    assert answer.status == 200
    await trial.say((60_000, "claim", b))
    await trial.settle(60_001)
    held = await trial.held()
    assert [(run, ended) for run, _, _, ended in held] == [(a, "retired"), (b, "")]
    assert held[0][2] is not None
    assert held[0][2] < 60_000
    retired = await spec_of(trial, a)
    assert (retired.licensed, retired.standby) == (False, False)
    [binding] = (await trial.stores.leases.bindings_during([a], 0, FAR_MS))[a]
    assert binding.to_ms is not None


async def test_a_retired_node_lets_the_licences_of_all_its_workloads_go(trial: Trial):
    a, _, _ = trial.runs
    trial.begin_ms = system_ms()
    await trial.say((1, "claim", a))
    await trial.settle(1)
    answer = await trial.control.ask("POST", f"/v1/nodes/{trial.control.node.node_id}/retire", by="owner")
    assert answer.status == 200
    await trial.settle(60_000)
    assert [ended for *_, ended in await trial.held()] == ["retired"]
    assert [to_ms is not None for to_ms in [(await trial.waited(run))[0][1] for run in trial.runs[1:]]] == [
        True,
        True,
    ]


async def test_how_far_leases_are_decided_waits_for_every_shard_and_every_say(trial: Trial):
    leases, a = trial.stores.leases, trial.runs[0]
    assert await leases.decided_ms(shards=SHARDS) == 0
    await trial.settle(50)
    assert await leases.decided_ms(shards=SHARDS) == trial.begin_ms + 50
    assert await leases.decided_ms(shards=SHARDS + 1) == 0
    await trial.say((40, "claim", a))
    assert await leases.decided_ms(shards=SHARDS) == trial.begin_ms + 39
    await trial.settle(60)
    assert await leases.decided_ms(shards=SHARDS) == trial.begin_ms + 60


async def test_what_is_flushed_and_settled_twice_changes_nothing(trial: Trial):
    a, b, _ = trial.runs
    says: Any = [(1, "claim", a), (4, "claim", b), (9, "lost", a), (12, "claim", b)]
    await trial.say(*says)
    await trial.say(*says)
    await trial.settle(20)
    held, waited = await trial.held(), await trial.waited(a)
    await trial.say(*says)
    await trial.settle(30)
    assert (await trial.held(), await trial.waited(a)) == (held, waited)
    assert held == [(a, 1, 9, "lost"), (b, 12, None, "")]


async def test_the_api_tells_leases_to_those_who_see_the_licence(trial: Trial):
    a, b, _ = trial.runs
    await trial.say((1, "claim", a), (30, "stopped", a), (33, "claim", b))
    await trial.settle(40)
    path = f"/v1/licences/{trial.licence_id}/leases"
    answer = await trial.control.ask("GET", path, by="owner")
    assert [(one["epoch"], one["holder_id"], one["ended"]) for one in answer.json["items"]] == [
        (1, a, "stopped"),
        (2, b, None),
    ]
    assert (await trial.control.ask("GET", path, by="foreign")).status == 404
    assert (await trial.control.ask("GET", f"{path}?after=1'--", by="owner")).status == 400
