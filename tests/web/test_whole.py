"""The web process as it is run: `serve` on real PostgreSQL and Valkey, with an engine that only pretends.

What the engine pretends is exactly what web relies on: it follows the registry, writes headers, rows and
batches. Everything goes over HTTP.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.ports import NewNode, NodeRecord
from engine.core.records import BASE_UP, Event, FirstReport, event_id
from engine.settings import IngestSettings
from np1.session import SessionRequest, parse_session_answer, rfc3339_of_ms
from storage.open import Stores
from storage.settings import DatabaseSettings, RedisSettings
from tests.contract.given import batch
from tests.sealing import seal_a_day
from tests.web.pretended_engine import Engine
from tests.web.serving import Reply, receive_reply
from web.main import serve, system_ms
from web.settings import WebSettings
from web.times import DAY_MS, format_rfc3339, parse_rfc3339

KEY = "the-projects-key"


class Installation:
    def __init__(self, stores: Stores, node: NodeRecord, private_key: Ed25519PrivateKey, url: str) -> None:
        self.stores, self.node, self.private_key = stores, node, private_key
        self.engine = Engine(stores)
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        given = {"authorization": f"Bearer {KEY}", "content-length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            await stream.send_all(
                f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode() + body
            )
            return await receive_reply(stream)

    async def get(self, path: str) -> Any:
        reply = await self.ask("GET", path)
        assert reply.status == 200, reply
        return json.loads(reply.body)

    def session_body(self) -> bytes:
        asked = SessionRequest(
            node_id=self.node.node_id,
            sent_at=rfc3339_of_ms(system_ms()),
            nonce=f"{time.monotonic_ns():032x}",
            manager_version="1",
        )
        return asked.body(self.private_key.sign(asked.signed_bytes()))


@asynccontextmanager
async def installed(
    stores: Stores, postgres_url: str, valkey_url: str, folder: Path
) -> AsyncIterator[Installation]:
    """Serve, with one project, one node of one workload and a pretended engine."""
    now_ms = system_ms()
    project = await stores.directory.create_project("alpha", now_ms=now_ms)
    key = sha256(KEY.encode()).digest()
    await stores.directory.create_key(
        scope="project", project_id=project.project_id, key_sha256=key, name="k", now_ms=now_ms
    )
    private_key = Ed25519PrivateKey.generate()
    new = NewNode(
        project.project_id, "n", "node", private_key.public_key().public_bytes_raw(), 60_000, ("w",)
    )
    [node] = await stores.directory.create_nodes([new], now_ms=now_ms - 3 * DAY_MS)
    secrets_file = folder / "secrets.json"
    secrets_file.write_bytes(msgspec.json.encode({"1": "ab" * 32}))
    stop, told, urls = trio.Event(), trio.Event(), list[str]()

    def listening(url: str) -> None:
        urls.append(url)
        told.set()

    run = partial(
        serve,
        settings=WebSettings(port=0, drain_s=0.0, graceful_s=1.0),
        database=DatabaseSettings(url=postgres_url),
        redis=RedisSettings(url=valkey_url),
        secrets_file=secrets_file,
        shards=1,
        ingest=IngestSettings(),
        listening=listening,
        stop=stop,
    )
    async with trio.open_nursery() as nursery, trio.open_nursery() as serving:
        serving.start_soon(run)
        with trio.fail_after(10):
            await told.wait()
        here = Installation(stores, node, private_key, urls[0])
        nursery.start_soon(here.engine.run)
        yield here
        stop.set()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def here(
    stores: Stores, postgres_url: str, valkey_url: str, tmp_path: Path
) -> AsyncIterator[Installation]:
    async with installed(stores, postgres_url, valkey_url, tmp_path) as installation:
        with trio.fail_after(10):
            while (await installation.ask("GET", "/readyz")).status != 200:  # noqa: ASYNC110 - it must be asked
                await trio.sleep(0.05)
        yield installation


async def test_a_session_is_opened_and_its_beat_is_in_the_next_answer(here: Installation) -> None:
    reply = await here.ask("POST", "/v1/sessions", here.session_body())
    assert reply.status == 201, reply
    grant = parse_session_answer(reply.body).grant
    workload_id = here.node.workload_ids[0]
    assert grant.slots == ((0, workload_id),)
    assert (grant.udp, grant.http) == ("localhost:7900", "http://localhost:7900")
    assert (await here.get(f"/v1/workloads/{workload_id}"))["state"] == "new"

    beat_ms = system_ms()
    here.engine.beat(here.node, beat_ms, beat_ms)
    node = await here.get(f"/v1/nodes/{here.node.node_id}")
    assert (node["state"], node["workloads"][0]["state"]) == ("up", "up")
    assert parse_rfc3339(node["last_beat"]) == beat_ms
    uptime = await here.get(f"/v1/workloads/{workload_id}/uptime?from={format_rfc3339(beat_ms)}")
    assert uptime["ms"]["up"] > 0
    assert uptime["ms"]["silent"] == 0


async def test_closed_rows_and_the_open_one_meet_without_a_seam(here: Installation) -> None:
    workload_id = here.node.workload_ids[0]
    now_ms = system_ms()
    first = FirstReport(workload_id=workload_id, at_ms=now_ms - 60_000)
    rows = [
        (workload_id, BASE_UP, now_ms - 60_000, now_ms - 30_000),
        (workload_id, 2, now_ms - 30_000, now_ms),
    ]
    await here.stores.history.flush(
        batch(*rows, position=10_000, watermark_ms=now_ms, first_reports=(first,))
    )
    here.engine.beat(here.node, now_ms, now_ms)
    path = f"/v1/workloads/{workload_id}/uptime?from={format_rfc3339(now_ms - 90_000)}&intervals=true"
    answer = await here.get(path)
    kinds = [(each["kind"], parse_rfc3339(each["started_at"]) - now_ms) for each in answer["intervals"]]
    assert kinds == [("silent", -90_000), ("up", -60_000), ("unhealthy", -30_000), ("up", 0)]


async def test_events_and_points_go_through(here: Installation) -> None:
    now_ms = system_ms()
    event = Event(
        event_id=event_id("node.down", here.node.node_id, now_ms),
        kind="node.down",
        shard=0,
        project_id=here.node.project_id,
        node_id=here.node.node_id,
        workload_id=None,
        since_ms=now_ms,
        at_ms=now_ms,
        workloads=here.node.workload_ids,
    )
    await here.stores.history.flush(batch(position=10_000, events=(event,)))
    [item] = (await here.get("/v1/events?project=alpha"))["items"]
    assert item["event_id"] == event.event_id
    assert item["workloads"] == list(here.node.workload_ids)

    sealed = await seal_a_day(here.stores, here.node.project_id)
    day = sealed.day
    rows = [{"workload_id": sealed.workload_ids[0], "points": "2.5"}]
    body = json.dumps({"day": day, "rows": rows}).encode()
    path = "/v1/projects/alpha/points"
    replies = [await here.ask("POST", path, body, idempotency_key=key) for key in ("a", "a", "b")]
    assert [reply.status for reply in replies] == [201, 201, 409]
    assert replies[0].body == replies[1].body
    totals = await here.get(f"{path}?day={day}")
    [item] = totals["items"]
    assert (item["user"], item["points"]) == (sealed.nodes[0].node_id, "2.5")


async def test_nodes_are_listed_and_a_revoked_node_gets_no_session(here: Installation) -> None:
    [item] = (await here.get("/v1/nodes"))["items"]
    assert item["node_id"] == here.node.node_id
    await here.stores.directory.revoke_node(here.node.node_id, now_ms=system_ms())
    reply = await here.ask("POST", "/v1/sessions", here.session_body())
    assert (reply.status, json.loads(reply.body)["code"]) == (401, "unauthorized")
