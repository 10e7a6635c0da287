"""A collection that is followed: a chain, its subgraph server, real PostgreSQL, and our books of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine.core.inventory import Applied, Collection, LicenceFilter, NewCollection, Ownership
from engine.core.people import Act
from storage.ids import new_id
from storage.open import AllStores
from tests.worker.graph_server import CONTRACT, Chain, GraphServer, serving_graph
from worker.ownership.graphql import GraphClient
from worker.ownership.looks import Looker
from worker.ownership.schedule import Ownership as Task
from worker.settings import OwnershipSettings

ANN, BOB, CARL = ("0x" + digit * 40 for digit in "abc")
LAG_MS = 5_000  # between a block and our clock


class Following:
    """Made by `following`."""

    def __init__(
        self, stores: AllStores, chain: Chain, server: GraphServer, client: GraphClient, settings: Any
    ) -> None:
        self.stores, self.chain, self.server, self.client = stores, chain, server, client
        self.settings = settings
        self.later_ms = 0
        self.bugs: list[Exception] = []
        self.looker = Looker(client=client, sync=stores.inventory_sync, settings=settings, now_ms=self.now_ms)
        self.task = self.new_task()
        self.collection_id = ""

    def new_task(self, **more: Any) -> Task:
        """One more worker's task."""
        return Task(
            sync=self.stores.inventory_sync,
            client=self.client,
            settings=self.settings,
            now_ms=self.now_ms,
            reported=lambda error, _key: self.bugs.append(error),
            retry_s=lambda _failures: 0.0,
            **more,
        )

    def now_ms(self) -> int:
        return self.chain.head.ms + LAG_MS + self.later_ms

    async def add(self, **fields: Any) -> str:
        """A collection of a project of its own."""
        project = await self.stores.directory.create_project("alpha", now_ms=0)
        new = {"project_id": project.project_id, "chain_id": 1, "contract": CONTRACT, "standard": "erc721"}
        act = Act(actor="test", now_ms=self.now_ms(), request_id="", made_id=new_id())
        made = await self.stores.inventory.add_collection(NewCollection(**new | fields), act=act)
        self.collection_id = made.collection_id
        return made.collection_id

    async def collection(self) -> Collection:
        found = await self.stores.inventory.collection(self.collection_id)
        assert found is not None
        return found

    async def look(self, *, whole: bool = False) -> Applied:
        """Look now. GraphError."""
        return await self.looker.look(await self.collection(), whole=whole)

    async def turn(self) -> Collection:
        """The task's next turn, with everything due; the collection after it."""
        self.later_ms += int(self.settings.poll_s * 1000)
        await self.task.run_once()
        return await self.collection()

    async def owners(self) -> dict[int, str | None]:
        """Who owns each token by our books."""
        found = await self.stores.inventory.licences(
            LicenceFilter(collection_id=self.collection_id), after=None, limit=100_000
        )
        return {licence.token_id: licence.owner for licence in found}

    async def history(self, token: int) -> list[tuple[str, int, int | None]]:
        """(owner, from, to) in blocks' numbers (None: still; 0: since ever), checked to be one line."""
        rows = await self.ownerships(token)
        for one, after in itertools.pairwise(rows):
            assert one.to_ms is not None
            assert one.to_ms <= after.from_ms
        return [(row.owner, self._number(row.from_ms), self._number(row.to_ms)) for row in rows]

    async def ownerships(self, token: int) -> list[Ownership]:
        licences = await self.stores.inventory.licences(
            LicenceFilter(collection_id=self.collection_id), after=None, limit=100_000
        )
        (licence,) = [each for each in licences if each.token_id == token]
        rows = await self.stores.inventory.owners(licence.licence_id, after_ms=-1, limit=1_000)
        open_rows = [row.owner for row in rows if row.to_ms is None]
        assert open_rows == ([] if licence.owner is None else [licence.owner])
        return rows

    async def balances(self) -> dict[str, int]:
        found = {}
        for owner in (ANN, BOB, CARL):
            for balance in await self.stores.inventory.balances(owner, after=None, limit=10):
                found[owner] = balance.amount
        return found

    def asked(self) -> int:
        """How many queries were sent since this was asked last."""
        count = len(self.server.requests)
        self.server.requests.clear()
        return count

    def _number(self, at_ms: int | None) -> int | None:
        if at_ms in (None, 0):
            return at_ms
        return next(block.number for block in reversed(self.chain.blocks) if block.ms <= at_ms)


@asynccontextmanager
async def following(
    stores: AllStores,
    *,
    schema: str = "openzeppelin",
    standard: str = "erc721",
    waits_s: tuple[float, ...] = (),
    keys: dict[str, str] | None = None,
    own_url: str | None = None,
    **settings: Any,
) -> AsyncIterator[Following]:
    """`own_url`: what the collection says itself; without it the configuration's URL is the server's."""
    chain = Chain()
    with serving_graph(chain) as server:
        named = {
            "url": server.url(schema),
            "preset": schema,
            "depth_blocks": 8,
            "timeout_s": 2.0,
            "poll_s": 1.0,
        }
        made = OwnershipSettings(**named | settings)
        keyed = {
            origin.replace("SERVER", f"127.0.0.1:{server.port}"): key for origin, key in (keys or {}).items()
        }
        follow: Following
        async with GraphClient(
            keys=keyed, timeout_s=made.timeout_s, now_ms=lambda: follow.now_ms(), waits_s=waits_s
        ) as client:
            follow = Following(stores, chain, server, client, made)
            url = (own_url or "").replace("SERVER", f"127.0.0.1:{server.port}")
            await follow.add(standard=standard, subgraph_url=url)
            yield follow
