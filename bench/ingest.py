"""`bench ingest`: beats by UDP, fully processed, beside a C receiver that does nothing and Valkey's SET.

Ours: verified, replay-checked, journaled with fdatasync, applied, answered (or NO_ACK), by a real shard on
real sockets. Rows are UP and have beaten before; they beat in random order, far more often than they are
asked to, so every answer is EARLY: recorded and answered like any other. Ours and the peers are measured in
turns, `drain` and `flow` (bench/rig/stage.py), and the median of the turns is told.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.chart import Axis, draw
from bench.rig.compiled import compiled
from bench.rig.loads import CONNECTIONS, Load
from bench.rig.machine import cpu_s
from bench.rig.report import Report, rounded
from bench.rig.servers import Running, tcp_port, valkey
from bench.rig.stage import Line, Taken, c_line, engine_line

INTERVAL_MS = 3_600_000  # rows must not fall silent while others are measured
WAYS = tuple((no_ack, way) for no_ack in (True, False) for way in ("drain", "flow"))
VALKEY_KEYS = 100_000
# Over loopback like the beats; over a unix socket for whoever has Valkey on the same machine.
VALKEY_WAYS = {
    "set": ("tcp", CONNECTIONS, 1),
    "set_pipelined_16": ("tcp", CONNECTIONS, 16),
    "set_1_connection": ("tcp", 1, 1),
    "set_unix": ("unix", CONNECTIONS, 1),
}


class Size(NamedTuple):
    """How much is measured."""

    rows: tuple[int, ...]
    rows_wide: tuple[int, ...]  # with 64 workloads
    shards: tuple[int, ...]
    frames: int
    turns: int
    valkey_s: float


FULL = Size((1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000), (1, 2), 1 << 17, 5, 1.0)
QUICK = Size((1_000, 10_000), (1_000,), (1, 2), 1 << 13, 1, 0.1)


class World(NamedTuple):
    rows: int
    workloads: int
    shards: int

    @property
    def name(self) -> str:
        return f"rows_{self.rows}.workloads_{self.workloads}.shards_{self.shards}"


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("ingest", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    measured: dict[World, dict[str, Any]] = {}
    sets: dict[str, list[dict[str, float]]] = {name: [] for name in VALKEY_WAYS}
    with tempfile.TemporaryDirectory(prefix="nodepulse-bench-") as name, valkey() as store:
        folder = Path(name)
        receiver, load = compiled("receiver", folder), compiled("load", folder)
        if receiver is None:
            report.note("no C compiler: measured without the C receiver and without Valkey")
        for world in _worlds(size):
            report.say(f"measuring {world.rows:,} rows of {world.workloads}, {world.shards} shard(s)")
            measured[world] = _measure(world, folder, receiver, size)
            if load is not None and world.shards == 1:
                _measure_valkey(store, load, folder, size, sets)
    _tell(report, measured)
    _compare(report, measured, sets)
    _draw(report, measured)
    return report.finish()


def _worlds(size: Size) -> list[World]:
    return [
        World(rows, workloads, shards)
        for shards in size.shards
        for workloads, all_rows in ((1, size.rows), (64, size.rows_wide))
        for rows in all_rows
    ]


def way_name(no_ack: bool, way: str) -> str:
    return f"{'no_ack' if no_ack else 'ack'}.{way}"


def _measure(world: World, folder: Path, receiver: Path | None, size: Size) -> dict[str, Any]:
    """Figures of one world by way, e.g. "ack.drain": ours, and the C receiver's of the same turns."""
    with ExitStack() as stack:
        ours = engine_line(
            stack,
            folder / world.name,
            rows=world.rows,
            workloads=world.workloads,
            shards=world.shards,
            interval_ms=INTERVAL_MS,
        )
        lines: dict[str, dict[bool, Line]] = {"ours": {True: ours, False: ours}}
        if receiver is not None:
            lines["c"] = {
                no_ack: c_line(stack, receiver, answers=not no_ack, rows=world.rows)
                for no_ack in (True, False)
            }
        for _ in range(0, world.rows, size.frames):
            ours.drain(min(world.rows, size.frames), no_ack=True)  # every row once, unmeasured
        turns: dict[str, dict[str, list[Taken]]] = {}
        for _ in range(size.turns):
            for no_ack, way in WAYS:
                per_peer = turns.setdefault(way_name(no_ack, way), {})
                for who, by_ack in lines.items():
                    taken = getattr(by_ack[no_ack], way)(size.frames, no_ack=no_ack)
                    per_peer.setdefault(who, []).append(taken)
        return {name: _summary(world, per_peer) for name, per_peer in turns.items()}


