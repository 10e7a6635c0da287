"""`bench reads`: single reads of the API at 500 a second, beside an engine that takes 50,000 beats a second.

The web process as it is run, over real PostgreSQL and Valkey and a real shard that writes them. Half of the
reads ask how a workload is now, half for its uptime so far, of random workloads. Requests are due at a
constant rate and count from when they were due. Beside it the same reads while nobody beats.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import numpy as np

from bench.rig import fleet as rig
from bench.rig.child import Child, python_child
from bench.rig.compiled import compiled
from bench.rig.fleet import KEY
from bench.rig.loads import Load
from bench.rig.machine import cpu_s, family_cpu_s
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, postgres, valkey
from bench.rig.stage import open_sockets
from engine.rows import id_of

MB = 1024 * 1024
P99_MS_PROMISED = 20.0
INTERVAL_MS = 3_600_000  # nobody falls silent while nobody beats
RATE_MAX = 1e9  # the engine stretches no interval: the fleet's own pace is what is measured
REQUESTS = 5_000  # different ones, in turn


class Size(NamedTuple):
    """How much is measured."""

    rows: int
    workloads: int
    period_s: float  # how often each row beats
    reads_per_s: int
    seconds: float


FULL = Size(100_000, 10, 2.0, 500, 20.0)
QUICK = Size(200, 2, 1.0, 50, 1.0)


class System(NamedTuple):
    """All that runs."""

    size: Size
    database: Running
    engine: Child
    fleet: Child
    web: Child
    load: Load


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("reads", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodepulse-bench-")))
        program = compiled("load", folder)
        if program is None:
            report.note("no C compiler: there is no client lean enough, nothing was measured")
            return report.finish()
        system = _started(stack, size, folder, program)
        system.load.open(min(3.0, size.seconds), size.reads_per_s)  # nothing is measured of a cold process
        quiet = _read(system)
        system.fleet.tell("run", seconds=size.seconds + 4)
        time.sleep(2)
        loaded = _read(system)
        beaten = system.fleet.answer(timeout_s=size.seconds + 60)
    _tell(report, size, quiet, loaded, beaten)
    return report.finish()


def _started(stack: ExitStack, size: Size, folder: Path, program: Path) -> System:
    database, store = stack.enter_context(postgres()), stack.enter_context(valkey())
    asyncio.run(_registered(database.url, size))
    sockets = open_sockets(shards=1, queue_bytes=256 * MB)
    stack.callback(sockets.close)
    fds = [sockets.udp[0].fileno()]
    engine = python_child(
        "bench.rig.engine_child",
        {
            "directory": str(folder),
            "rows": size.rows,
            "workloads": size.workloads,
            "interval_ms": INTERVAL_MS,
            "udp_fds": fds,
            "database_url": database.url,
            "redis_url": store.url,
            "settings": {"ingest": {"next_ms_rate_max": RATE_MAX}},
        },
        fds=fds,
    )
    stack.enter_context(engine)
    engine.answer()
    beats = {"port": sockets.port, "rows": size.rows, "workloads": size.workloads, "seed": 7}
    fleet = stack.enter_context(
        python_child("bench.rig.beater_child", {**beats, "period_s": size.period_s * 0.95})
    )
    fleet.answer()
    engine.ask("ready")  # the whole live view has been written
    secrets = folder / "secrets.json"
    secrets.write_text(json.dumps({"1": "ab" * 32}))
    options = {"database": database.url, "redis": store.url, "secrets_file": str(secrets), "shards": 1}
    web = stack.enter_context(python_child("bench.rig.web_child", options))
    port = urlsplit(web.answer()["url"]).port
    load = Load(program, f"tcp:127.0.0.1:{port}", "http", _requests(size), folder=folder)
    return System(size, database, engine, fleet, web, stack.enter_context(load))


async def _registered(url: str, size: Size) -> None:
    connection = await asyncpg.connect(url)
    born_ms = time.time_ns() // 1_000_000 - 3_600_000
    await rig.register_table(connection, rows=size.rows, workloads=size.workloads, born_ms=born_ms)
    await connection.close()


def _requests(size: Size) -> list[bytes]:
    rows = np.random.default_rng(3).integers(0, size.rows, REQUESTS).tolist()
    paths = [
        f"/v1/workloads/{id_of(row, row * size.workloads)}{'/uptime' if number % 2 else ''}"
        for number, row in enumerate(rows)
    ]
    return [
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
        for path in paths
    ]


def _read(system: System) -> dict[str, float]:
    size = system.size
    before = cpu_s(system.web.pid), cpu_s(system.engine.pid), family_cpu_s(system.database.pid)
    said = system.load.open(size.seconds, size.reads_per_s)
    after = cpu_s(system.web.pid), cpu_s(system.engine.pid), family_cpu_s(system.database.pid)
    web_s, engine_s, database_s = (late - early for early, late in zip(before, after, strict=True))
    return {
        "reads_per_s": said["per_s"],
        "p50_ms": said["p50_us"] / 1_000,
        "p99_ms": said["p99_us"] / 1_000,
        "p999_ms": said["p999_us"] / 1_000,
        "max_ms": said["max_us"] / 1_000,
        "refused": said["refused"],
        "web_cpu_share": web_s / size.seconds,
        "web_cpu_ms_per_read": web_s * 1_000 / said["requests"],
        "engine_cpu_share": engine_s / size.seconds,
        "postgres_cpu_share": database_s / size.seconds,
    }


def _tell(
    report: Report,
    size: Size,
    quiet: dict[str, float],
    loaded: dict[str, float],
    beaten: dict[str, Any],
) -> None:
    beats_per_s = beaten["sent"] / (size.seconds + 4)
    beats = {"beats_per_s": beats_per_s, "ack_p99_ms": beaten["ack_ms"]["p99"]}
    report.figures["loaded"] = rounded({**loaded, **beats})
    report.peers["quiet"] = rounded(quiet)
    report.ratios["p99_loaded_to_promise"] = rounded(loaded["p99_ms"] / P99_MS_PROMISED)
    report.ratios["p99_loaded_to_quiet"] = rounded(loaded["p99_ms"] / quiet["p99_ms"])
    report.table(
        f"{size.reads_per_s} reads/s of {size.rows * size.workloads:,} workloads",
        ("engine", *quiet),
        [("no beats", *quiet.values()), (f"{beats_per_s:,.0f} beats/s", *loaded.values())],
    )
    if loaded["refused"] or quiet["refused"]:
        report.note("some reads were refused: these are no figures of reads")
    if beaten["late_ms_max"] > 500:
        report.note(f"the fleet itself fell {beaten['late_ms_max']:.0f} ms behind: the machine was busy")
