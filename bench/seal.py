"""`bench seal`: days of a million workloads sealed by a worker in a process of its own; what beats feel then.

Real PostgreSQL and Valkey. Nine in ten were up all day by a row that is still open in the live view, the rest
had outages. A node has ten workloads, as in a network; then one each, which makes ten times as many leaves of
hours. Beside it, in the same run, the limit: a plain COPY of the same rows into a table like theirs. A second
day is sealed while an engine on the same servers takes 20,000 beats/s: their ACKs before and meanwhile.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import numpy as np

from bench.rig import fleet as rig
from bench.rig.child import Child, python_child
from bench.rig.fleet import DAY_MS, Fleet
from bench.rig.machine import cpu_s, family_cpu_s, rss_bytes, rss_max_bytes
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey
from bench.rig.stage import open_sockets
from storage.bridge import run_on_uvloop
from storage.migrate import migrate
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings

MB = 1024 * 1024
SECONDS_PROMISED = 60.0
PATIENCE_S = 600.0
PER_NODE = 10
RATE_MAX = 1e9  # the engine stretches no interval: the fleet's own pace is what is measured
INTERVAL_MS = 3_600_000  # nobody falls silent


class Size(NamedTuple):
    """How much is measured."""

    workloads: int
    beating_rows: int
    period_s: float  # how often each of them beats
    alone_s: float  # beats without a seal, as long before it as after it
    settle_s: float  # at first, not counted


FULL = Size(1_000_000, 100_000, 5.0, 15.0, 8.0)
QUICK = Size(2_000, 200, 1.0, 2.0, 0.5)


class Place(NamedTuple):
    """Where everything is."""

    fleet: Fleet
    database: Running
    store: Running
    sealer: Child


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("seal", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    _measure(report, size, PER_NODE, beats=True)
    if not quick:
        _measure(report, size, 1, beats=False)
    return report.finish()


def _measure(report: Report, size: Size, per_node: int, *, beats: bool) -> None:
    now_ms = time.time_ns() // 1_000_000
    fleet = Fleet(size.workloads, now_ms - now_ms % DAY_MS - DAY_MS, now_ms, per_node)
    with ExitStack() as stack:
        database, store = stack.enter_context(postgres()), stack.enter_context(valkey())
        asyncio.run(_registered(database.url, fleet))
        run_on_uvloop(partial(_viewed, fleet, database.url, store.url))
        options = {"database": database.url, "redis": store.url}
        sealer = stack.enter_context(python_child("bench.rig.sealer_child", options))
        sealer.answer()
        place = Place(fleet, database, store, sealer)
        figures = _sealed(place, fleet.day_ms)
        copy_s = asyncio.run(_copied(database.url))
        name = "" if per_node == PER_NODE else f".{per_node}_per_node"
        report.figures[f"seal{name}"] = rounded(figures)
        report.peers[f"copy{name}"] = rounded({"s": copy_s, "rows_per_s": fleet.workloads / copy_s})
        report.ratios[f"s_to_copy{name}"] = rounded(figures["s"] / copy_s)
        report.ratios[f"s_to_promise{name}"] = rounded(figures["s"] / SECONDS_PROMISED)
        title = f"{fleet.workloads:,} workloads of {fleet.nodes:,} nodes, one day sealed"
        report.table(f"{title} (a plain COPY: {copy_s:.2f} s)", tuple(figures), [tuple(figures.values())])
        if beats:
            _beaten(report, stack, size, place)


def _sealed(place: Place, before_ms: int) -> dict[str, float]:
    """The one day that is due then."""
    sealer, database = place.sealer, place.database
    quiet = rss_bytes(sealer.pid) / MB
    worker_s, database_s = cpu_s(sealer.pid), family_cpu_s(database.pid)
    sealer.line(str(before_ms))
    answer = sealer.answer(timeout_s=PATIENCE_S)
    assert answer["rows"] == place.fleet.workloads, answer
    return {
        "s": answer["seconds"],
        "rows_per_s": answer["rows"] / answer["seconds"],
        "worker_cpu_s": cpu_s(sealer.pid) - worker_s,
        "postgres_cpu_s": family_cpu_s(database.pid) - database_s,
        "stall_p99_ms": answer["stall_ms"]["p99"],
        "stall_max_ms": answer["stall_ms"]["max"],
        "rss_before_mb": quiet,
        "rss_max_mb": rss_max_bytes(sealer.pid) / MB,
    }


def _beaten(report: Report, stack: ExitStack, size: Size, place: Place) -> None:
    """Seal the second day while beats come."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodepulse-bench-")))
    fleet = _beating(stack, size, place, folder)
    began_s = time.perf_counter()
    # Long enough for any seal; it is over when the seal is.
    fleet.tell("run", seconds=PATIENCE_S, until=str(folder / "over"))
    time.sleep(size.settle_s + size.alone_s)
    sealed_s = time.perf_counter() - began_s
    figures = _sealed(place, place.fleet.day_ms + DAY_MS)
    over_s = time.perf_counter() - began_s
    time.sleep(size.alone_s)
    ended_s = time.perf_counter() - began_s
    (folder / "over").touch()
    said = fleet.answer()
    by_second = said["ack_ms_by_second"]
    # Before and after, so that a machine that others load more and more is not held against the seal.
    alone = _told(_within(by_second, size.settle_s, sealed_s) + _within(by_second, over_s, ended_s))
    during = _told(_within(by_second, int(sealed_s), max(over_s, int(sealed_s) + 1)))
    report.figures["seal_beaten"] = rounded(figures)
    report.figures["beats"] = rounded({"alone": alone, "during": during})
    report.ratios["acks_during_to_alone"] = rounded(during["acks_per_s"] / alone["acks_per_s"])
    report.ratios["ack_p50_during_to_alone"] = rounded(during["p50_ms"] / alone["p50_ms"])
    report.ratios["ack_p99_during_to_alone"] = rounded(during["p99_ms"] / alone["p99_ms"])
    report.ratios["s_beaten_to_promise"] = rounded(figures["s"] / SECONDS_PROMISED)
    report.table(
        f"beats of {size.beating_rows:,} nodes, while a day is sealed in {figures['s']:.1f} s",
        ("", *alone),
        [("before and after", *alone.values()), ("meanwhile", *during.values())],
    )
    if said["late_ms_max"] > 500:
        report.note(f"the fleet itself fell {said['late_ms_max']:.0f} ms behind: the machine was busy")


