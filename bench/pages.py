"""`bench pages`: the pages of the network view of 1,000,000 workloads, beside 20,000 beats a second.

The web process as it is run, over real PostgreSQL and Valkey and a real shard that writes them. Each page is
asked for at a constant rate, as a visitor with a cookie, and counts from when it was due; a promise of 200 ms
at the 95th percentile is looked at for each of them. Beside it, in the same run: the same rows by a plain SQL
statement by keyset and plain GETRANGEs of their states; and the same pages while nobody beats.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import numpy as np
from redis.asyncio import Redis

from bench.rig.beaten import beaten_installation
from bench.rig.child import Child
from bench.rig.compiled import compiled
from bench.rig.fleet import KEY, SLUG
from bench.rig.loads import Load
from bench.rig.machine import cpu_s, family_cpu_s
from bench.rig.report import Report, rounded
from bench.rig.servers import Running
from bench.rig.world import PROJECT_ID
from engine.core.liveview import ROW_BYTES
from engine.rows import id_of

MB = 1024 * 1024
P95_MS_PROMISED = 200.0
BEATS_PER_S = 20_000
NEVER_HEARD = 200  # nodes at the end of all lists: the rare ones of a state
IN_LIST = 50  # rows of a page
REQUESTS = 500  # different ones of each page, in turn
PLAIN_READS = 200


class Size(NamedTuple):
    """How much is measured."""

    rows: int
    workloads: int
    pages_per_s: int
    seconds: float  # of each page


FULL = Size(100_000, 10, 5, 10.0)
QUICK = Size(400, 2, 10, 0.5)


class System(NamedTuple):
    """All that runs."""

    size: Size
    database: Running
    view: Running
    engine: Child
    fleet: Child
    web: Child
    target: str
    program: Path
    folder: Path


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("pages", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodepulse-bench-")))
        program = compiled("load", folder)
        if program is None:
            report.note("no C compiler: there is no client lean enough, nothing was measured")
            return report.finish()
        system = _started(stack, size, folder, program)
        pages = _pages(size)
        _look(
            system, pages["network"], seconds=min(5.0, size.seconds)
        )  # nothing is measured of a cold process
        quiet = {name: _look(system, paths, seconds=size.seconds / 4) for name, paths in pages.items()}
        seconds = size.seconds * len(pages) + 60
        system.fleet.tell("run", seconds=seconds, until=str(folder / "enough"))
        time.sleep(2 if quick else 20)  # all rows have beaten, and the view has been written whole once more
        began = time.perf_counter()
        loaded = {name: _look(system, paths, seconds=size.seconds) for name, paths in pages.items()}
        beaten_s = time.perf_counter() - began
        plain = asyncio.run(_plain(system))
        (folder / "enough").touch()
        beaten = system.fleet.answer(timeout_s=seconds + 60)
    _tell(report, size, quiet, loaded, plain, beaten, beaten_s)
    return report.finish()


def _started(stack: ExitStack, size: Size, folder: Path, program: Path) -> System:
    period_s = size.rows / BEATS_PER_S if size is FULL else 1.0
    run = beaten_installation(
        stack,
        folder,
        rows=size.rows,
        workloads=size.workloads,
        never_heard=NEVER_HEARD,
        period_s=period_s,
    )
    return System(size, run.database, run.view, run.engine, run.fleet, run.web, run.target, program, folder)


def _pages(size: Size) -> dict[str, list[str]]:
    """By what is measured, the paths that are asked for in turn."""
    random = np.random.default_rng(3)
    base = f"/projects/{SLUG}"

    def many(path: Callable[[int], str]) -> list[str]:
        return [path(row) for row in random.integers(0, size.rows, REQUESTS).tolist()]

    return {
        "network": [base],
        "nodes": many(lambda row: f"{base}/nodes?after={_node(row)}"),
        "workloads": many(lambda row: f"{base}/workloads?after={_workload(row, size)}"),
        "nodes_rare_state": [f"{base}/nodes?state=new"],
        "workloads_rare_state": [f"{base}/workloads?state=new"],
        "workloads_common_state": many(lambda row: f"{base}/workloads?state=up&after={_workload(row, size)}"),
        "nodes_region": many(lambda row: f"{base}/nodes?region=region-3&after={_node(row)}"),
        "workloads_region": many(
            lambda row: f"{base}/workloads?region=region-3&after={_workload(row, size)}"
        ),
        "workloads_rare_version": [f"{base}/workloads?version=2.0.0-rc.1"],
        "nodes_name": many(lambda row: f"{base}/nodes?q=node-{row}"),
        "workloads_name": many(lambda row: f"{base}/workloads?q=inference-{row}"),
        "workloads_id": many(lambda row: f"{base}/workloads?q={_workload(row, size)[:23]}"),
    }


def _node(row: int) -> str:
    return id_of(row + (1 << 62), row)


def _workload(row: int, size: Size) -> str:
    return id_of(row, row * size.workloads)


def _look(system: System, paths: list[str], *, seconds: float) -> dict[str, float]:
    """What a page takes."""
    requests = [
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: nodepulse_login={KEY}\r\n\r\n".encode()
        for path in paths
    ]
    with Load(system.program, system.target, "http", requests * 64, folder=system.folder) as load:
        before = cpu_s(system.web.pid), family_cpu_s(system.database.pid)
        said = load.open(seconds, system.size.pages_per_s)
        after = cpu_s(system.web.pid), family_cpu_s(system.database.pid)
    web_s, database_s = (late - early for early, late in zip(before, after, strict=True))
    return {
        "pages_per_s": said["per_s"],
        "p50_ms": said["p50_us"] / 1_000,
        "p95_ms": said["p95_us"] / 1_000,
        "max_ms": said["max_us"] / 1_000,
        "refused": said["refused"],
        "web_cpu_ms_per_page": web_s * 1_000 / max(said["requests"], 1),
        "postgres_cpu_ms_per_page": database_s * 1_000 / max(said["requests"], 1),
    }


async def _plain(system: System) -> dict[str, dict[str, float]]:
    """The rows of a page of nodes and of one of workloads, and their states, by their stores alone."""
    connection = await asyncpg.connect(system.database.url)
    view = Redis.from_url(system.view.url)
    random = np.random.default_rng(5)

    async def rows_of(statement: str, after: str) -> None:
        found = await connection.fetch(statement, PROJECT_ID, after, IN_LIST)
        async with view.pipeline(transaction=False) as pipe:
            for each in found:
                pipe.getrange("np:rows:0", each["row"] * ROW_BYTES, each["row"] * ROW_BYTES + ROW_BYTES - 1)
            await pipe.execute()

    async def timed(read: Callable[[int], Awaitable[None]]) -> dict[str, float]:
        took = []
        for row in random.integers(0, system.size.rows, PLAIN_READS).tolist():
            began = time.perf_counter()
            await read(row)
            took.append((time.perf_counter() - began) * 1_000)
        p50, p95 = np.percentile(took, (50, 95)).tolist()
        return {"p50_ms": p50, "p95_ms": p95}

    nodes = "select * from node where project_id = $1 and node_id > $2 order by node_id limit $3"
    workloads = (
        'select w.*, n."row", n.name from workload w join node n using (node_id)'
        " where w.project_id = $1 and w.workload_id > $2 order by w.workload_id limit $3"
    )
    told = {
        "nodes": await timed(lambda row: rows_of(nodes, _node(row))),
        "workloads": await timed(lambda row: rows_of(workloads, _workload(row, system.size))),
    }
    await view.aclose()
    await connection.close()
    return told


def _tell(
    report: Report,
    size: Size,
    quiet: dict[str, dict[str, float]],
    loaded: dict[str, dict[str, float]],
    plain: dict[str, dict[str, float]],
    beaten: dict[str, Any],
    beaten_s: float,
) -> None:
    worst = max(loaded, key=lambda name: loaded[name]["p95_ms"])
    beats_per_s = beaten["sent"] / (
        beaten["ack_ms_by_second"][-1]["second"] + 1 if beaten["acks"] else beaten_s
    )
    beats = {"beats_per_s": beats_per_s, "ack_p99_ms": beaten["ack_ms"]["p99"]}
    report.figures["loaded"] = rounded({**loaded, "beats": beats})
    report.peers["quiet"] = rounded(quiet)
    report.peers["plain"] = rounded(plain)
    report.ratios["worst_p95_to_promise"] = rounded(loaded[worst]["p95_ms"] / P95_MS_PROMISED)
    for name, peer in plain.items():
        report.ratios[f"{name}_p95_to_plain"] = rounded(loaded[name]["p95_ms"] / peer["p95_ms"])
    columns = tuple(next(iter(loaded.values())))
    for title, told in (("no beats", quiet), (f"{beats_per_s:,.0f} beats/s", loaded)):
        report.table(
            f"{title}: pages of {size.rows * size.workloads:,} workloads, {size.pages_per_s} a second",
            ("page", *columns),
            [(name, *(each[column] for column in columns)) for name, each in told.items()],
        )
    report.table(
        "the same rows by plain SQL and GETRANGE, while beats arrive",
        ("rows", "p50_ms", "p95_ms"),
        [(name, each["p50_ms"], each["p95_ms"]) for name, each in plain.items()],
    )
    report.say(f"the slowest: {worst}, {loaded[worst]['p95_ms']:.0f} ms at the 95th percentile")
    if any(each["refused"] for told in (quiet, loaded) for each in told.values()):
        report.note("some pages were refused: these are no figures of pages")
    if beaten["late_ms_max"] > 500:
        report.note(f"the fleet itself fell {beaten['late_ms_max']:.0f} ms behind: the machine was busy")
