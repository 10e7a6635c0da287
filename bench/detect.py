"""`bench detect`: how late a node that falls silent is told, and what happens when very many fall at once.

A fleet beats 50,000 times a second by UDP, with ACKs. Random rows stop; a node is due DOWN three intervals
after its last beat was received (its ACK tells when that was). Lag: from then until the event is on disk.
An event of any other row is a false verdict, a stopped row without one is missed.

The outage: a tenth of 1,000,000 workloads, one per node, beat at one moment and never again. Told: how long
after the last of them is due all events stand in PostgreSQL, and the ACKs of the others meanwhile.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import numpy as np

from bench.rig.beater_child import percentiles
from bench.rig.chart import Axis, draw
from bench.rig.child import Child, python_child
from bench.rig.report import Report, rounded
from bench.rig.servers import postgres, valkey
from bench.rig.stage import open_sockets
from engine.core.timing import down_after_ms

MB = 1024 * 1024
LAG_MS_MAX = 250.0  # p99, as promised
OUTAGE_S_MAX, OUTAGE_ACK_MS_MAX = 10.0, 250.0
RATE_MAX = 1e9  # the engine stretches no interval: the fleet's own pace is what is measured


class World(NamedTuple):
    rows: int
    workloads: int
    period_s: float  # how often each row beats, and its interval
    stopping: int
    after_s: float  # the fleet goes on for so long after the last of them is due

    @property
    def name(self) -> str:
        return f"rows_{self.rows}.workloads_{self.workloads}"


class Size(NamedTuple):
    """How much is measured."""

    worlds: tuple[World, ...]
    outage: World


FULL = Size(
    (World(100_000, 10, 2.0, 1_000, 5.0), World(1_000_000, 1, 20.0, 1_000, 5.0)),
    World(1_000_000, 1, 20.0, 100_000, 15.0),
)
QUICK = Size((World(500, 10, 1.0, 10, 1.0),), World(500, 1, 1.0, 20, 2.0))


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("detect", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    for world in size.worlds:
        _tell_lag(report, world, _lag(world))
    _tell_outage(report, size.outage, _outage(size.outage))
    return report.finish()


def _started(stack: ExitStack, world: World, **options: Any) -> tuple[Child, Child]:
    """The shard and its fleet."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodepulse-bench-")))
    sockets = open_sockets(shards=1, queue_bytes=256 * MB)
    stack.callback(sockets.close)
    fds = [sockets.udp[0].fileno()]
    engine = stack.enter_context(
        python_child(
            "bench.rig.engine_child",
            {
                "directory": str(folder),
                "rows": world.rows,
                "workloads": world.workloads,
                "interval_ms": int(world.period_s * 1_000),
                "udp_fds": fds,
                "settings": {"ingest": {"next_ms_rate_max": RATE_MAX}},
                **options,
            },
            fds=fds,
        )
    )
    engine.answer()
    fleet = stack.enter_context(
        python_child(
            "bench.rig.beater_child",
            {
                "port": sockets.port,
                "rows": world.rows,
                "workloads": world.workloads,
                # A little ahead of the deadline, as a client that is told `next_ms` is.
                "period_s": world.period_s * 0.95,
                "seed": 7,
            },
        )
    )
    fleet.answer()
    engine.ask("ready")  # the whole live view has been written
    return engine, fleet


def _lag(world: World) -> dict[str, Any]:
    with ExitStack() as stack:
        engine, fleet = _started(stack, world, log_events=True)
        until_s = 1.5 * world.period_s + 2.0
        seconds = until_s + 3 * world.period_s + world.after_s
        beaten = fleet.ask(
            "run",
            seconds=seconds,
            stopping=world.stopping,
            stop_from_s=1.1 * world.period_s,
            stop_until_s=until_s,
            timeout_s=seconds + 60,
        )
        events = engine.ask("events")["events"]
        counted = engine.ask("statistics")
    due = {row: server_ms + down_after_ms(ttl_ms) for row, server_ms, ttl_ms in beaten["stopped"]}
    downs = [(row, at_ms) for kind, row, _since, at_ms in events if kind == "node.down"]
    told = {row for row, _ in downs}
    return {
        "lag_ms": percentiles(np.array([at_ms - due[row] for row, at_ms in downs if row in due])),
        "stopped": len(due),
        "missed": len(due.keys() - told),
        "false": sum(row not in due for row in told) + len(downs) - len(told),
        "early": sum(row in due and at_ms < due[row] for row, at_ms in downs),
        "beats_per_s": beaten["sent"] / seconds,
        "ack_ms": beaten["ack_ms"],
        "unanswered": beaten["sent"] - beaten["acks"],
        "fleet_late_ms_max": beaten["late_ms_max"],
        "engine_cpu_share": counted["process_cpu_s"] / seconds,
        "rss_bytes": counted["rss_bytes"],
        "unobserved_ms": counted["unobserved_ms"],
    }


def _tell_lag(report: Report, world: World, measured: dict[str, Any]) -> None:
    report.figures[f"lag.{world.name}"] = rounded(measured)
    if measured["lag_ms"]:
        report.ratios[f"lag_p99_to_promise.{world.name}"] = rounded(measured["lag_ms"]["p99"] / LAG_MS_MAX)
    lag = {key: measured["lag_ms"].get(key) for key in ("p50", "p99", "max")}
    report.table(
        f"{world.rows:,} nodes of {world.workloads}, {measured['beats_per_s']:,.0f} beats/s",
        ("stopped", "missed", "false", "early", "lag p50 ms", "p99", "max", "ack p50 ms", "p99"),
        [
            (
                str(measured["stopped"]),
                *(measured[key] for key in ("missed", "false", "early")),
                *lag.values(),
                *(measured["ack_ms"][key] for key in ("p50", "p99")),
            )
        ],
    )
    _note_gaps(report, measured)
    if measured["fleet_late_ms_max"] > 500:
        report.note(
            f"the fleet itself fell {measured['fleet_late_ms_max']:.0f} ms behind: the machine was busy"
        )


