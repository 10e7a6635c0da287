"""Owners and balances are read from a real GraphQL server over a chain with history and forks."""

from __future__ import annotations

import pytest
import trio

from storage.open import AllStores
from tests.worker.following import ANN, BOB, CARL, following
from tests.worker.graph_server import NOBODY, Fault
from worker.ownership.graphql import GraphError

SCHEMAS = pytest.mark.parametrize("schema", ["openzeppelin", "eip721"])


@SCHEMAS
async def test_who_owned_it_when_the_first_pass_came_has_owned_it_since_ever(stores: AllStores, schema: str):
    async with following(stores, schema=schema) as world:
        world.chain.mine(owners={1: ANN, 2: BOB, 2**256 - 1: CARL, 0: ANN})
        world.chain.mine(5)
        assert (await world.look()).added == 4
        assert await world.owners() == {0: ANN, 1: ANN, 2: BOB, 2**256 - 1: CARL}
        assert await world.history(1) == [(ANN, 0, None)]
        collection = await world.collection()
        assert (collection.synced_block, collection.synced_hash) == (6, world.chain.head.hash)
        assert collection.block_ms == world.chain.head.ms
        assert collection.swept_ms == collection.checked_ms == world.now_ms()


@SCHEMAS
async def test_a_sale_is_dated_by_the_block_of_the_look_that_saw_it(stores: AllStores, schema: str):
    async with following(stores, schema=schema) as world:
        world.chain.mine(owners={1: ANN, 2: ANN})
        await world.look()
        world.chain.mine(owners={1: BOB})
        seen = world.chain.mine(3)
        assert (await world.look()).changed == 1
        assert await world.history(1) == [(ANN, 0, seen.number + 2), (BOB, seen.number + 2, None)]
        assert await world.history(2) == [(ANN, 0, None)]


async def test_a_new_token_is_its_owners_from_the_last_look_on(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        await world.look()
        last = world.chain.head.number
        world.chain.mine(3, owners={2: BOB})
        await world.look()
        assert await world.history(2) == [(BOB, last, None)]
        (row,) = await world.ownerships(2)
        assert row.from_block == world.chain.head.number


async def test_a_look_asks_for_what_changed_only(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(300), ANN))
        world.chain.mine(20)
        await world.look()
        world.asked()
        world.chain.mine(owners={7: BOB})
        assert (await world.look()).changed == 1
        sent = [body["variables"]["where"] for _, body in world.server.requests]
        assert all(where["_change_block"] == {"number_gte": 21 - 8} for where in sent)
        assert world.asked() == 2
        world.chain.mine(20)
        await world.look()
        world.asked()
        world.chain.mine()
        await world.look()
        assert world.asked() == 1  # nothing new: one query


async def test_a_burn_is_told_by_the_owner_that_nobody_is_or_by_a_full_pass(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN, 2: BOB, 3: CARL})
        await world.look()
        world.chain.mine(owners={1: NOBODY, 2: None})
        assert (await world.look()).gone == 1
        assert await world.owners() == {1: None, 2: BOB, 3: CARL}
        world.chain.mine()
        assert (await world.look(whole=True)).gone == 1
        assert await world.owners() == {1: None, 2: None, 3: CARL}
        assert await world.history(2) == [(BOB, 0, world.chain.head.number)]


async def test_a_burned_token_that_is_there_again_has_a_gap_in_its_history(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        await world.look()
        world.chain.mine(owners={1: NOBODY})
        await world.look()
        burned = world.chain.head.number
        world.chain.mine(2)
        await world.look()
        last = world.chain.head.number
        world.chain.mine(2, owners={1: BOB})
        await world.look()
        assert await world.history(1) == [(ANN, 0, burned), (BOB, last, None)]


async def test_everything_of_5000_tokens_takes_six_queries(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(5_000), ANN))
        assert (await world.look()).added == 5_000
        assert world.asked() == 6
        assert (await world.look(whole=True)).changed == 0
        assert world.asked() == 6


@pytest.mark.slow
async def test_everything_of_100000_tokens_takes_at_most_101_queries(stores: AllStores):
    async with following(stores, timeout_s=30.0) as world:
        world.chain.mine(owners={token: (ANN, BOB)[token % 2] for token in range(100_000)})
        assert (await world.look()).added == 100_000
        assert world.asked() <= 101
        world.chain.mine(owners=dict.fromkeys(range(50), CARL))
        started = trio.current_time()
        assert (await world.look(whole=True)).changed == 50
        assert world.asked() <= 101
        assert trio.current_time() - started < 120


# Blocks that are taken back. Each is played with a server that tells hashes of blocks, and one that does not.

HASHES = pytest.mark.parametrize("tells", [False, True])


@HASHES
async def test_a_sale_that_was_taken_back_never_was(stores: AllStores, tells: bool):
    async with following(stores) as world:
        world.server.tells_hashes = tells
        world.chain.mine(20, owners={1: ANN, 2: ANN})
        await world.look()
        world.chain.mine(2, owners={1: BOB})
        await world.look()
        assert (await world.owners())[1] == BOB
        world.chain.take_back(2)
        world.chain.mine(4)
        await world.look()
        assert await world.history(1) == [(ANN, 0, None)]


