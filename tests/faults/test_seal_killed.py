"""kill -9 of workers and of PostgreSQL in the middle of seals: each day is sealed once, and wholly."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.rig import fleet as rig
from bench.rig.fleet import DAY_MS, Fleet
from engine.core.merkle import BLOCK_LEAVES, root_of
from engine.core.sealed import DAY_TREE, HOURS
from storage.bridge import run_on_uvloop
from storage.open import AllStores, open_stores
from storage.settings import DatabaseSettings, RedisSettings
from tests.e2e.system import new_folder
from tests.faults.stores import OwnStores, own_stores
from tests.faults.workers import tended, workers

ROWS, PER_NODE, DAYS = 20_000, 10, 4
KILLS_MAX = 6
WITHIN_S = 90.0
SETS = {"worker.seal_after_s": "0"}
# Days that a worker is at: begun, and not sealed.
_BEGUN = """
select count(*) from sealing b
where not exists (select from seal s where s.project_id = b.project_id and s.day = b.day)
"""
_STATE = """
select (select count(*) from seal where seal_no > 1),
  (select count(distinct day) from seal where seal_no > 1),
  (select max(seal_no) from seal) - (select count(*) from seal),
  (select count(*) from sealed_row r where not exists (select from seal s where s.seal_no = r.seal_no)),
  (select count(*) from event where kind = 'seal.done')
"""
_RUNS = "select seal_no, count(*), count(distinct place), max(place) + 1 from sealed_row group by seal_no"


class World:
    """Stores with a fleet whose last days wait for being sealed."""

    def __init__(self, stores: OwnStores, folder: Path) -> None:
        self.stores, self.folder = stores, folder
        now_ms = time.time_ns() // 1_000_000
        self.day_ms = now_ms - now_ms % DAY_MS - DAY_MS
        # An hour after midnight at least, whatever the time is.
        fleet = Fleet(ROWS, self.day_ms, max(now_ms, self.day_ms + DAY_MS + 3_600_000), PER_NODE)
        asyncio.run(self._register(fleet))
        [[(self.project_id,)]] = self.sql("select project_id::text from project")
        self.run(lambda stores: rig.write_view(stores.live, fleet, restarted=False))

    async def _register(self, fleet: Fleet) -> None:
        connection = await asyncpg.connect(self.stores.postgres.owner_url)
        await rig.register(connection, fleet)
        await rig.write_day(connection, fleet, days=2)
        await rig.days_sealed_before(connection, fleet.day_ms - (DAYS - 1) * DAY_MS)
        await connection.close()

    def run(self, work: Any) -> Any:
        results = []

        async def main() -> int:
            settings = (
                DatabaseSettings(url=self.stores.postgres.url),
                RedisSettings(url=self.stores.valkey.url),
            )
            async with open_stores(*settings) as stores:
                results.append(await work(stores))
            return 0

        assert run_on_uvloop(main) == 0
        return results[0]

    def sql(self, *statements: str) -> list[list[Any]]:
        """What each of them finds at one moment."""

        async def run() -> list[list[Any]]:
            connection = await asyncpg.connect(self.stores.postgres.owner_url)
            async with connection.transaction(isolation="repeatable_read"):
                found = [await connection.fetch(each) for each in statements]
            await connection.close()
            return found

        return asyncio.run(run())

    def sealed(self) -> int:
        """How many days are; each of them once and with all of its rows, and nothing of others is there."""
        [(seals, days, holes, orphans, told)], runs = self.sql(_STATE, _RUNS)
        assert (days, holes, orphans, told) == (seals, 0, 0, seals)
        whole = [(2 + number, ROWS, ROWS, ROWS) for number in range(seals)]
        assert sorted(map(tuple, runs)) == whole
        return int(seals)

    def seals_now(self) -> bool:
        """Whether a worker has begun with a day, or none is left."""
        return bool(self.sql(_BEGUN)[0][0][0]) or self.sealed() == DAYS


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = new_folder(tmp_path_factory.mktemp("stores"))
    with own_stores(folder) as stores:
        yield World(stores, folder)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["worker", "postgres"])
def test_days_whose_seals_are_killed_are_sealed_once_and_wholly(world: World, what: str) -> None:
    chance, cut = random.Random(4), 0
    with workers(world.folder, sets={**world.stores.sets, **SETS}, count=2) as made:
        for _ in range(KILLS_MAX):
            tended(made, world.seals_now, within_s=WITHIN_S)
            if world.sealed() == DAYS:
                break
            time.sleep(chance.random() * 0.6)
            before = world.sealed()
            if what == "worker":
                for number in range(2):
                    made.kill(number)
            else:
                world.stores.kill_postgres()
            # What was being written when they died is there wholly, or not at all.
            cut += world.sealed() == before
        tended(made, lambda: world.sealed() == DAYS, within_s=WITHIN_S)
    assert cut >= 1, "no seal was cut"
    world.run(partial(_agree, world))


async def _agree(world: World, stores: AllStores) -> None:
    """Every root follows from the rows that are stored."""
    seals = [each for each in await stores.seals.seals(world.project_id, before=None, limit=10) if each.rows]
    assert len(seals) == DAYS
    for seal in seals:
        assert (seal.revision, seal.rows, seal.nodes) == (1, ROWS, ROWS // PER_NODE)
        roots = {DAY_TREE: seal.root, **dict(enumerate(seal.hour_roots))}
        for tree in (DAY_TREE, 0, HOURS - 1):
            leaves = seal.rows if tree == DAY_TREE else seal.nodes
            blocks = [
                root_of(await stores.seals.block(seal, tree, block))
                for block in range(-(-leaves // BLOCK_LEAVES))
            ]
            assert blocks == await stores.seals.block_roots(seal, tree)
            assert root_of(blocks) == roots[tree]
