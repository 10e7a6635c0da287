"""Who owns a licence binds it on a machine of theirs, and so takes it from others; nobody else does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.ports import NewNode, NodeRecord
from tests.web.control import Answered, Control
from tests.web.test_leases import add_licence
from web.main import system_ms


class Sale:
    """Olga's licence, bound on her machine; sam has a machine in that project, too. Then sam buys it."""

    def __init__(self, control: Control, licence_id: str, bought: NodeRecord) -> None:
        self.control, self.licence_id = control, licence_id
        self.olgas, self.sams = control.node.workload_ids[0], bought.workload_ids[0]
        self.node = bought

    async def own(self, name: str, licence_id: str = "") -> None:
        await self.control.sql(
            "update licence set owner = (select wallet from account where user_id = $1)"
            " where licence_id = $2",
            self.control.users[name],
            licence_id or self.licence_id,
        )

    async def bind(self, run: str, by: str, licence_id: str = "") -> Answered:
        body = {"licence_id": licence_id or self.licence_id}
        return await self.control.ask("PATCH", f"/v1/workloads/{run}", by=by, json=body)

    async def bound(self, licence_id: str = "") -> set[str]:
        """By the history of bindings, and by the workloads themselves: both say the same."""
        licence_id = licence_id or self.licence_id
        bindings = await self.control.sql(
            "select workload_id::text from licence_binding where licence_id = $1 and to_ms is null",
            licence_id,
        )
        runs = await self.control.sql(
            "select workload_id::text from workload where licence_id = $1", licence_id
        )
        assert {one[0] for one in bindings} == {one[0] for one in runs}
        return {one[0] for one in runs}

    async def entries(self) -> list[tuple[str, str]]:
        found = await self.control.stores.audit.entries(project_id=None, after=0, limit=1_000)
        return [(one.subject, one.detail) for one in found if one.action == "licence.take"]


@pytest.fixture
async def sale(control: Control) -> Sale:
    licence_id = await add_licence(control, 1)
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    new = NewNode(
        control.alpha.project_id, "sams", "node", public, 60_000, ("w0",), (), control.users["sam"], "eu"
    )
    (node,) = await control.stores.directory.create_nodes([new], now_ms=system_ms())
    made = Sale(control, licence_id, node)
    await made.own("olga")
    assert (await made.bind(made.olgas, "olga")).status == 200
    await made.own("sam")
    return made


async def test_the_new_owner_binds_it_and_the_sellers_machine_and_its_engine_hear_of_it(sale: Sale) -> None:
    before = await sale.control.stores.registry.position()
    assert (await sale.bind(sale.sams, "sam")).status == 200
    assert await sale.bound() == {sale.sams}
    _, changed = await sale.control.stores.registry.changes(before, shard=0, shards=1)
    (spec,) = [one for one in changed if one.row == sale.control.node.row]
    assert not any(slot.licensed for slot in spec.slots)
    ((subject, detail),) = await sale.entries()
    assert subject == sale.licence_id
    assert sale.olgas in detail
    assert sale.sams in detail
    assert await sale.control.stores.audit.first_broken() is None
    assert (await sale.bind(sale.sams, "sam")).status == 200
    assert len(await sale.entries()) == 1  # nothing is taken twice


@pytest.mark.parametrize("how", ["workload", "node"])
async def test_it_is_taken_by_registering_what_shall_run_under_it(sale: Sale, how: str) -> None:
    await sale.control.sql(
        "insert into workload_kind (kind_id, project_id, slug, name, created_ms)"
        " values (gen_random_uuid(), $1, 'k', 'k', 1)",
        sale.control.alpha.project_id,
    )
    run = {"kind": "k", "name": "w", "licence_id": sale.licence_id}
    if how == "workload":
        made = await sale.control.ask("POST", f"/v1/nodes/{sale.node.node_id}/workloads", by="sam", json=run)
    else:
        key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        body = {"project": "alpha", "name": "n", "public_key": key, "workloads": [run]}
        made = await sale.control.ask("POST", "/v1/nodes", by="sam", json=body)
    assert made.status == 201, made
    run_id = made.json["workload_id"] if how == "workload" else made.json["workloads"][0]["workload_id"]
    assert await sale.bound() == {run_id}
    assert len(await sale.entries()) == 1


async def test_the_owner_takes_what_the_project_had_bound_for_them_beside_the_seller(sale: Sale) -> None:
    assert (await sale.bind(sale.sams, "owner")).status == 200
    assert await sale.bound() == {sale.olgas, sale.sams}  # the project binds beside
    assert (await sale.bind(sale.sams, "sam")).status == 200
    assert await sale.bound() == {sale.sams}
    assert (await sale.bind(sale.olgas, "owner")).status == 200
    assert await sale.bound() == {sale.olgas, sale.sams}


async def test_nobody_but_the_owner_takes_and_only_for_a_machine_of_theirs(sale: Sale) -> None:
    await sale.own("paul")  # who runs the project, and owns the licence, but not that machine
    assert (await sale.bind(sale.sams, "paul")).status == 200
    assert await sale.bound() == {sale.olgas, sale.sams}
    await sale.own("olga")
    assert (await sale.bind(sale.sams, "sam")).status == 200  # as it is: nothing to change, nothing taken
    assert await sale.bound() == {sale.olgas, sale.sams}
    other = await add_licence(sale.control, 2)
    refused: dict[str, Any] = (await sale.bind(sale.sams, "sam", other)).json
    assert refused["code"] == "unknown_reference"
    assert await sale.entries() == []


async def test_one_owner_runs_on_two_machines_of_theirs_as_they_like(sale: Sale) -> None:
    """The second stands by, as ever."""
    await sale.own("olga")
    assert (await sale.bind(sale.control.node.workload_ids[1], "olga")).status == 200
    assert await sale.bound() == set(sale.control.node.workload_ids[:2])


async def test_two_who_take_from_each_other_at_once_both_get_theirs(sale: Sale) -> None:
    second = await add_licence(sale.control, 2)
    for _ in range(5):
        await sale.control.sql("update workload set licence_id = null")
        await sale.control.sql("delete from licence_binding")
        assert (await sale.bind(sale.olgas, "owner", sale.licence_id)).status == 200
        assert (await sale.bind(sale.sams, "owner", second)).status == 200
        await sale.own("olga", second)
        statuses: list[int] = []

        async def take(run: str, by: str, licence_id: str, into: list[int] = statuses) -> None:
            into.append((await sale.bind(run, by, licence_id)).status)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take, sale.sams, "sam", sale.licence_id)
                nursery.start_soon(take, sale.olgas, "olga", second)
        assert statuses == [200, 200]
        assert await sale.bound() == {sale.sams}
        assert await sale.bound(second) == {sale.olgas}