@HASHES
async def test_a_mint_that_was_taken_back_was_nobodys(stores: AllStores, tells: bool):
    async with following(stores) as world:
        world.server.tells_hashes = tells
        world.chain.mine(20, owners={1: ANN})
        await world.look()
        world.chain.mine(2, owners={2: BOB})
        await world.look()
        world.chain.take_back(2)
        world.chain.mine(4)
        await world.look()
        assert await world.owners() == {1: ANN, 2: None}
        assert await world.history(2) == []


@HASHES
async def test_a_burn_that_was_taken_back_never_was(stores: AllStores, tells: bool):
    async with following(stores) as world:
        world.server.tells_hashes = tells
        world.chain.mine(20, owners={1: ANN})
        await world.look()
        world.chain.mine(2, owners={1: NOBODY})
        await world.look()
        world.chain.take_back(2)
        world.chain.mine(4)
        await world.look()
        assert await world.history(1) == [(ANN, 0, None)]


@HASHES
async def test_who_bought_it_on_the_chain_that_stayed_takes_the_place_of_the_other(
    stores: AllStores, tells: bool
):
    async with following(stores) as world:
        world.server.tells_hashes = tells
        world.chain.mine(20, owners={1: ANN, 2: ANN})
        await world.look()
        world.chain.mine(2, owners={1: BOB, 2: BOB})
        await world.look()
        sold = world.chain.head.number
        world.chain.take_back(2)
        world.chain.mine(4, owners={1: CARL})  # and the sale of 2 was taken back, which proves it
        await world.look()
        assert await world.history(1) == [(ANN, 0, sold), (CARL, sold, None)]
        assert await world.history(2) == [(ANN, 0, None)]


async def test_deeper_than_looks_read_back_a_known_fork_makes_everything_be_read_again(stores: AllStores):
    async with following(stores) as world:
        world.server.tells_hashes = True
        world.chain.mine(20, owners={1: ANN})
        await world.look()
        world.chain.mine(30, owners={1: BOB})
        await world.look()
        world.asked()
        world.chain.take_back(30)
        world.chain.mine(40)
        await world.look()
        assert await world.history(1) == [(ANN, 0, None)]
        assert (await world.collection()).swept_ms == world.now_ms()


async def test_another_block_of_the_same_number_is_a_fork(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(20, owners={1: ANN})
        world.chain.mine(owners={1: BOB})
        await world.look()
        world.chain.take_back(1)
        world.chain.mine(owners={1: CARL})
        await world.look()
        assert (await world.collection()).synced_hash == world.chain.head.hash
        assert (await world.owners())[1] == CARL


async def test_a_block_that_is_taken_back_while_it_is_read_changes_nothing(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(20, owners=dict.fromkeys(range(1_500), ANN))
        await world.look()
        world.chain.mine(2, owners=dict.fromkeys(range(1_500), BOB))

        def fork() -> None:
            world.chain.take_back(2)
            world.chain.mine(3)

        world.server.faults = [None, Fault(before=fork)]
        with pytest.raises(GraphError):
            await world.look()
        assert set((await world.owners()).values()) == {ANN}
        await world.look()
        assert set((await world.owners()).values()) == {ANN}


async def test_blocks_that_come_while_it_is_read_belong_to_the_next_look(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(1_500), ANN))
        world.server.faults = [
            None,
            Fault(before=lambda: world.chain.mine(owners=dict.fromkeys(range(1_500), BOB))),
        ]
        await world.look()
        assert set((await world.owners()).values()) == {ANN}
        assert (await world.collection()).synced_block == 1
        await world.look()
        assert set((await world.owners()).values()) == {BOB}


# Balances.


async def test_balances_follow_the_chain_and_forget_what_was_taken_back(stores: AllStores):
    async with following(stores, standard="erc20") as world:
        world.chain.mine(20, amounts={None: 10**30, ANN: 10**29, BOB: 5, CARL: 0})
        await world.look()
        assert await world.balances() == {ANN: 10**29, BOB: 5}
        world.chain.mine(2, amounts={ANN: 7, BOB: 0, CARL: 9})
        await world.look()
        assert await world.balances() == {ANN: 7, CARL: 9}
        world.chain.take_back(2)
        world.chain.mine(4)
        await world.look()
        assert await world.balances() == {ANN: 10**29, BOB: 5}
        world.chain.mine(amounts={BOB: None})
        await world.look(whole=True)
        assert await world.balances() == {ANN: 10**29}


async def test_a_schema_of_ones_own_is_read_by_the_configuration(stores: AllStores):
    from worker.ownership.forms import EIP721
    from worker.settings import CustomSubgraph

    custom = CustomSubgraph(query=EIP721.query.replace("contract tokenID", "tokenID"), contract="")
    async with following(stores, schema="eip721", preset="custom", custom=custom) as world:
        world.chain.mine(owners={1: ANN, 2: BOB})
        await world.look()
        assert await world.owners() == {1: ANN, 2: BOB}


async def test_a_subgraph_of_another_contract_burns_nothing(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        await world.look()
        world.chain.mine(owners={1: None})
        with pytest.raises(GraphError, match="knows nothing of this contract"):
            await world.look(whole=True)
        assert await world.owners() == {1: ANN}


async def test_a_subgraph_that_forgot_old_blocks_is_asked_without_them(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners={1: ANN})
        await world.look()
        world.chain.mine(50, owners={1: BOB})
        world.server.earliest = 30
        await world.look()
        assert await world.owners() == {1: BOB}