def _summary(world: World, per_peer: dict[str, list[Taken]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for who, turns in per_peer.items():
        figures[who] = {
            "cpu_us_per_frame": statistics.median(each.cpu_us_per_frame for each in turns),
            "cpu_us_per_frame_best": min(each.cpu_us_per_frame for each in turns),
            "frames_per_s": statistics.median(each.frames_per_s for each in turns),
            "frames_per_s_best": max(each.frames_per_s for each in turns),
            "acks_per_frame": turns[-1].acks / turns[-1].frames,
        }
    last = per_peer["ours"][-1].said
    figures["ours"]["workload_beats_per_s"] = figures["ours"]["frames_per_s"] * world.workloads
    figures["ours"]["rejected"] = sum(last["rejected"].values())
    figures["ours"]["actors_woken"] = last["actors_started"]
    if "c" in per_peer:
        pairs = list(zip(per_peer["c"], per_peer["ours"], strict=True))
        figures["of_c_by_cpu"] = statistics.median(
            c.cpu_us_per_frame / us.cpu_us_per_frame for c, us in pairs
        )
        figures["of_c_by_rate"] = statistics.median(us.frames_per_s / c.frames_per_s for c, us in pairs)
    return figures


def _measure_valkey(
    store: Running, load: Path, folder: Path, size: Size, sets: dict[str, list[dict[str, float]]]
) -> None:
    keys = (b"beat:%d" % number for number in range(VALKEY_KEYS))
    requests = [
        b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\n1\r\n$2\r\nEX\r\n$2\r\n90\r\n" % (len(key), key)
        for key in keys
    ]
    targets = {"unix": f"unix:{store.socket_path}", "tcp": f"tcp:127.0.0.1:{tcp_port(store)}"}
    for name, (network, connections, pipeline) in VALKEY_WAYS.items():
        with Load(
            load,
            targets[network],
            "resp",
            requests,
            folder=folder,
            connections=connections,
            pipeline=pipeline,
        ) as client:
            before = cpu_s(store.pid)
            said = client.closed(size.valkey_s)
            used = cpu_s(store.pid) - before
        sets[name].append({"sets_per_s": said["per_s"], "cpu_us_per_set": used / said["requests"] * 1e6})


def _tell(report: Report, measured: dict[World, dict[str, Any]]) -> None:
    rows = []
    for world, by_way in measured.items():
        for way, figures in by_way.items():
            ours, c = figures["ours"], figures.get("c", {})
            rows.append(
                (
                    f"{world.rows:,} x {world.workloads}",
                    world.shards,
                    way,
                    ours["cpu_us_per_frame"],
                    c.get("cpu_us_per_frame"),
                    figures.get("of_c_by_cpu"),
                    ours["frames_per_s"],
                    c.get("frames_per_s"),
                    ours["workload_beats_per_s"],
                )
            )
        report.figures[world.name] = rounded({way: figures["ours"] for way, figures in by_way.items()})
        report.peers[f"c_receiver.{world.name}"] = rounded(
            {way: figures["c"] for way, figures in by_way.items() if "c" in figures}
        )
    columns = ("rows x workloads", "shards", "way", "us cpu/frame", "C", "share of C")
    rates = ("frames/s", "C", "workload-beats/s")
    report.table("UDP frames, fully processed; processor time of the receiver", (*columns, *rates), rows)


def _compare(
    report: Report, measured: dict[World, dict[str, Any]], sets: dict[str, list[dict[str, float]]]
) -> None:
    """The ratios that are promised: one shard, medians over the worlds."""
    plain = {world: ways for world, ways in measured.items() if world.shards == 1}
    for no_ack, way in WAYS:
        name = way_name(no_ack, way)
        for share in ("of_c_by_cpu", "of_c_by_rate"):
            found = [ways[name][share] for ways in plain.values() if share in ways[name]]
            if found:
                report.ratios[f"{share}.{name}"] = rounded(statistics.median(found))
        costs = [
            ways[name]["ours"]["cpu_us_per_frame"] for world, ways in plain.items() if world.workloads == 1
        ]
        report.ratios[f"dearest_to_cheapest_by_rows.{name}"] = rounded(max(costs) / min(costs))
    if not any(sets.values()):
        return
    peers = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in sets.items()
    }
    report.peers["valkey"] = rounded(peers)
    report.table(
        "Valkey SET key 1 EX 90 over loopback, and over a unix socket",
        ("way", "sets/s", "us cpu/set"),
        [(name, run["sets_per_s"], run["cpu_us_per_set"]) for name, run in peers.items()],
    )
    for what, workloads in (("frames", 1), ("workload_beats", 64)):
        ours = [
            ways["ack.flow"]["ours"]["frames_per_s"]
            for world, ways in plain.items()
            if world.workloads == workloads
        ]
        for name, run in peers.items():
            ratio = statistics.median(ours) * workloads / run["sets_per_s"]
            report.ratios[f"ack.{what}_to_valkey_{name}"] = rounded(ratio)


def _draw(report: Report, measured: dict[World, dict[str, Any]]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for world, by_way in measured.items():
        if world.shards != 1:
            continue
        for way in ("no_ack.drain", "ack.drain"):
            for who in ("ours", "c"):
                if who in by_way[way] and (who == "ours" or world.workloads == 1):
                    name = f"{who} {way.split('.')[0]}" + (f" x {world.workloads}" if who == "ours" else "")
                    point = (float(world.rows), by_way[way][who]["cpu_us_per_frame"])
                    lines.setdefault(name, []).append(point)
    draw(
        report.svg_path(),
        title="Processor time of the receiver per UDP frame",
        x=Axis("rows", log=True),
        y=Axis("us"),
        lines=lines,
    )
