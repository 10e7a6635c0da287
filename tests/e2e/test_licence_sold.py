"""A licence is sold, on a real system: who bought it runs under it, and who sold it runs on without."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
import uuid
from collections.abc import Iterator
from typing import Any

import asyncpg
import msgspec
import pytest

from engine.core.inventory import Block, Pass, Token
from np1.codec import Code
from storage.open import AllStores
from tests.e2e.api import Api, now_ms, unix_ms
from tests.e2e.node import Node
from tests.e2e.system import System, new_folder, running
from tests.e2e.test_leases import PATCH, Rivals

SELLER, BUYER = "0x" + "ab" * 20, "0x" + "cd" * 20


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(System(new_folder(tmp_path_factory.mktemp("sold")), shards=2)) as started:
        yield started


@pytest.fixture
def rivals(system: System) -> Iterator[Rivals]:
    made = Rivals(system)
    yield made
    made.close()


def a_person(system: System, node: Node, wallet: str) -> Api:
    """Somebody with this wallet and a key of their own, whose machine the node is."""
    user_id, key = str(uuid.uuid4()), secrets.token_hex(16)

    async def work() -> None:
        connection = await asyncpg.connect(system.config["database"]["url"])
        try:
            await connection.execute(
                "insert into account (user_id, wallet, created_ms) values ($1, $2, 1)", user_id, wallet
            )
            await connection.execute(
                """
                insert into api_key (key_id, key_sha256, scope, user_id, name, permissions, created_ms)
                values ($1, $2, 'user', $3, 'test', '{read,write}', 1)
                """,
                str(uuid.uuid4()),
                hashlib.sha256(key.encode()).digest(),
                user_id,
            )
            await connection.execute(
                "update node set owner_id = $1 where node_id = $2", user_id, node.node_id
            )
        finally:
            await connection.close()

    asyncio.run(work())
    return system.api_for(key)


def sell(rivals: Rivals, to: str) -> None:
    """What a look at the chain brings when the token has changed hands."""

    async def work(stores: AllStores) -> None:
        licence = await stores.inventory.licence(rivals.licence_id)
        assert licence is not None
        collection = await stores.inventory.collection(licence.collection_id)
        assert collection is not None
        block = Block(10, f"0x{10:064x}", now_ms())
        found = Pass(block=block, whole=True, seen=(Token(licence.token_id, to),))
        await stores.inventory_sync.apply(collection, found, now_ms=now_ms())

    rivals.system.on_stores(work)


def bind(api: Api, node: Node, licence_id: str) -> int:
    body = f'{{"licence_id": "{licence_id}"}}'.encode()
    return api.request("PATCH", f"/v1/workloads/{node.workloads[0]}", body=body, headers=PATCH).status


def test_who_bought_a_licence_holds_it_from_their_next_beat_and_the_sellers_run_goes_on_without(
    rivals: Rivals,
) -> None:
    seller, buyer = rivals.nodes
    of_seller = a_person(rivals.system, seller, SELLER)
    of_buyer = a_person(rivals.system, buyer, BUYER)
    rivals.bind(buyer, None)
    seller.beat()
    buyer.beat()
    rivals.eventually_held_by(seller)
    assert bind(of_buyer, buyer, rivals.licence_id) == 422  # not theirs yet
    sell(rivals, BUYER)
    time.sleep(0.1)
    seller.beat()
    rivals.eventually_held_by(seller, seller)  # nobody else is bound to it
    bound_ms = now_ms()
    assert bind(of_buyer, buyer, rivals.licence_id) == 200
    time.sleep(0.6)  # engines hear of it within 250 ms
    seller.beat()
    first = buyer.beat()
    rivals.eventually_held_by(seller, seller, buyer)
    sold, kept, taken = rivals.leases()
    assert (sold["ended"], kept["ended"]) == ("sold", "unbound")
    assert bound_ms <= unix_ms(kept["to"]) <= first.server_ms
    assert (unix_ms(taken["from"]), taken["to"]) == (first.server_ms, None)
    for _ in range(3):
        assert seller.beat().code in (Code.OK, Code.EARLY)
        assert buyer.beat().code in (Code.OK, Code.EARLY)
        time.sleep(0.4)
    assert rivals.standby(seller)[0] == rivals.standby(buyer)[0] == []
    assert of_seller.get(f"/v1/workloads/{seller.workloads[0]}")["licence_id"] is None
    assert bind(of_seller, seller, rivals.licence_id) == 422  # and it does not come back
    (entry,) = [one for one in audited(rivals) if one["action"] == "licence.take"]
    assert (entry["subject"], entry["detail"]["workload_ids"]) == (rivals.licence_id, seller.workloads)


def audited(rivals: Rivals) -> list[dict[str, Any]]:
    async def work(stores: AllStores) -> list[dict[str, Any]]:
        entries = await stores.audit.entries(project_id=None, after=0, limit=1_000)
        return [{**msgspec.structs.asdict(one), "detail": msgspec.json.decode(one.detail)} for one in entries]

    return rivals.system.on_stores(work)
