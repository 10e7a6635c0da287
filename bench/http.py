"""`bench http`: JSON beats, binary beats and pings on the real listener and shard, durable before the answer.

64 keep-alive connections from a lean client in C. `closed`: each sends as soon as it was answered, for the
rate and the processor time per request. `open`: requests are due at a constant rate whatever the answers do,
for the latency. Beside it, in turns, the limit: the same loop and parser with nothing behind them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.chart import Axis, draw
from bench.rig.child import Child, ChildFailedError, python_child
from bench.rig.compiled import compiled
from bench.rig.loads import CONNECTIONS, Load
from bench.rig.machine import cpu_s
from bench.rig.report import Report, rounded
from bench.rig.requests import binary_beats, json_beats, pings
from bench.rig.stage import open_sockets

INTERVAL_MS = 3_600_000
ROWS = 10_000
WORKLOADS = 10
RELAYED_FRAMES = 64
JSON = "json"
WIDE = f"json_{WORKLOADS}_workloads"


class Size(NamedTuple):
    """How much is measured."""

    closed_s: float
    turns: int
    open_s: float
    open_rates: tuple[int, ...]
    binary_requests: int


FULL = Size(2.0, 5, 4.0, (1_000, 5_000, 10_000, 20_000), 60_000)
QUICK = Size(0.2, 1, 0.3, (500,), 2_000)


class Server(NamedTuple):
    """What is measured: where it listens, and its process."""

    target: str
    child: Child


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("http", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodepulse-bench-")))
        program = compiled("load", folder)
        if program is None:
            report.note("no C compiler: there is no client lean enough, nothing was measured")
            return report.finish()
        engine, wide = (_engine(stack, folder, workloads) for workloads in (1, WORKLOADS))
        _Bench(program, folder, engine, wide, _bare(stack), size).run(report)
    return report.finish()


def _engine(stack: ExitStack, folder: Path, workloads: int) -> Server:
    sockets = open_sockets(shards=1)
    stack.callback(sockets.close)
    fds = [sockets.udp[0].fileno(), sockets.http.fileno()]
    options = {
        "directory": str(folder / f"engine-{workloads}"),
        "rows": ROWS,
        "workloads": workloads,
        "interval_ms": INTERVAL_MS,
        "udp_fds": fds[:1],
        "http_fd": fds[1],
    }
    child = stack.enter_context(python_child("bench.rig.engine_child", options, fds=fds))
    child.answer()
    return Server(f"tcp:127.0.0.1:{sockets.port}", child)


def _bare(stack: ExitStack) -> Server:
    sockets = open_sockets(shards=1)
    stack.callback(sockets.close)
    fd = sockets.http.fileno()
    command = [sys.executable, "-P", "-m", "bench.rig.bare_http", str(fd)]
    child = stack.enter_context(Child(command, fds=[fd]))
    child.answer()
    return Server(f"tcp:127.0.0.1:{sockets.port}", child)


class _Bench:
    """`engine` holds nodes of one workload, `wide` nodes of ten."""

    def __init__(
        self, program: Path, folder: Path, engine: Server, wide: Server, bare: Server, size: Size
    ) -> None:
        self._program, self._folder, self._size = program, folder, size
        self._engine, self._wide, self._bare = engine, wide, bare
        many = size.binary_requests
        self._kinds: dict[str, Callable[[], list[bytes]]] = {
            JSON: lambda: json_beats(CONNECTIONS, 1),
            WIDE: lambda: json_beats(CONNECTIONS, WORKLOADS),
            "json_through_a_proxy": lambda: json_beats(ROWS, 1),
            "ping": lambda: pings(CONNECTIONS),
            "binary": lambda: binary_beats(many, rows=ROWS),
            "binary_64_frames": lambda: binary_beats(many // 16, rows=ROWS, frames=RELAYED_FRAMES),
        }

    def run(self, report: Report) -> None:
        """Measure and tell."""
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in (*self._kinds, "bare")}
        for _ in range(self._size.turns):
            for kind in self._kinds:
                turns[kind].append(self._closed(kind))
            turns["bare"].append(self._closed_bare())
        figures = {
            name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for name, runs in turns.items()
        }
        for name, runs in turns.items():
            figures[name]["per_s_best"] = max(run["per_s"] for run in runs)
        columns = (
            "per_s",
            "per_s_best",
            "cpu_us_per_request",
            "p50_us",
            "p99_us",
            "p999_us",
            "commits_per_s",
        )
        report.table(
            f"closed loop, {CONNECTIONS} connections, each answer durable",
            ("kind", *columns),
            [(name, *(each.get(column) for column in columns)) for name, each in figures.items()],
        )
        report.peers["bare_loop_and_parser"] = rounded(figures.pop("bare"))
        report.figures["closed"] = rounded(figures)
        pairs = list(zip(turns["bare"], turns[JSON], strict=True))
        report.ratios["json_of_bare_by_cpu"] = rounded(
            statistics.median(bare["cpu_us_per_request"] / ours["cpu_us_per_request"] for bare, ours in pairs)
        )
        report.ratios["json_of_bare_by_rate"] = rounded(
            statistics.median(ours["per_s"] / bare["per_s"] for bare, ours in pairs)
        )
        self._run_open(report)

    def _closed(self, kind: str) -> dict[str, float]:
        requests = self._kinds[kind]()
        engine = self._wide if kind == WIDE else self._engine
        with self._load(engine, requests) as load:
            before = engine.child.ask("statistics")
            if kind.startswith("binary"):
                said = load.count(len(requests))
            else:
                said = load.closed(self._size.closed_s)
            after = engine.child.ask("statistics")
        beats = after["taken"] - before["taken"]
        frames = RELAYED_FRAMES if kind == "binary_64_frames" else 1
        if said["refused"] or beats < said["requests"] * frames:
            raise ChildFailedError(
                f"{kind}: {beats} beats came of {said}, {after['answered']}, {after['rejected']}"
            )
        return {
            **_latencies(said),
            "beats_per_s": beats / said["wall_s"],
            "cpu_us_per_request": (after["process_cpu_s"] - before["process_cpu_s"]) / said["requests"] * 1e6,
            "commits_per_s": (after["commits"] - before["commits"]) / said["wall_s"],
        }

    def _closed_bare(self) -> dict[str, float]:
        with self._load(self._bare, json_beats(CONNECTIONS, 1)) as load:
            before = cpu_s(self._bare.child.pid)
            said = load.closed(self._size.closed_s)
            used = cpu_s(self._bare.child.pid) - before
        return {**_latencies(said), "cpu_us_per_request": used / said["requests"] * 1e6}

    def _run_open(self, report: Report) -> None:
        figures: dict[str, dict[str, float]] = {}
        rows = []
        for rate in self._size.open_rates:
            with self._load(self._engine, json_beats(CONNECTIONS, 1)) as load:
                said = load.open(self._size.open_s, rate)
            figures[str(rate)] = {**_latencies(said), "overdue_s": said["overdue_s"]}
            rows.append(
                (
                    rate,
                    *(said[key] for key in ("per_s", "p50_us", "p99_us", "p999_us", "max_us", "overdue_s")),
                )
            )
        report.figures["open_json_by_rate"] = rounded(figures)
        report.table(
            "open loop, JSON: latency from when each was due",
            ("due/s", "answered/s", "p50 us", "p99 us", "p99.9 us", "max us", "overdue at the end, s"),
            rows,
        )
        lines = {
            key.removesuffix("_us"): [(float(rate), run[key] / 1_000) for rate, run in figures.items()]
            for key in ("p50_us", "p99_us", "p999_us")
        }
        draw(
            report.svg_path(),
            title="JSON beats: latency under open-loop load",
            x=Axis("beats/s", log=True),
            y=Axis("ms", log=True),
            lines=lines,
        )

    def _load(self, server: Server, requests: list[bytes]) -> Load:
        return Load(self._program, server.target, "http", requests, folder=self._folder)


def _latencies(said: dict[str, Any]) -> dict[str, float]:
    return {key: said[key] for key in ("per_s", "p50_us", "p99_us", "p999_us", "max_us", "client_cpu_s")}
