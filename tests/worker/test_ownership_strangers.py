"""One project's subgraph, however slow or endless, keeps nobody else's collections from being looked at."""

from __future__ import annotations

from itertools import count
from typing import Any

import trio

from engine.core.inventory import NewCollection
from engine.core.people import Act
from storage.ids import new_id
from storage.open import AllStores
from tests.worker.following import ANN, BOB, following
from tests.worker.graph_server import CONTRACT, Chain, Fault, serving_graph


async def test_a_subgraph_that_hangs_stops_no_other_collection(stores: AllStores):
    async with following(stores, timeout_s=60.0, allow_private=True) as world:
        world.chain.mine(owners={1: ANN})
        world.task = world.new_task(tick_s=0.02)
        with serving_graph(Chain()) as strange:
            strange.faults = [Fault(hang=True)] * 10
            project = await stores.directory.create_project("strange", now_ms=0)
            new = NewCollection(
                project_id=project.project_id,
                chain_id=2,
                contract=CONTRACT,
                standard="erc721",
                subgraph_url=strange.url(),
            )
            act = Act(actor="test", now_ms=1, request_id="", made_id=new_id())
            await stores.inventory.add_collection(new, act=act)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.task.run)
                for owner in (ANN, BOB):
                    world.chain.mine(owners={1: owner})
                    world.later_ms += 1_000
                    with trio.fail_after(10):
                        while await world.owners() != {1: owner}:  # noqa: ASYNC110
                            await trio.sleep(0.02)
                assert len(strange.requests) == 1
                nursery.cancel_scope.cancel()


async def test_balances_of_nobody_without_end_are_given_up(stores: AllStores):
    numbers = count()

    def nobodys(data: dict[str, Any]) -> None:
        data["erc20Balances"] = [
            {"id": f"{next(numbers):08}", "account": None, "contract": {"id": CONTRACT}, "valueExact": "1"}
            for _ in range(1_000)
        ]

    async with following(stores, standard="erc20", tokens_max=3_000) as world:
        world.server.faults = [Fault(edit=nobodys)] * 20
        assert "more than 3000" in (await world.turn()).sync_error
        assert world.asked() == 4


async def test_a_subgraph_that_gives_little_for_much_time_is_given_up(stores: AllStores):
    async with following(stores) as world:
        world.chain.mine(owners=dict.fromkeys(range(50), ANN))
        world.server.page_items_max = 1
        world.task = world.new_task(patience_s=lambda _items: 0.0)
        assert "too slow" in (await world.turn()).sync_error
        assert world.asked() == 1
        assert await world.owners() == {}
