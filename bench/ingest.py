"""`bench ingest`: beats by UDP, fully processed, beside a C receiver that does nothing and Valkey's SET.

Ours: verified, replay-checked, journaled with fdatasync, applied, answered (or NO_ACK), by a real shard on
real sockets. Rows are UP and have beaten before; they beat in random order, far more often than they are
asked to, so every answer is EARLY: recorded and answered like any other. Ours and the peer are measured in
turns, `drain` and `flow` (bench/rig/stage.py), and the median of the turns is told.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.compiled import compiled
from bench.rig.report import Report, rounded
from bench.rig.stage import Line, Taken, c_line, engine_line

INTERVAL_MS = 3_600_000  # rows must not fall silent while others are measured
WARM_FRAMES = 1 << 20


class Size(NamedTuple):
    """How much is measured."""

    rows: tuple[int, ...]
    rows_wide: tuple[int, ...]  # with 64 workloads
    shards: tuple[int, ...]
    frames: int
    turns: int


FULL = Size((1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000), (1, 2), 1 << 17, 5)
QUICK = Size((1_000, 10_000), (1_000,), (1, 2), 1 << 13, 1)


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
    worlds = [
        World(rows, workloads, shards)
        for shards in size.shards
        for workloads, all_rows in ((1, size.rows), (64, size.rows_wide))
        for rows in all_rows
    ]
    with tempfile.TemporaryDirectory(prefix="nodepulse-bench-") as folder:
        program = compiled("receiver", Path(folder))
        if program is None:
            report.note("no C compiler: measured without the C receiver")
        measured = {world: _measure(world, Path(folder), program, size) for world in worlds}
    _tell(report, measured)
    return report.finish()


def _measure(world: World, folder: Path, program: Path | None, size: Size) -> dict[str, Any]:
    """Figures of one world: "ack.drain" -> ours and, beside it, the C receiver's of the same turns."""
    own = folder / world.name
    with ExitStack() as stack:
        lines: dict[str, dict[bool, Line]] = {}
        ours = engine_line(
            stack, own, rows=world.rows, workloads=world.workloads, shards=world.shards,
            interval_ms=INTERVAL_MS,
        )  # fmt: skip
        lines["ours"] = {True: ours, False: ours}
        if program is not None:
            lines["c"] = {
                no_ack: c_line(stack, program, answers=not no_ack, rows=world.rows)
                for no_ack in (True, False)
            }
        for _ in range(0, world.rows, size.frames):
            ours.drain(min(world.rows, size.frames), no_ack=True)
        turns: dict[str, dict[str, list[Taken]]] = {}
        for _ in range(size.turns):
            for no_ack in (True, False):
                for way in ("drain", "flow"):
                    per_peer = turns.setdefault(f"{'no_ack' if no_ack else 'ack'}.{way}", {})
                    for who, by_ack in lines.items():
                        taken = getattr(by_ack[no_ack], way)(size.frames, no_ack=no_ack)
                        per_peer.setdefault(who, []).append(taken)
        return {name: _summary(world, per_peer) for name, per_peer in turns.items()}


def _summary(world: World, per_peer: dict[str, list[Taken]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for who, turns in per_peer.items():
        figures[who] = {
            "cpu_us_per_frame": statistics.median(each.cpu_us_per_frame for each in turns),
            "frames_per_s": statistics.median(each.frames_per_s for each in turns),
            "frames_per_s_best": max(each.frames_per_s for each in turns),
            "acks_per_frame": turns[-1].acks / turns[-1].frames,
        }
    last = per_peer["ours"][-1].said
    figures["ours"]["workload_beats_per_s"] = figures["ours"]["frames_per_s"] * world.workloads
    figures["ours"]["rejected"] = sum(last["rejected"].values())
    figures["ours"]["actors_woken"] = last["actors_started"]
    if "c" in per_peer:
        pairs = zip(per_peer["c"], per_peer["ours"], strict=True)
        figures["of_c_by_cpu"] = statistics.median(
            c.cpu_us_per_frame / us.cpu_us_per_frame for c, us in pairs
        )
    return figures


def _tell(report: Report, measured: dict[World, dict[str, Any]]) -> None:
    rows = []
    for world, by_way in measured.items():
        for way, figures in by_way.items():
            ours, c = figures["ours"], figures.get("c", {})
            rows.append(
                (
                    f"{world.rows:,} x {world.workloads}", world.shards, way,
                    ours["cpu_us_per_frame"], c.get("cpu_us_per_frame"), figures.get("of_c_by_cpu"),
                    ours["frames_per_s"], c.get("frames_per_s"), ours["workload_beats_per_s"],
                )
            )  # fmt: skip
        report.figures[world.name] = rounded({way: figures["ours"] for way, figures in by_way.items()})
        report.peers[f"c_receiver.{world.name}"] = rounded(
            {way: figures["c"] for way, figures in by_way.items() if "c" in figures}
        )
        for way, figures in by_way.items():
            if "of_c_by_cpu" in figures:
                report.ratios[f"of_c_by_cpu.{way}.{world.name}"] = rounded(figures["of_c_by_cpu"])
    columns = (
        "rows x workloads",
        "shards",
        "way",
        "us cpu/frame",
        "C",
        "of C",
        "frames/s",
        "C",
        "workload-beats/s",
    )
    report.table("UDP frames, fully processed", columns, rows)
