"""The whole worker over real stores follows collections, and its metrics say so."""

from __future__ import annotations

import time

import trio

from engine.core.inventory import LicenceFilter, NewCollection
from engine.core.people import Act
from storage.ids import new_id
from storage.open import AllStores
from tests.worker.graph_server import BLOCK_MS, CONTRACT, START_MS, Chain, serving_graph
from worker.parts import Worker
from worker.settings import OwnershipSettings, WorkerSettings

ANN = "0x" + "a" * 40


async def test_the_worker_follows_collections_and_its_metrics_tell_how(stores: AllStores):
    chain = Chain()
    chain.mine(owners={7: ANN})
    lag_ms = time.time_ns() // 1_000_000 - (START_MS + BLOCK_MS)
    project = await stores.directory.create_project("alpha", now_ms=0)
    new = NewCollection(project_id=project.project_id, chain_id=1, contract=CONTRACT, standard="erc721")
    act = Act(actor="test", now_ms=1, request_id="", made_id=new_id())
    await stores.inventory.add_collection(new, act=act)
    stop = trio.Event()
    ports: list[int] = []
    with serving_graph(chain) as server:
        worker = Worker(
            settings=WorkerSettings(poll_ms=50, ownership=OwnershipSettings(url=server.url())),
            outbox=stores.outbox,
            sending=stores.sending,
            newsroom=stores.newsroom,
            live=stores.live,
            directory=stores.directory,
            inventory_sync=stores.inventory_sync,
            now_ms=lambda: time.time_ns() // 1_000_000 - lag_ms,  # the chain's head is of this moment
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: worker.run(
                    listening=lambda where: ports.append(int(where.rpartition(":")[2])), stop=stop
                )
            )
            with trio.fail_after(10):
                while not await stores.inventory.licences(LicenceFilter(), after=None, limit=1):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            assert worker.ready()["ownership"] == ""
            async with await trio.open_tcp_stream("127.0.0.1", ports[0]) as stream:
                await stream.send_all(b"GET /metrics HTTP/1.1\r\n\r\n")
                metrics = b"".join([chunk async for chunk in stream]).decode()
            stop.set()
    assert "nodepulse_ownership_collections 1.0" in metrics
    assert "nodepulse_ownership_queries_total 2.0" in metrics
    assert "nodepulse_ownership_oldest_age_seconds" in metrics
