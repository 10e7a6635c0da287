"""kill -9 of web and of PostgreSQL at any moment of a commit of points: all of it is there, or nothing.

And the same request with the same key ends in exactly one commit, however often it was cut off.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from bench.rig import fleet as rig
from bench.rig.child import Child, python_child
from bench.rig.fleet import KEY, SLUG, Fleet
from tests.e2e.system import eventually, new_folder
from tests.faults.stores import OwnStores, own_stores

ROWS = 50_000
FIRST_DAY = date(2026, 1, 1)
SEEDS, SLOW_SEEDS = range(1), range(1, 40)
_SEAL = """
insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots, node_blocks,
  sealed_ms)
select $1, project_id, $2, 1, $3, $3, 0, $4, $5, '', 1 from project
"""
_ROWS = """
insert into sealed_row (seal_no, place, workload_id, node_id, source, from_ms, to_ms, ms, paid_ms, held,
  hours)
select $1, row_number() over (order by workload_id) - 1, workload_id, node_id, 'native', 0, 86400000, '', 3,
  case when workload_id::text > '8' then null else format(
    '[{"licence_id":"%1$s","owner":"0xa","from_ms":0,"to_ms":43200000,"paid_ms":1},'
    '{"licence_id":"%1$s","owner":"0xb","from_ms":43200000,"to_ms":86400000,"paid_ms":2}]', workload_id) end,
  ''
from workload
"""
_STATE = """
with of_day as (select commit_id from points_commit where day = $1)
select (select count(*) from of_day), (select count(*) from points join of_day using (commit_id)),
  (select count(*) from points p left join points_commit c using (commit_id) where c.day is null),
  (select coalesce(sum(micro_points), 0) from points join of_day using (commit_id)),
  (select coalesce(sum(micro_points), 0) from points_share join of_day using (commit_id)),
  (select coalesce(sum(micro_points), 0) from points_total join of_day using (commit_id)),
  (select count(*) from event where kind = 'points.committed' and detail like $2),
  (select count(*) from audit where action = 'points.commit' and detail like $3)
"""


class World:
    """The stores, a sealed project, and one web process after the other."""

    def __init__(self, stores: OwnStores, folder: Path) -> None:
        self.stores = stores
        self._secrets = folder / "secrets.json"
        self._secrets.write_text(json.dumps({"1": "ab" * 32}))
        self.ids: list[str] = []
        self.commit_s = 0.0  # of one that nobody disturbs
        self._web: Child | None = None

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.stores.postgres.owner_url)
            found: list[Any] = await connection.fetch(statement, *arguments)
            await connection.close()
            return found

        return asyncio.run(run())

    def register(self) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.stores.postgres.owner_url)
            await rig.register(connection, Fleet(ROWS, 40 * rig.DAY_MS, 41 * rig.DAY_MS))
            await connection.close()

        asyncio.run(run())
        self.ids = [str(each) for (each,) in self.sql("select workload_id from workload order by 1")]

    def seal(self, number: int) -> date:
        """A sealed day of its own for each number."""
        day = FIRST_DAY + timedelta(days=number)
        self.sql(_ROWS, number + 1)
        self.sql(_SEAL, number + 1, day, ROWS, bytes(32), bytes(32 * 24))
        return day

    def body(self, day: date) -> bytes:
        rows = [{"workload_id": each, "points": f"{n % 97}.{n:06}"} for n, each in enumerate(self.ids)]
        return json.dumps({"day": day.isoformat(), "rows": rows}).encode()

    @property
    def web(self) -> Child:
        if self._web is None:
            options = {
                "database": self.stores.postgres.url,
                "redis": self.stores.valkey.url,
                "secrets_file": str(self._secrets),
                "shards": 1,
            }
            self._web = python_child("bench.rig.web_child", options)
            self._address = urlsplit(self._web.answer()["url"])
        return self._web

    def kill_web(self) -> None:
        self.web.kill()
        self.web.stop(force=True)
        self._web = None

    def kill_postgres(self) -> None:
        """The postmaster and all of its backends."""
        server = self.stores.postgres
        assert server.process is not None
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            os.kill(each, signal.SIGKILL)
        self.stores.stop_postgres()
        self.stores.start_postgres()

    def post(self, body: bytes, key: str) -> int:
        """The status; 0 when the connection broke."""
        _ = self.web
        connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=60)
        headers = {"authorization": f"Bearer {KEY}", "idempotency-key": key}
        try:
            connection.request("POST", f"/v1/projects/{SLUG}/points", body=body, headers=headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def check(self, day: date, *, commits: set[int]) -> int:
        """All of it or nothing; how many commits there are."""
        of = (f"{day} %", f'%"{day}"%')
        [(made, rows, orphans, *sums, events, audited)] = self.sql(_STATE, day, *of)
        total = sum(n % 97 * 10**6 + n for n in range(ROWS))
        assert made in commits
        assert (rows, orphans, events, audited) == (made * ROWS, 0, made, made)
        assert [int(each) for each in sums] == [made * total] * 3
        return int(made)

    def close(self) -> None:
        if self._web is not None:
            self._web.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with own_stores(new_folder(tmp_path_factory.mktemp("stores"))) as stores:
        made = World(stores, tmp_path_factory.mktemp("web"))
        made.register()
        day = made.seal(0)
        _ = made.web
        began = time.monotonic()
        assert made.post(made.body(day), "undisturbed") == 201
        made.commit_s = time.monotonic() - began
        made.check(day, commits={1})
        yield made
        made.close()


def run_killed(world: World, what: str, seed: int) -> None:
    number = 1 + 2 * seed + (what == "web")
    day, key = world.seal(number), f"{what}-{seed}"
    body, chance = world.body(day), random.Random(seed)
    for _ in range(2):
        _ = world.web
        told: list[int] = []
        posting = threading.Thread(target=lambda told=told: told.append(world.post(body, key)))
        posting.start()
        time.sleep(chance.random() * world.commit_s)
        world.kill_web() if what == "web" else world.kill_postgres()
        posting.join()
        made = world.check(day, commits={1} if told == [201] else {0, 1})
        if made:
            break
    eventually(lambda: world.post(body, key) == 201, within_s=60)
    world.check(day, commits={1})
    assert world.post(body, key) == 201
    assert world.post(body[:-1] + b" }", key) == 422
    world.check(day, commits={1})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("what", ["web", "postgres"])
def test_a_commit_that_is_killed_is_there_wholly_or_not_at_all(world: World, what: str, seed: int) -> None:
    run_killed(world, what, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW_SEEDS)
@pytest.mark.parametrize("what", ["web", "postgres"])
def test_many_commits_that_are_killed_are_there_wholly_or_not_at_all(
    world: World, what: str, seed: int
) -> None:
    run_killed(world, what, seed)
