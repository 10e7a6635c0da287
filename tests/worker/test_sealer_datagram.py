"""Days that Datagram measures, sealed with its figures, on a server that behaves as its documents say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from engine.core.records import KINDS
from engine.core.sealed import DAY_MS
from storage.datagram import Datagram
from storage.open import AllStores
from storage.settings import DatagramSettings
from tests.sealing import make_day, new_sealer, system_ms, tell_view, yesterday_ms
from tests.storage import datagram_server as faults
from tests.storage.datagram_server import HOUR_MS, SECRET, TOKEN, DatagramServer, datagram_server
from tests.worker.test_sealer import a_licence, sql, whole


@pytest.fixture
def server() -> Iterator[DatagramServer]:
    with datagram_server() as made:
        yield made


@pytest.fixture
async def source(server: DatagramServer) -> AsyncIterator[Datagram]:
    settings = DatagramSettings(url=server.url, license_url=server.url, token=TOKEN, secret=SECRET)
    async with Datagram(settings, clock=system_ms, retry_s=0.01) as opened:
        yield opened


async def a_project(stores: AllStores, url: str) -> str:
    """One whose days Datagram has measured since long ago."""
    await tell_view(stores)
    project_id = (await stores.directory.create_project("alpha", now_ms=1)).project_id
    await sql(
        url,
        """
        insert into project_policy (project_id, effective_from, revision, uptime_source, pay_claims, reward,
          created_ms, actor) values ($1, '2020-01-01', 1, 'datagram', true, '{}', 1, 'test')
        """,
        project_id,
    )
    return project_id


async def test_rows_are_what_datagram_tells(
    stores: AllStores, postgres_url: str, server: DatagramServer, source: Datagram
) -> None:
    day_ms = yesterday_ms() - DAY_MS
    project_id = await a_project(stores, postgres_url)
    day = await make_day(stores, project_id, nodes=2, workloads=1, day_ms=day_ms)
    await sql(postgres_url, "update node set partner_node_id = 'p' where node_id = $1", day.nodes[0].node_id)
    server.up["p"] = [(day_ms, day_ms + 7 * HOUR_MS), (day_ms + 13 * HOUR_MS, day_ms + 15 * HOUR_MS)]
    licence_id = await a_licence(postgres_url, project_id)
    await sql(
        postgres_url,
        "insert into licence_binding (workload_id, licence_id, from_ms) values ($1, $2, $3)",
        day.workload_ids[0],
        licence_id,
        day_ms,
    )
    noon_ms = day_ms + 14 * HOUR_MS + 5
    for owner, from_ms, to_ms in (("a", 0, noon_ms), ("b", noon_ms, None)):
        await sql(
            postgres_url,
            "insert into ownership (licence_id, owner, from_ms, from_block, to_ms, recorded_ms)"
            " values ($1, $2, $3, 1, $4, 1)",
            licence_id,
            "0x" + owner * 40,
            from_ms,
            to_ms,
        )
    sealer = new_sealer(stores, source=source)
    seal = (await sealer.run_once())[0]
    known, unknown = [row for _, row in await stores.seals.rows(seal, after_place=-1, limit=10)]
    assert (known.source, known.paid_ms, sum(known.ms)) == ("datagram", 9 * HOUR_MS, DAY_MS)
    assert known.ms[KINDS.index("up")] == 9 * HOUR_MS
    assert unknown.ms[KINDS.index("unobserved")] == DAY_MS
    # It tells whole hours only: the hour in which the licence was sold is the buyer's.
    assert [(held.owner[2], held.paid_ms) for held in known.held] == [("a", 8 * HOUR_MS), ("b", HOUR_MS)]
    leaf = await stores.seals.hour_leaf(seal, 3, known.node_id)
    assert leaf is not None
    assert not any(leaf[1][40:])  # of an hour nothing is told


async def test_a_day_waits_while_datagram_is_away_or_not_final(
    stores: AllStores, postgres_url: str, server: DatagramServer, source: Datagram
) -> None:
    day_ms = yesterday_ms() - DAY_MS
    day = await make_day(stores, await a_project(stores, postgres_url), nodes=1, workloads=1, day_ms=day_ms)
    await sql(postgres_url, "update node set partner_node_id = 'p' where node_id = $1", day.nodes[0].node_id)
    server.up["p"] = [(day_ms, day_ms + HOUR_MS)]
    without = new_sealer(stores)
    assert await without.run_once() == []
    assert list(without.waiting_for().values()) == ["Datagram measures this day, and is not configured"]
    early = new_sealer(stores, source=source, now_ms=lambda: day_ms + DAY_MS + 1_000)
    assert await early.run_once() == []
    assert list(early.waiting_for().values()) == ["Datagram's figures of this day may still change"]
    sealer = new_sealer(stores, source=source)
    server.faults.extend([faults.status(500, "broken")] * 3)
    assert await sealer.run_once() == []
    ((reason),) = sealer.waiting_for().values()
    assert reason.startswith("Datagram cannot be asked")
    assert await sql(postgres_url, "select * from sealing") == []
    server.faults.clear()
    seal = (await sealer.run_once())[0]
    assert seal.paid_ms == HOUR_MS
    with pytest.raises(AssertionError):
        await whole(stores, seal)  # but for its hours
