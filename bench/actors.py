"""`bench actors`: what a supervised actor costs to start, to keep, to wake, and in a transition.

Live (a parked task each) and passivated (a task only while something changes), from 10,000 to 1,000,000
nodes of one workload; beside each the limit, bare parked trio tasks. Then a whole shard with 100,000 nodes
of ten workloads: all of its 1,100,000 actors live, and passivated.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.chart import Axis, draw
from bench.rig.child import python_child
from bench.rig.report import Report, rounded
from bench.rig.stage import open_sockets

MB = 1024 * 1024
INTERVAL_MS = 3_600_000
LIVE_BYTES_MAX, LIVE_START_S_MAX = 2.5e9, 15.0  # what is promised of 1,100,000 actors
PASSIVE_BYTES_MAX = 400e6


class Size(NamedTuple):
    """How much is measured."""

    nodes: tuple[int, ...]
    woken: int
    whole_nodes: int


FULL = Size((10_000, 100_000, 1_000_000), 100_000, 100_000)
QUICK = Size((1_000,), 500, 500)
WORKLOADS = 10
_SHARD_FIGURES = ("start_s", "actors_live", "rss_bytes", "rss_bytes_after_snapshot")


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("actors", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    _alone(report, size)
    _whole(report, size)
    return report.finish()


def _alone(report: Report, size: Size) -> None:
    columns = ("start_s", "start_cpu_us", "bytes_per_actor", "wake_cpu_us", "down_cpu_us", "up_cpu_us")
    rows: list[tuple[Any, ...]] = []
    memory: dict[str, list[tuple[float, float]]] = {}
    for nodes in size.nodes:
        measured = {
            "live": _child(nodes=nodes, workloads=1, passivate=False, woken=size.woken),
            "passivated": _child(nodes=nodes, workloads=1, passivate=True, woken=size.woken),
        }
        bare = _child(bare=True, tasks=nodes)
        report.figures[f"nodes_{nodes}"] = rounded(measured)
        report.peers[f"bare_tasks_{nodes}"] = rounded(bare)
        report.ratios[f"live_bytes_to_bare_task.nodes_{nodes}"] = rounded(
            measured["live"]["bytes_per_actor"] / bare["bytes_per_actor"]
        )
        report.ratios[f"wake_cpu_to_bare_task.nodes_{nodes}"] = rounded(
            measured["live"]["wake_cpu_us"] / bare["wake_cpu_us"]
        )
        for name, each in (*measured.items(), ("bare task", bare)):
            told = (
                dict.fromkeys(("start_s", "start_cpu_us", "bytes_per_actor")) if name == "passivated" else {}
            )
            rows.append((f"{nodes:,} {name}", *({**each, **told}.get(column) for column in columns)))
        for name, each in (("live", measured["live"]), ("bare task", bare)):
            memory.setdefault(name, []).append((float(nodes), each["bytes_per_actor"]))
    report.table("one actor (a node of one workload)", ("nodes", *columns), rows)
    draw(
        report.svg_path(),
        title="Memory of one live actor",
        x=Axis("actors", log=True),
        y=Axis("bytes"),
        lines=memory,
    )


def _child(**options: Any) -> dict[str, Any]:
    with python_child("bench.rig.actors_child", options) as child:
        return child.answer()


def _whole(report: Report, size: Size) -> None:
    rows = []
    for passivate in (False, True):
        name = "passivated" if passivate else "live"
        whole = _shard(size.whole_nodes, passivate=passivate)
        report.figures[f"shard.nodes_{size.whole_nodes}.workloads_{WORKLOADS}.{name}"] = rounded(whole)
        memory = (whole["rss_bytes"], whole["rss_bytes_after_snapshot"])
        rows.append((name, whole["actors_live"], whole["start_s"], *(each / MB for each in memory)))
        most = PASSIVE_BYTES_MAX if passivate else LIVE_BYTES_MAX
        report.ratios[f"{name}_bytes_to_promise"] = rounded(max(memory) / most)
        if not passivate:
            report.ratios["live_start_to_promise"] = rounded(whole["start_s"] / LIVE_START_S_MAX)
    report.table(
        f"a whole shard, {size.whole_nodes:,} nodes of {WORKLOADS} workloads",
        ("mode", "actors live", "start s", "process MB", "after a snapshot"),
        rows,
    )


def _shard(nodes: int, *, passivate: bool) -> dict[str, Any]:
    """A real shard until it listens: from its first actor on, and all of its memory, then and after it has
    copied itself for a snapshot and told the live view everything."""
    sockets = open_sockets(shards=1, queue_bytes=4 * MB)
    with tempfile.TemporaryDirectory(prefix="nodepulse-bench-") as folder:
        fds = [sockets.udp[0].fileno()]
        options = {
            "directory": str(Path(folder)),
            "rows": nodes,
            "workloads": WORKLOADS,
            "interval_ms": INTERVAL_MS,
            "udp_fds": fds,
            "settings": {"liveness": {"passivate": passivate}},
        }
        with python_child("bench.rig.engine_child", options, fds=fds) as child:
            said = child.answer()
            child.ask("snapshot")
            said["rss_bytes_after_snapshot"] = child.ask("statistics")["rss_bytes"]
    sockets.close()
    return {name: value for name, value in said.items() if name in _SHARD_FIGURES}
