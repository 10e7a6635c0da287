"""`bench flush`: what goes to the stores, through the adapters that the engine uses.

Intervals and events into PostgreSQL beside a plain binary COPY of the same rows into a temporary table
without any key (the limit of what PostgreSQL takes from one connection); pages of the live view into Valkey
beside plain pipelined SETRANGE of the same bytes. Ours and the limit take turns, batch by batch.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import asyncpg
import numpy as np
import redis.asyncio

from bench.rig.machine import cpu_s, family_cpu_s
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey
from bench.rig.world import fill
from engine.core.ports import History, LiveView
from engine.core.records import BASE_UP, INTERVAL_DTYPE, Event, FlushBatch, ShardHead, event_id
from engine.entries import DIRTY_ROWS
from engine.pages import Captured, capture, in_writes
from engine.rows import id_of
from engine.table import Table
from storage.bridge import await_host, run_on_uvloop
from storage.open import open_stores
from storage.postgres_history import _COLUMNS, _COPY_HEADER, _COPY_TRAILER, copy_rows
from storage.settings import DatabaseSettings, RedisSettings

MB = 1024 * 1024
NOW_MS = 1_800_000_000_000
INTERVAL_MS = 60_000
FLUSHES_PER_S = 10  # of the live view
PROJECT = id_of(1, 1)


class Size(NamedTuple):
    """How much is measured."""

    workloads: int
    interval_batches: int
    intervals: int  # in a batch: `flush.history_rows_max`
    event_batches: int
    events: int
    live_rows: int
    live_rates: tuple[int, ...]  # beats/s, of random rows; 0: everything, as after a start
    live_turns: int


FULL = Size(1_000_000, 20, 50_000, 10, 10_000, 1_000_000, (16_700, 50_000, 0), 20)
QUICK = Size(1_000, 2, 2_000, 2, 200, 2_000, (1_000, 0), 2)


class Took:
    """Seconds of all turns of one way: on the clock, and of both processors' time."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self.wall_s = self.cpu_s = self.server_cpu_s = 0.0
        self.count = 0.0

    @contextmanager
    def more(self, count: float) -> Iterator[None]:
        """`count` more things are done in this block."""
        wall, cpu, server = time.perf_counter(), cpu_s(), family_cpu_s(self._server.pid)
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += cpu_s() - cpu
        self.server_cpu_s += family_cpu_s(self._server.pid) - server
        self.count += count

    def told(self, what: str) -> dict[str, float]:
        """Per second and per thing; `what` names the things, e.g. "rows"."""
        one = what.removesuffix("s")
        return {
            f"{what}_per_s": self.count / self.wall_s,
            f"cpu_us_per_{one}": self.cpu_s / self.count * 1e6,
            f"server_cpu_us_per_{one}": self.server_cpu_s / self.count * 1e6,
        }


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("flush", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    with postgres() as database, valkey() as store:
        run_on_uvloop(partial(_measure, report, size, database, store))
    return report.finish()


async def _measure(report: Report, size: Size, database: Running, store: Running) -> int:
    async with open_stores(DatabaseSettings(url=database.url), RedisSettings(url=store.url)) as stores:
        plain = await await_host(asyncpg.connect, database.url)
        try:
            _tell(report, "intervals", "rows", await _intervals(size, database, stores.history, plain))
            _tell(report, "events", "events", await _events(size, database, stores.history, plain))
        finally:
            await await_host(plain.close)
        for rate in size.live_rates:
            name = f"live.beats_per_s_{rate}" if rate else "live.everything"
            _tell(report, name, "mb", await _live(report, name, size, rate, store, stores.live))
    return 0


def _tell(report: Report, name: str, what: str, ways: dict[str, Took]) -> None:
    told = {way: took.told(what) for way, took in ways.items()}
    for way, figures in told.items():
        if way == "plain":
            report.peers[f"plain.{name}"] = rounded(figures)
            continue
        report.figures[f"{name}.{way}"] = rounded(figures)
        rate = f"{what}_per_s"
        report.ratios[f"{name}.{way}_to_plain_by_rate"] = rounded(figures[rate] / told["plain"][rate])
    columns = next(iter(told.values()))
    report.table(name, ("way", *columns), [(way, *figures.values()) for way, figures in told.items()])


# -- history ----------------------------------------------------------------------------------------


async def _intervals(size: Size, server: Running, history: History, plain: Any) -> dict[str, Took]:
    """New rows; the same rows again (a replay after a crash); the limit."""
    await await_host(plain.execute, "create temp table plain_interval (like base_interval)")
    ways = {way: Took(server) for way in ("new", "again", "plain")}
    random = np.random.default_rng(1)
    for number in range(size.interval_batches):
        rows = np.zeros(size.intervals, INTERVAL_DTYPE)
        rows["hi"], rows["kind"], rows["ttl_ms"] = 1, BASE_UP, INTERVAL_MS * 3 // 2
        rows["lo"] = np.sort(random.integers(0, size.workloads, len(rows)))
        rows["started_ms"] = NOW_MS + (number * len(rows) + np.arange(len(rows))) * 10
        rows["ended_ms"] = rows["started_ms"] + INTERVAL_MS
        batch = FlushBatch(shard=0, position=number + 1, watermark_ms=NOW_MS, intervals=rows)
        with ways["new"].more(len(rows)):
            await history.flush(batch)
        with ways["plain"].more(len(rows)):
            await await_host(_copy_intervals, plain, rows)
        with ways["again"].more(len(rows)):
            await history.flush(batch)
    return ways


async def _copy_intervals(connection: Any, rows: np.ndarray) -> None:
    source = io.BytesIO(_COPY_HEADER + copy_rows(rows) + _COPY_TRAILER)
    await connection.copy_to_table("plain_interval", source=source, columns=_COLUMNS, format="binary")


async def _events(size: Size, server: Running, history: History, plain: Any) -> dict[str, Took]:
    """Nodes that fell, one event each."""
    await await_host(
        plain.execute,
        """create temp table plain_event (event_id text, kind text, shard integer, project_id uuid,
        node_id uuid, since_ms bigint, at_ms bigint, workloads uuid[], detail text)""",
    )
    ways = {way: Took(server) for way in ("new", "plain")}
    for number in range(size.event_batches):
        events = tuple(_event(number * size.events + each) for each in range(size.events))
        batch = FlushBatch(
            shard=0,
            position=NOW_MS + number,
            watermark_ms=NOW_MS,
            intervals=np.empty(0, INTERVAL_DTYPE),
            events=events,
        )
        with ways["new"].more(len(events)):
            await history.flush(batch)
        with ways["plain"].more(len(events)):
            await await_host(_copy_events, plain, events)
    return ways


def _event(number: int) -> Event:
    node = id_of(2, number)
    return Event(
        event_id=event_id("node.down", node, NOW_MS),
        kind="node.down",
        shard=0,
        project_id=PROJECT,
        node_id=node,
        workload_id=None,
        since_ms=NOW_MS,
        at_ms=NOW_MS,
        workloads=(id_of(3, number),),
    )


async def _copy_events(connection: Any, events: tuple[Event, ...]) -> None:
    await connection.copy_records_to_table(
        "plain_event",
        records=[
            (
                event.event_id,
                event.kind,
                event.shard,
                event.project_id,
                event.node_id,
                event.since_ms,
                event.at_ms,
                event.workloads,
                event.detail,
            )
            for event in events
        ],
    )


# -- the live view ----------------------------------------------------------------------------------


async def _live(
    report: Report, name: str, size: Size, rate: int, server: Running, live: LiveView
) -> dict[str, Took]:
    """The pages that a tenth of a second's beats make dirty, or all there are."""
    table = Table(shard=0, shards=1)
    fill(table, rows=size.live_rows, workloads=1, interval_ms=INTERVAL_MS, now_ms=NOW_MS)
    capture(table)
    head = ShardHead(0, 1, "bench", NOW_MS, 1, size.live_rows, False, None, NOW_MS)
    await live.reset(head)
    client = redis.asyncio.Redis.from_url(server.url, protocol=2)
    ways = {way: Took(server) for way in ("pages", "plain")}
    random = np.random.default_rng(2)
    try:
        for _ in range(size.live_turns if rate else max(1, size.live_turns // 10)):
            if rate:
                rows = random.integers(0, size.live_rows, rate // FLUSHES_PER_S)
                table.dirty_rows[rows // DIRTY_ROWS] = True
            else:
                table.mark_all_dirty()
            captured = capture(table)
            pages = [data for _, data in (*captured.rows, *captured.slots)]
            count = sum(map(len, pages)) / MB
            report.figures[f"{name}.flush"] = rounded({"pages": len(pages), "mb": count})
            with ways["pages"].more(count):
                await _write(live, head, captured)
            with ways["plain"].more(count):
                await await_host(_set_ranges, client, captured)
    finally:
        await await_host(client.aclose)
    return ways


async def _write(live: LiveView, head: ShardHead, captured: Captured) -> None:
    """As the flusher does."""
    for part in in_writes(captured.slots):
        assert await live.write(head, rows=[], slots=part), "of another epoch"
    for part in in_writes(captured.rows):
        assert await live.write(head, rows=part, slots=[]), "of another epoch"


async def _set_ranges(client: Any, captured: Captured) -> None:
    for key, pages in (("plain:rows", captured.rows), ("plain:slots", captured.slots)):
        for part in in_writes(pages):
            async with client.pipeline(transaction=False) as pipe:
                for offset, data in part:
                    pipe.setrange(key, offset, data)
                await pipe.execute()
