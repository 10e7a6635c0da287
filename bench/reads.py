"""`bench reads`: single reads of the API at 500 a second, beside an engine that takes 50,000 beats a second.

The web process as it is run, over real PostgreSQL and Valkey and a real shard that writes them. Half of the
reads ask how a workload is now, half for its uptime so far, of random workloads. Requests are due at a
constant rate and count from when they were due. Beside it the same reads while nobody beats.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.rig.beaten import beaten_installation
from bench.rig.child import Child
from bench.rig.compiled import compiled
from bench.rig.fleet import KEY
from bench.rig.loads import Load
from bench.rig.machine import cpu_s, family_cpu_s
from bench.rig.report import Report, rounded
from bench.rig.servers import Running
from engine.rows import id_of

MB = 1024 * 1024
P99_MS_PROMISED = 20.0
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
    run = beaten_installation(
        stack, folder, rows=size.rows, workloads=size.workloads, period_s=size.period_s * 0.95
    )
    load = Load(program, run.target, "http", _requests(size), folder=folder)
    return System(size, run.database, run.engine, run.fleet, run.web, stack.enter_context(load))


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
