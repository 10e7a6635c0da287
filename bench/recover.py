"""`bench recover`: an engine with a million workloads is killed (SIGKILL) under load; how soon is it back?

A fleet beats 16,700 times a second by UDP and does not stop when the engine dies: what it sends meanwhile
waits in the sockets, which the parent process keeps. Since the last snapshot the journal has grown for half a
snapshot interval, or for a whole one (the worst case). Told, from the start of the new process on: journal
replayed, listening, sockets drained, first ACK, all of it readable in the live view. Beside it the limit: a
plain read of the same bytes. The stores are real.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.child import python_child
from bench.rig.machine import disk
from bench.rig.plain_read import forget, read_through
from bench.rig.report import Report, rounded
from bench.rig.servers import postgres, valkey
from bench.rig.stage import open_sockets
from engine import snapshot
from engine.journal_blocks import segments

MB = 1024 * 1024
READY_S_MAX = 10.0  # as promised
QUEUE_BYTES = 384 * MB
NO_SNAPSHOTS_S = 1e6
AFTER_S = 20.0  # the fleet goes on for so long after the kill
STEPS = ("replayed", "listening", "drained", "applied", "first_ack", "readable")


class World(NamedTuple):
    rows: int
    workloads: int
    period_s: float  # how often each row beats: its interval
    journal_s: float  # from the snapshot to the kill
    after_s: float = AFTER_S

    @property
    def name(self) -> str:
        return f"rows_{self.rows}.workloads_{self.workloads}.journal_s_{self.journal_s:g}"


FULL = (
    World(1_000_000, 1, 60.0, 30.0),
    World(1_000_000, 1, 60.0, 60.0),
    World(100_000, 10, 6.0, 60.0),
)
QUICK = (World(2_000, 2, 2.0, 1.0, after_s=2.0),)


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("recover", as_json=as_json, quick=quick, svg=svg)
    rows = []
    for world in QUICK if quick else FULL:
        measured, read = _measure(world)
        report.figures[world.name] = rounded(measured)
        report.peers[f"plain_read.{world.name}"] = rounded(read)
        report.ratios[f"ready_to_promise.{world.name}"] = rounded(measured["readable_s"] / READY_S_MAX)
        for peer in ("warm", "cold"):
            ratio = measured["replayed_s"] / read[f"{peer}_s"]
            report.ratios[f"replayed_to_{peer}_read.{world.name}"] = rounded(ratio)
        rows.append(
            (
                f"{world.rows:,} x {world.workloads}, {world.journal_s:g} s",
                measured["replayed_beats"],
                read["bytes"] / MB,
                *(measured[f"{step}_s"] for step in STEPS),
                read["warm_s"],
                read["cold_s"],
                measured["missing"],
            )
        )
    report.table(
        "killed; seconds from the start of the new process",
        ("rows x workloads, journal", "beats", "MB read", *STEPS, "read warm", "cold", "acked, lost"),
        rows,
    )
    return report.finish()


def _measure(world: World) -> tuple[dict[str, Any], dict[str, float]]:
    """Seconds since the start of the second engine by step, and the limit."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodepulse-bench-")))
        database, redis = stack.enter_context(postgres()), stack.enter_context(valkey())
        sockets = open_sockets(shards=1, queue_bytes=QUEUE_BYTES)
        stack.callback(sockets.close)
        fds = [sockets.udp[0].fileno()]
        size = {"rows": world.rows, "workloads": world.workloads}
        options = {
            **size,
            "directory": str(folder),
            "interval_ms": int(world.period_s * 1_000),
            "udp_fds": fds,
            "database_url": database.url,
            "redis_url": redis.url,
            "settings": {"journal": {"snapshot_interval_s": NO_SNAPSHOTS_S}},
        }
        first = stack.enter_context(python_child("bench.rig.engine_child", options, fds=fds))
        first.answer()
        beats = {"port": sockets.port, "period_s": world.period_s, "seed": 7, **size}
        fleet = stack.enter_context(python_child("bench.rig.beater_child", beats))
        fleet.answer()
        first.ask("ready")
        first.ask("snapshot")
        seconds = world.journal_s + world.after_s
        fleet.tell("run", seconds=seconds)
        time.sleep(world.journal_s)
        first.kill()
        killed_s = time.time()
        options["recovered"] = True
        second = stack.enter_context(python_child("bench.rig.engine_child", options, fds=fds))
        told = second.answer()
        steps = {**told, **second.ask("ready")}
        beaten = fleet.answer(timeout_s=seconds + 60)
        steps |= {"replayed_s": told["recovered_s"], "first_ack_s": beaten["silence_until_unix_s"]}
        acked = folder / "acked.npy"
        fleet.ask("save", path=str(acked))
        measured = {
            **{f"{step}_s": steps[f"{step}_s"] - killed_s for step in STEPS},
            "replayed_beats": told["replayed_beats"],
            "waiting_datagrams": steps["taken_from_sockets"],
            "beats_per_s": beaten["sent"] / seconds,
            "unanswered": beaten["sent"] - beaten["acks"],
            "rss_bytes": told["rss_bytes"],
            "disk": disk(folder),
            **second.ask("missing", acked=str(acked)),
        }
        return measured, _plain_read(folder / "0", told["journal_end"])


def _plain_read(folder: Path, journal_end: int) -> dict[str, float]:
    """Seconds to read the snapshot and the journal behind it, from the disk and from the page cache."""
    position = snapshot.oldest_position(folder)
    files = [(next(folder.glob(f"*{snapshot.SUFFIX}")), 0, 2**62)]
    for segment in segments(folder):
        if segment.position < journal_end:
            files.append((segment.path, max(0, position - segment.position), journal_end - segment.position))
    for path, _, _ in files:
        forget(path)
    found: dict[str, float] = {}
    for name in ("cold", "warm"):
        began = time.perf_counter()
        count = sum(read_through(*file) for file in files)
        found |= {f"{name}_s": time.perf_counter() - began, "bytes": count}
    return found
