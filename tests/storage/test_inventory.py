"""The inventory in PostgreSQL: spans of owners by sets, who may bind, what is written once or not at all."""

from __future__ import annotations

import pytest

from engine.core.inventory import (
    Block,
    Collection,
    CollectionChange,
    CollectionExistsError,
    Licence,
    LicenceFilter,
    LicenceRefusedError,
    NewCollection,
    Pass,
    Token,
    WrongPresetError,
    check_binding,
)
from engine.core.people import Act
from engine.core.ports import NewNode
from engine.core.records import Say
from storage.ids import new_id
from storage.open import AllStores
from tests.contract.given import batch

ANN, BOB = "0x" + "a" * 40, "0x" + "b" * 40
CONTRACT = "0x" + "ab" * 20


def act(made_id: str = "") -> Act:
    return Act(actor="test", now_ms=1_000, request_id="r", made_id=made_id or new_id())


async def new(stores: AllStores, **fields: object) -> NewCollection:
    project = await stores.directory.create_project("alpha", now_ms=0)
    given = {"project_id": project.project_id, "chain_id": 1, "contract": CONTRACT, "standard": "erc721"}
    return NewCollection(**given | fields)


async def seen(stores: AllStores, of: Collection, number: int, *tokens: Token) -> None:
    """A whole pass at a block; its time is its number in seconds."""
    now = (await stores.inventory.collections_by_id([of.collection_id]))[of.collection_id]
    block = Block(number, f"0x{number:064x}", number * 1000)
    await stores.inventory_sync.apply(now, Pass(block=block, whole=True, seen=tokens), now_ms=number * 1000)


async def test_owners_during_a_window_are_told_for_many_licences_at_once(stores: AllStores):
    made = await stores.inventory.add_collection(await new(stores), act=act())
    await seen(stores, made, 10, Token(1, ANN), Token(2, ANN), Token(3, ANN))
    await seen(stores, made, 20, Token(1, BOB), Token(2, ANN), Token(3, None))
    await seen(stores, made, 30, Token(1, ANN), Token(2, ANN), Token(3, None))
    licences = await stores.inventory.licences(LicenceFilter(), after=None, limit=10)
    one, two, three = (licence.licence_id for licence in licences)

    async def during(from_s: int, to_s: int) -> dict[str, list[tuple[str, int, int | None]]]:
        found = await stores.inventory.owners_during([one, two, three, new_id()], from_s * 1000, to_s * 1000)
        return {key: [(row.owner, row.from_ms, row.to_ms) for row in rows] for key, rows in found.items()}

    first, second = (ANN, 0, 20_000), (BOB, 20_000, 30_000)
    everything = {
        one: [first, second, (ANN, 30_000, None)],
        two: [(ANN, 0, None)],
        three: [(ANN, 0, 20_000)],
    }
    assert await during(0, 100) == everything
    assert await during(15, 20) == {one: [first], two: [(ANN, 0, None)], three: [(ANN, 0, 20_000)]}
    assert await during(20, 30) == {one: [second], two: [(ANN, 0, None)]}
    assert await stores.inventory.owners_during([], 0, 1) == {}


async def test_a_sale_ends_the_lease_of_whoever_runs_under_the_licence_when_it_is_recorded(stores: AllStores):
    made = await stores.inventory.add_collection(await new(stores), act=act())
    await seen(stores, made, 10, Token(1, ANN), Token(2, ANN))
    licences = await stores.inventory.licences(LicenceFilter(), after=None, limit=10)
    one, two = (licence.licence_id for licence in licences)
    node = NewNode(made.project_id, "n", "node", b"k" * 32, 60_000, ("a", "b"), licence_ids=(one, two))
    [node_made] = await stores.directory.create_nodes([node], now_ms=11_000)
    says = tuple(Say(run, 12_000, "claim") for run in node_made.workload_ids)
    await stores.history.flush(batch(position=2, says=says, leases_ms=13_000))
    assert (await stores.lease_settling.settle(shards=1, now_ms=13_000)).changes == 2
    await seen(stores, made, 20, Token(1, BOB), Token(2, ANN))
    claim = Say(node_made.workload_ids[0], 25_000, "claim")
    await stores.history.flush(batch(position=3, says=(claim,), leases_ms=26_000))
    await stores.lease_settling.settle(shards=1, now_ms=26_000)

    async def held(licence_id: str) -> list[tuple[int, int, int | None, str]]:
        found = await stores.leases.history(licence_id, after_epoch=0, limit=9)
        return [(each.epoch, each.from_ms, each.to_ms, each.ended) for each in found]

    assert await held(one) == [(1, 12_000, 20_000, "sold"), (2, 25_000, None, "")]
    assert await held(two) == [(1, 12_000, None, "")]


