"""`bench seal`: a day of a million workloads sealed by the worker, in a process of its own.

Real PostgreSQL and Valkey. Nine in ten were up all day by a row that is still open in the live view, the rest
had outages. Beside it, in the same run, the limit: a plain COPY of the same rows into a table like theirs.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from functools import partial
from typing import NamedTuple

import asyncpg

from bench.rig import fleet as rig
from bench.rig.child import python_child
from bench.rig.fleet import DAY_MS, Fleet
from bench.rig.machine import cpu_s, family_cpu_s, rss_bytes, rss_max_bytes
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey
from storage.bridge import run_on_uvloop
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings

MB = 1024 * 1024
SECONDS_PROMISED = 60.0
WORKLOADS, WORKLOADS_QUICK = 1_000_000, 2_000
PATIENCE_S = 600.0


class Place(NamedTuple):
    """Where everything is."""

    report: Report
    fleet: Fleet
    database: Running
    store: Running


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("seal", as_json=as_json, quick=quick, svg=svg)
    now_ms = time.time_ns() // 1_000_000
    fleet = Fleet(WORKLOADS_QUICK if quick else WORKLOADS, now_ms - now_ms % DAY_MS - DAY_MS, now_ms)
    with postgres() as database, valkey() as store:
        place = Place(report, fleet, database, store)
        asyncio.run(_registered(place))
        run_on_uvloop(partial(_viewed, place))
        figures = _sealed(place)
        copy_s = asyncio.run(_copied(place))
    report.figures["seal"] = rounded(figures)
    report.peers["copy"] = rounded({"s": copy_s, "rows_per_s": fleet.workloads / copy_s})
    report.ratios["s_to_copy"] = rounded(figures["s"] / copy_s)
    report.ratios["s_to_promise"] = rounded(figures["s"] / SECONDS_PROMISED)
    title = f"{fleet.workloads:,} workloads, one day sealed (a plain COPY of its rows: {copy_s:.2f} s)"
    report.table(title, tuple(figures), [tuple(figures.values())])
    return report.finish()


async def _registered(place: Place) -> None:
    connection = await asyncpg.connect(place.database.url)
    await rig.register(connection, place.fleet)
    await rig.write_day(connection, place.fleet)
    await rig.days_sealed_before(connection, place.fleet)
    await connection.close()


async def _viewed(place: Place) -> int:
    settings = DatabaseSettings(url=place.database.url), RedisSettings(url=place.store.url)
    async with open_stores(*settings) as stores:
        await rig.write_view(stores.live, place.fleet, restarted=False)
    return 0


def _sealed(place: Place) -> dict[str, float]:
    options = {"database": place.database.url, "redis": place.store.url}
    with python_child("bench.rig.sealer_child", options) as sealer:
        sealer.answer()
        quiet = rss_bytes(sealer.pid) / MB
        worker_s, database_s = cpu_s(sealer.pid), family_cpu_s(place.database.pid)
        sealer.line("seal")
        answer = sealer.answer(timeout_s=PATIENCE_S)
        assert answer["rows"] == place.fleet.workloads, answer
        return {
            "s": answer["seconds"],
            "rows_per_s": answer["rows"] / answer["seconds"],
            "worker_cpu_s": cpu_s(sealer.pid) - worker_s,
            "postgres_cpu_s": family_cpu_s(place.database.pid) - database_s,
            "rss_before_mb": quiet,
            "rss_max_mb": rss_max_bytes(sealer.pid) / MB,
        }


async def _copied(place: Place) -> float:
    connection = await asyncpg.connect(place.database.url)
    await connection.execute("create table copied_row (like sealed_row including all)")
    with tempfile.TemporaryFile(prefix="nodepulse-bench-") as file:
        await connection.copy_from_table("sealed_row", output=file, format="binary")
        file.seek(0)
        began = time.perf_counter()
        await connection.copy_to_table("copied_row", source=file, format="binary")
        took_s = time.perf_counter() - began
    await connection.close()
    return took_s