def _note_gaps(report: Report, measured: dict[str, Any]) -> None:
    """After a stall or a loss of ours verdicts are held back for a minute or more."""
    if measured["unobserved_ms"]:
        report.note(
            f"the engine stalled, or the kernel dropped, for {measured['unobserved_ms']:,.0f} ms in all: "
            "verdicts were held back after that, and the figures here tell nothing of a machine that keeps up"
        )


def _outage(world: World) -> dict[str, Any]:
    with ExitStack() as stack:
        database, redis = stack.enter_context(postgres()), stack.enter_context(valkey())
        engine, fleet = _started(
            stack, world, database_url=database.url, redis_url=redis.url, log_events=True
        )
        together_s = 1.2 * world.period_s
        seconds = together_s + 3 * world.period_s + world.after_s
        fleet.tell(
            "run",
            seconds=seconds,
            stopping=world.stopping,
            stop_from_s=together_s,
            stop_until_s=together_s,
            together_at_s=together_s,
        )
        time.sleep(together_s / 2)
        engine.ask("snapshot")  # memory is compared with what it was after a usual minute
        before = engine.ask("statistics")
        found = asyncio.run(_wait_for_events(database.url, world.stopping, timeout_s=seconds))
        beaten = fleet.answer(timeout_s=seconds + 60)
        on_disk = engine.ask("events")["events"]  # the bench's own log of them is no memory of the engine's
        engine.ask("snapshot")
        after = engine.ask("statistics")
    downs = [(row, at_ms) for kind, row, _since, at_ms in on_disk if kind == "node.down"]
    fallen = {row for row, *_ in beaten["stopped"]}
    due = [server_ms + down_after_ms(ttl_ms) for _, server_ms, ttl_ms in beaten["stopped"]]
    first, last = min(due) / 1_000, max(due) / 1_000
    began = beaten["began_unix_ms"] / 1_000
    during = [
        each
        for each in beaten["ack_ms_by_second"]
        if first - began - 1 <= each["second"] <= found["complete_s"] - began
    ]
    return {
        "fallen": len(due),
        "due_within_s": last - first,
        "events_in_postgres": found["events"],
        "on_disk_s_after_last_due": max(at_ms for _, at_ms in downs) / 1_000 - last if downs else None,
        "in_postgres_s_after_last_due": found["complete_s"] - last,
        "in_postgres_s_after_first_due": found["complete_s"] - first,
        "false": sum(row not in fallen for row, _ in downs),
        "ack_p99_ms_worst_second": max(each["p99"] for each in during),
        "ack_p50_ms_median_second": statistics.median(each["p50"] for each in during),
        "rss_bytes_before": before["rss_bytes"],
        "rss_bytes_after": after["rss_bytes"],
        "unobserved_ms": after["unobserved_ms"],
        "beats_per_s": beaten["sent"] / seconds,
        "ack_ms_by_second": beaten["ack_ms_by_second"],
        "first_due_second": first - began,
        "complete_second": found["complete_s"] - began,
    }


async def _wait_for_events(url: str, wanted: int, *, timeout_s: float) -> dict[str, float]:
    """Until so many events stand in PostgreSQL or the time is over; how many do, and when that was (unix)."""
    connection = await asyncpg.connect(url)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            count = await connection.fetchval("select count(*) from event where kind = 'node.down'")
            if count >= wanted or time.monotonic() > deadline:
                return {"events": count, "complete_s": time.time()}
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


def _tell_outage(report: Report, world: World, measured: dict[str, Any]) -> None:
    by_second = measured.pop("ack_ms_by_second")
    report.figures[f"outage.{world.name}"] = rounded(measured)
    _note_gaps(report, measured)
    if measured["events_in_postgres"] < measured["fallen"]:
        report.note(f"only {measured['events_in_postgres']:,} events came into PostgreSQL while we waited")
    report.ratios["outage_s_to_promise"] = rounded(measured["in_postgres_s_after_last_due"] / OUTAGE_S_MAX)
    report.ratios["outage_ack_p99_to_promise"] = rounded(
        measured["ack_p99_ms_worst_second"] / OUTAGE_ACK_MS_MAX
    )
    report.ratios["outage_rss_after_to_before"] = rounded(
        measured["rss_bytes_after"] / measured["rss_bytes_before"]
    )
    report.table(
        f"outage: {measured['fallen']:,} of {world.rows:,} nodes at once",
        ("what", "value"),
        [
            ("due within, s", measured["due_within_s"]),
            ("on disk after the last was due, s", measured["on_disk_s_after_last_due"]),
            ("in PostgreSQL after the last was due, s", measured["in_postgres_s_after_last_due"]),
            ("ACK p99 of the worst second, ms", measured["ack_p99_ms_worst_second"]),
            ("ACK p50 of the median second, ms", measured["ack_p50_ms_median_second"]),
            ("false verdicts", measured["false"]),
            ("memory before, MB", measured["rss_bytes_before"] / MB),
            ("memory after, MB", measured["rss_bytes_after"] / MB),
        ],
    )
    draw(
        report.svg_path(),
        title=f"ACKs while {measured['fallen']:,} nodes fall, at second {measured['first_due_second']:.0f}",
        x=Axis("second"),
        y=Axis("ms", log=True),
        lines={
            key: [(each["second"], each[key]) for each in by_second if key in each]
            for key in ("p50", "p99", "max")
        },
    )
