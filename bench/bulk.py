"""`bench bulk`: the uptime of a million workloads for one day, over HTTP from the web process as it is run.

Real PostgreSQL and Valkey. Nine in ten were up all day, the others had outages; once while the row that held
all day is still open, and once after it was closed (as by a restart of the engine), when every answer is in
history. Beside it, in the same run, the limit: a plain COPY of as many rows of the same registry.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from bench.rig import fleet as rig
from bench.rig.child import Child, python_child
from bench.rig.fleet import DAY_MS, KEY, SLUG, Fleet
from bench.rig.machine import cpu_s, family_cpu_s, rss_bytes, rss_max_bytes
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey
from storage.bridge import run_on_uvloop
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings

MB = 1024 * 1024
READ_BYTES = 256 * 1024
SECONDS_PROMISED, MB_PROMISED = 30.0, 300.0
WORKLOADS, WORKLOADS_QUICK = 1_000_000, 2_000
_COPY = """
select w.workload_id, w.name, w.slot, w.created_ms, w.first_report_ms, n.node_id, n.name, n."row", n.owner_id
from workload w join node n using (node_id) order by w.workload_id
"""


class Place(NamedTuple):
    """Where everything is."""

    report: Report
    fleet: Fleet
    database: Running
    store: Running


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("bulk", as_json=as_json, quick=quick, svg=svg)
    now_ms = time.time_ns() // 1_000_000
    fleet = Fleet(WORKLOADS_QUICK if quick else WORKLOADS, now_ms - now_ms % DAY_MS - DAY_MS, now_ms)
    with postgres() as database, valkey() as store:
        place = Place(report, fleet, database, store)
        asyncio.run(_registered(place))
        _measure(place, "open", restarted=False)
        asyncio.run(_closed(place))
        _measure(place, "closed", restarted=True)
    return report.finish()


async def _registered(place: Place) -> None:
    connection = await asyncpg.connect(place.database.url)
    began = time.perf_counter()
    await rig.register(connection, place.fleet)
    rows = await rig.write_day(connection, place.fleet)
    took_s = time.perf_counter() - began
    place.report.say(f"{place.fleet.workloads:,} workloads and {rows:,} rows of history in {took_s:.0f} s")
    place.report.figures["history_rows"] = rows
    await connection.close()


async def _closed(place: Place) -> None:
    connection = await asyncpg.connect(place.database.url)
    await rig.close_all(connection, place.fleet)
    await connection.close()


def _measure(place: Place, name: str, *, restarted: bool) -> None:
    """Each form once, the limit before them."""
    run_on_uvloop(partial(_viewed, place, restarted))
    limit_s = asyncio.run(_copied(place))
    place.report.peers[f"copy.{name}"] = rounded(
        {"s": limit_s, "rows_per_s": place.fleet.workloads / limit_s}
    )
    told: list[tuple[Any, ...]] = []
    for form in ("ndjson", "csv"):
        figures = _streamed(place, form)
        place.report.figures[f"{name}.{form}"] = rounded(figures)
        place.report.ratios[f"{name}.{form}_s_to_copy"] = rounded(figures["s"] / limit_s)
        place.report.ratios[f"{name}.{form}_s_to_promise"] = rounded(figures["s"] / SECONDS_PROMISED)
        place.report.ratios[f"{name}.{form}_rss_to_promise"] = rounded(figures["rss_max_mb"] / MB_PROMISED)
        told.append((form, *figures.values()))
    place.report.table(
        f"{place.fleet.workloads:,} workloads, one day, rows {name} (a plain COPY: {limit_s:.2f} s)",
        ("form", *figures),
        told,
    )


async def _viewed(place: Place, restarted: bool) -> int:
    settings = DatabaseSettings(url=place.database.url), RedisSettings(url=place.store.url)
    async with open_stores(*settings) as stores:
        await rig.write_view(stores.live, place.fleet, restarted=restarted)
    return 0


async def _copied(place: Place) -> float:
    connection = await asyncpg.connect(place.database.url)

    async def away(_data: bytes) -> None:
        """Nobody wants it."""

    began = time.perf_counter()
    await connection.copy_from_query(_COPY, output=away)
    took_s = time.perf_counter() - began
    await connection.close()
    return took_s


def _streamed(place: Place, form: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="nodepulse-bench-") as folder:
        secrets = Path(folder) / "secrets.json"
        secrets.write_text(json.dumps({"1": "ab" * 32}))
        options = {
            "database": place.database.url,
            "redis": place.store.url,
            "secrets_file": str(secrets),
            "shards": 1,
        }
        with python_child("bench.rig.web_child", options) as web:
            return _read_all(place, web, form)


def _read_all(place: Place, web: Child, form: str) -> dict[str, float]:
    address = urlsplit(web.answer()["url"])
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    day = time.strftime("%Y-%m-%d", time.gmtime(place.fleet.day_ms / 1000))
    path = f"/v1/projects/{SLUG}/uptime?format={form}&day="
    quiet = rss_bytes(web.pid) / MB
    web_s, database_s, began = cpu_s(web.pid), family_cpu_s(place.database.pid), time.perf_counter()
    connection.request("GET", path + day, headers={"authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    first_s, lines, size = 0.0, 0, 0
    while piece := answer.read1(READ_BYTES):
        first_s = first_s or time.perf_counter() - began
        lines += piece.count(b"\n")
        size += len(piece)
    took_s = time.perf_counter() - began
    assert (answer.status, lines) == (200, place.fleet.workloads + 1), (answer.status, lines)
    return {
        "s": took_s,
        "rows_per_s": place.fleet.workloads / took_s,
        "first_byte_s": first_s,
        "mb": size / MB,
        "web_cpu_s": cpu_s(web.pid) - web_s,
        "postgres_cpu_s": family_cpu_s(place.database.pid) - database_s,
        "rss_before_mb": quiet,
        "rss_max_mb": rss_max_bytes(web.pid) / MB,
    }