def _within(by_second: list[dict[str, Any]], from_s: float, to_s: float) -> list[dict[str, Any]]:
    """Whole seconds only."""
    return [each for each in by_second if from_s <= each["second"] and each["second"] + 1 <= to_s]


def _told(seconds: list[dict[str, Any]]) -> dict[str, float]:
    """ACKs per second; the median of the seconds' p50s and p99s, the worst second and the worst ACK."""
    return {
        "seconds": len(seconds),
        "acks_per_s": float(np.mean([each["acks"] for each in seconds])),
        "p50_ms": float(np.median([each["p50"] for each in seconds])),
        "p99_ms": float(np.median([each["p99"] for each in seconds])),
        "p99_worst_second_ms": max(each["p99"] for each in seconds),
        "max_ms": max(each["max"] for each in seconds),
    }


def _beating(stack: ExitStack, size: Size, place: Place, folder: Path) -> Child:
    """An engine with stores of its own on the same servers, and its fleet."""
    url = urlunsplit(urlsplit(place.database.url)._replace(path="/beaten"))
    asyncio.run(_database(place.database.url, url, size))
    sockets = open_sockets(shards=1, queue_bytes=64 * MB)
    stack.callback(sockets.close)
    fds = [sockets.udp[0].fileno()]
    options = {
        "directory": str(folder),
        "rows": size.beating_rows,
        "workloads": PER_NODE,
        "interval_ms": INTERVAL_MS,
        "udp_fds": fds,
        "database_url": url,
        "redis_url": f"{place.store.url}?db=1",
        "settings": {"ingest": {"next_ms_rate_max": RATE_MAX}},
    }
    engine = stack.enter_context(python_child("bench.rig.engine_child", options, fds=fds))
    engine.answer()
    beats = {"port": sockets.port, "rows": size.beating_rows, "workloads": PER_NODE, "seed": 7}
    fleet = stack.enter_context(python_child("bench.rig.beater_child", {**beats, "period_s": size.period_s}))
    fleet.answer()
    engine.ask("ready")
    return fleet


async def _database(url: str, new_url: str, size: Size) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'create database "{urlsplit(new_url).path[1:]}"')
    await connection.close()
    run_migrations = asyncio.to_thread(run_on_uvloop, partial(_migrated, new_url))
    await run_migrations
    connection = await asyncpg.connect(new_url)
    born_ms = time.time_ns() // 1_000_000 - INTERVAL_MS
    await rig.register_table(connection, rows=size.beating_rows, workloads=PER_NODE, born_ms=born_ms)
    await connection.close()


async def _migrated(url: str) -> int:
    await migrate(url)
    return 0


async def _registered(url: str, fleet: Fleet) -> None:
    connection = await asyncpg.connect(url)
    await rig.register(connection, fleet)
    await rig.write_day(connection, fleet, days=2)
    await rig.days_sealed_before(connection, fleet.day_ms - DAY_MS)
    await connection.close()


async def _viewed(fleet: Fleet, database_url: str, store_url: str) -> int:
    settings = DatabaseSettings(url=database_url), RedisSettings(url=store_url)
    async with open_stores(*settings) as stores:
        await rig.write_view(stores.live, fleet, restarted=False)
    return 0


async def _copied(url: str) -> float:
    connection = await asyncpg.connect(url)
    await connection.execute("create table copied_row (like sealed_row including all)")
    with tempfile.TemporaryFile(prefix="nodepulse-bench-") as file:
        await connection.copy_from_table("sealed_row", output=file, format="binary")
        file.seek(0)
        began = time.perf_counter()
        await connection.copy_to_table("copied_row", source=file, format="binary")
        took_s = time.perf_counter() - began
    await connection.execute("drop table copied_row")
    await connection.close()
    return took_s