async def test_a_collection_made_twice_by_one_act_is_one_and_by_two_is_refused(stores: AllStores):
    collection, once = await new(stores), act()
    made = await stores.inventory.add_collection(collection, act=once)
    assert await stores.inventory.add_collection(collection, act=once) == made
    with pytest.raises(CollectionExistsError):
        await stores.inventory.add_collection(collection, act=act())
    elsewhere = await stores.inventory.add_collection(await new(stores, chain_id=2), act=act())
    assert elsewhere.collection_id != made.collection_id
    entries = await stores.audit.entries(project_id=None, after=0, limit=10)
    assert [entry.subject for entry in entries] == [made.collection_id, elsewhere.collection_id]


async def test_another_source_makes_everything_be_read_again_and_keeps_what_is_known(stores: AllStores):
    made = await stores.inventory.add_collection(await new(stores), act=act())
    await seen(stores, made, 10, Token(1, ANN))
    change = CollectionChange(subgraph_url="https://example.org/graph")
    changed = await stores.inventory.change_collection(made.collection_id, change, act=act())
    assert changed is not None
    assert (changed.swept_ms, changed.synced_block) == (None, 10)
    assert await stores.inventory.change_collection(made.collection_id, change, act=act()) == changed
    entries = await stores.audit.entries(project_id=None, after=0, limit=10)
    assert [entry.action for entry in entries] == ["collection.create", "collection.change"]
    assert "example.org" not in entries[-1].detail
    assert await stores.inventory.change_collection(new_id(), change, act=act()) is None


async def test_balances_are_read_in_one_form_only(stores: AllStores):
    with pytest.raises(WrongPresetError):
        await stores.inventory.add_collection(await new(stores, standard="erc20", preset="eip721"), act=act())
    made = await stores.inventory.add_collection(await new(stores, standard="erc20"), act=act())
    with pytest.raises(WrongPresetError):
        await stores.inventory.change_collection(
            made.collection_id, CollectionChange(preset="custom"), act=act()
        )


async def test_a_pass_that_fails_halfway_leaves_nothing(stores: AllStores):
    made = await stores.inventory.add_collection(await new(stores), act=act())
    with pytest.raises(Exception, match=r"ownership_owner_check|licence_owner_check"):
        await seen(stores, made, 10, Token(1, ANN), Token(2, "nobody"))
    assert await stores.inventory.licences(LicenceFilter(), after=None, limit=10) == []
    there = await stores.inventory.collection(made.collection_id)
    assert there is not None
    assert there.synced_block is None


async def test_what_no_id_is_is_nothing(stores: AllStores):
    assert await stores.inventory.collection("x") is None
    assert await stores.inventory.licence("x") is None


def licence(**fields: object) -> Licence:
    given = {"licence_id": "l", "collection_id": "c", "project_id": "p", "token_id": 1, "owner": ANN}
    return Licence(**given | {"created_ms": 0, "retired_ms": None} | fields)


def test_one_who_runs_the_project_binds_any_of_its_licences_and_an_operator_their_own():
    check_binding(licence(), project_id="p", wallet=None, as_owner=True)
    check_binding(licence(), project_id="p", wallet=ANN, as_owner=False)


@pytest.mark.parametrize(
    ("given", "wallet", "as_owner"),
    [
        (None, ANN, True),
        (licence(project_id="q"), ANN, True),
        (licence(owner=None, retired_ms=1), ANN, True),
        (licence(), BOB, False),
        (licence(), None, False),
        (licence(owner=None), None, False),
    ],
)
def test_nobody_binds_what_is_anothers_or_burned(given: Licence | None, wallet: str | None, as_owner: bool):
    with pytest.raises(LicenceRefusedError):
        check_binding(given, project_id="p", wallet=wallet, as_owner=as_owner)
