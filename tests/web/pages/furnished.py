"""An operator's world with something of everything: olga's machines, licence, points, dispute and channel."""

from __future__ import annotations

import hashlib

import msgspec

from engine.core.sealed import DAY_MS
from storage.ids import new_id
from tests.sealing import make_day, seal_days, yesterday_ms
from tests.web.control import Control, system_ms
from tests.web.pages.browsing import Browser

WALLET = "0x" + hashlib.sha256(b"olga").hexdigest()[:40]


class Furnished:
    """Made by the fixture `furnished`. `day`: sealed; of `workload_id` three hours of it were not paid."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.day = ""
        self.node_id = self.workload_id = self.licence_id = self.dispute_id = self.channel_id = ""
        self.delivery_id = ""

    async def fill(self) -> None:
        control = self.control
        await self._licence()
        made = await make_day(
            control.stores,
            control.alpha.project_id,
            nodes=1,
            owner_id=control.users["olga"],
            licence_ids=(None, self.licence_id),
            day_ms=yesterday_ms(),
        )
        # That the workload was bound to the licence is settled first: a day waits for it.
        await control.stores.lease_settling.settle(shards=1, now_ms=system_ms())
        await seal_days(control.stores)
        self.day, self.node_id = made.day, made.nodes[0].node_id
        self.workload_id = made.workload_ids[1]
        await control.sql(
            """
            insert into event (event_id, kind, shard, project_id, node_id, since_ms, at_ms, workloads, detail)
            values ('e1', 'node.down', 0, $1, $2, $3, $3, '{}', '')
            """,
            control.alpha.project_id,
            self.node_id,
            system_ms() - DAY_MS,
        )
        await self._points()
        await self._dispute()
        await self._channel()

    async def _licence(self) -> None:
        control = self.control
        collection_id, self.licence_id = new_id(), new_id()
        await control.sql(
            """
            insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
            values ($1, $2, 1, $3, 'erc721', 'Passes', 1)
            """,
            collection_id,
            control.alpha.project_id,
            "0x" + "1" * 40,
        )
        await control.sql(
            """
            insert into licence (licence_id, collection_id, project_id, token_id, owner, created_ms)
            values ($1, $2, $3, 4711, $4, 1)
            """,
            self.licence_id,
            collection_id,
            control.alpha.project_id,
            WALLET,
        )

    async def _points(self) -> None:
        body = {"day": self.day, "rows": [{"workload_id": self.workload_id, "points": "12.5"}]}
        made = await self.control.ask("POST", "/v1/projects/alpha/points", by="owner", json=body)
        assert made.status == 201, made.json

    async def _dispute(self) -> None:
        path = f"/v1/workloads/{self.workload_id}/disputes"
        body = {"day": self.day, "text": "I was up <b>all</b> day", "evidence": ["event:e1"]}
        made = await self.control.ask("POST", path, by="olga", json=body)
        assert made.status == 201, made.json
        self.dispute_id = made.json["dispute_id"]

    async def _channel(self) -> None:
        body = {"kind": "mail", "target": "olga@example.org", "name": "my mail"}
        made = await self.control.ask("POST", "/v1/me/channels", by="olga", json=body)
        assert made.status == 201, made.json
        self.channel_id, self.delivery_id = made.json["channel"]["channel_id"], new_id()
        notice = {"notice_id": self.delivery_id, "form": "test", "kind": "test", "at_ms": 1, "since_ms": 1}
        await self.control.sql(
            "insert into notice (notice_id, form, kind, body, created_ms) values ($1, 'test', 'test', $2, 1)",
            self.delivery_id,
            msgspec.json.encode(notice),
        )
        await self.control.sql(
            """
            insert into delivery (delivery_id, channel_id, notice_id, state, due_ms, created_ms)
            values ($1::text::uuid, $2, $1, 'dead', 1, 1)
            """,
            self.delivery_id,
            self.channel_id,
        )

    def browser(self, by: str | None = "olga") -> Browser:
        return Browser(self.control, by)
