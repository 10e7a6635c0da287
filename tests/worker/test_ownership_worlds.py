"""Seeded chains with sales, mints, burns and forks, looked at at any time: our books follow them."""

from __future__ import annotations

import random

import pytest

from storage.open import AllStores
from tests.worker.following import ANN, BOB, CARL, Following, following
from tests.worker.graph_server import NOBODY

STEPS = 60
DEPTH = 8  # as `following` sets it


def on_chain(world: Following) -> dict[int, str | None]:
    """Who owns each token that the chain knows; None: burned."""
    now = {token: history[-1][1] for token, history in world.chain.tokens.items() if history}
    return {token: None if owner == NOBODY else owner for token, owner in now.items()}


def live(draw: random.Random, world: Following) -> None:
    """Something happens on the chain."""
    owners = {
        draw.randrange(12): draw.choice([ANN, BOB, CARL, ANN, BOB, CARL, NOBODY])
        for _ in range(draw.randrange(4))
    }
    known = on_chain(world)
    # Only what is there can be burned.
    owners = {token: owner for token, owner in owners.items() if owner != NOBODY or known.get(token)}
    world.chain.mine(draw.randrange(1, 5), owners=owners)


def fork(draw: random.Random, world: Following, synced: int) -> None:
    """Blocks are taken back, at most as deep as looks read back, and grow again to where they were."""
    head = world.chain.head.number
    deepest = head - (synced - DEPTH)
    count = draw.randrange(1, max(2, min(deepest, head)))
    world.chain.take_back(count)
    while world.chain.head.number < synced:
        live(draw, world)


@pytest.mark.parametrize("seed", [0, 1, 27, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 27))])
async def test_books_follow_the_chain_over_sales_burns_and_forks(stores: AllStores, seed: int):
    draw = random.Random(seed)
    async with following(stores) as world:
        world.server.tells_hashes = seed % 2 == 0
        world.server.forgets_hashes = seed % 4 < 2
        world.chain.mine(20, owners=dict.fromkeys(range(6), ANN))
        await world.look()
        synced = world.chain.head.number
        for _ in range(STEPS):
            live(draw, world)
            if draw.random() < 0.25:
                fork(draw, world, synced)
            if draw.random() < 0.6:
                await world.look(whole=draw.random() < 0.1)
                synced = world.chain.head.number
                books, chain = await world.owners(), on_chain(world)
                assert {token: owner for token, owner in books.items() if owner} == {
                    token: owner for token, owner in chain.items() if owner
                }
        for token in await world.owners():
            await world.history(token)  # one line without overlaps, its open end the owner
