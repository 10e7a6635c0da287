"""`bench burst`: a million rows that all beat at the full minute, within an eighth or a twentieth of it.

The average is 16,700 beats/s; a burst comes at 8 or at 20 times that, by UDP, each beat answered once it is
durable. Told, by the size of the receive buffer: losses, ACK latency, how deep the queues got, and from which
of the sizes tried nothing is lost. The peer is the C receiver that answers without looking, under the same
burst. The smallest buffer is what a stock kernel (rmem_max 212,992) grants to a process that is not root.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.chart import Axis, draw
from bench.rig.child import Child, python_child
from bench.rig.compiled import compiled
from bench.rig.report import Report, rounded
from bench.rig.stage import DATAGRAM_BYTES, open_sockets
from engine.settings import IngestSettings

MB = 1024 * 1024
INTERVAL_MS = 3_600_000  # rows must not fall silent while others are measured
FACTORS = (8, 20)
STOCK_BYTES = 2 * 212_992
BUFFERS = (STOCK_BYTES, 16 * MB, IngestSettings().receive_buffer_bytes, 256 * MB)


class Size(NamedTuple):
    """How much is measured."""

    rows: int
    minute_s: float
    quiet_s: float  # without an ACK after the end: no more will come
    buffers: tuple[int, ...]


FULL = Size(1_000_000, 60.0, 2.0, BUFFERS)
QUICK = Size(6_000, 2.0, 0.5, BUFFERS[1:2])


class Case(NamedTuple):
    who: str  # ours | c
    factor: int
    buffer_bytes: int

    @property
    def name(self) -> str:
        return f"{self.factor}x.buffer_{self.buffer_bytes}"


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("burst", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    measured: dict[Case, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="nodepulse-bench-") as name:
        program = compiled("receiver", Path(name))
        if program is None:
            report.note("no C compiler: measured without the C receiver")
        for factor in FACTORS:
            for wanted in size.buffers:
                for who in ("ours", "c") if program is not None else ("ours",):
                    case = Case(who, factor, wanted)
                    measured[case] = _burst(case, size, Path(name) / case.name, program)
    _tell(report, measured)
    _draw(report, measured)
    return report.finish()


def _burst(case: Case, size: Size, folder: Path, program: Path | None) -> dict[str, Any]:
    """One burst. Each gets a shard of its own: after a loss every row's next beat costs more."""
    with ExitStack() as stack:
        sockets = open_sockets(shards=1, queue_bytes=case.buffer_bytes)
        stack.callback(sockets.close)
        fd = sockets.udp[0].fileno()
        receiver = stack.enter_context(_receiver(case, size.rows, folder, program, fd))
        if case.who == "ours":
            receiver.answer()
        options = {"port": sockets.port, "queue_fd": fd, "rows": size.rows}
        sender = stack.enter_context(python_child("bench.rig.burst_child", options, fds=[fd]))
        sender.answer()
        sender.ask("make")
        before = receiver.ask("statistics")["process_cpu_s"] if case.who == "ours" else 0.0
        if case.who == "c":
            receiver.tell("go", frames=size.rows)
        rate = case.factor * size.rows / size.minute_s
        said = sender.ask("run", rate=rate, quiet_s=size.quiet_s)
        told = receiver.ask("statistics") if case.who == "ours" else receiver.answer()
        cpu_s = told["process_cpu_s"] - before if case.who == "ours" else told["cpu_s"]
        return {
            "granted_bytes": sockets.buffer_bytes,
            "granted_datagrams": sockets.buffer_bytes // DATAGRAM_BYTES,
            **said,
            "lost": said["sent"] - said["acks"],
            "queue_datagrams_max": said["queue_bytes_max"] // DATAGRAM_BYTES,
            "cpu_us_per_frame": cpu_s / max(1, said["acks"]) * 1e6,
            "commit_beats_max": told.get("commit_beats_max"),
        }


def _receiver(case: Case, rows: int, folder: Path, program: Path | None, fd: int) -> Child:
    if case.who == "c":
        assert program is not None
        return Child([str(program), str(fd), "answer"], fds=[fd])
    options = {
        "directory": str(folder),
        "rows": rows,
        "workloads": 1,
        "interval_ms": INTERVAL_MS,
        "udp_fds": [fd],
    }
    return python_child("bench.rig.engine_child", options, fds=[fd])


def _tell(report: Report, measured: dict[Case, dict[str, Any]]) -> None:
    rows = []
    for case, found in measured.items():
        figures = {name: value for name, value in found.items() if value is not None}
        curve = figures.pop("queue_bytes_by_s")
        if case.who == "ours":
            report.figures[case.name] = rounded(figures)
        else:
            report.peers[f"c_receiver.{case.name}"] = rounded(figures)
        ack = found["ack_ms"]
        rows.append(
            (
                f"{case.factor}x, {found['granted_bytes'] / MB:.3g} MB, {case.who}",
                found["frames_per_s"],
                found["lost"],
                *(ack.get(key) for key in ("p50", "p99", "max")),
                found["queue_datagrams_max"],
                found["commit_beats_max"],
                found["cpu_us_per_frame"],
            )
        )
        assert curve, "the queue was never looked at"
        if found["granted_bytes"] < case.buffer_bytes:
            report.note(f"asked for {case.buffer_bytes} bytes of buffer, granted {found['granted_bytes']}")
        if found["late_ms_max"] > 100:
            report.note(f"{case.who} {case.name}: the sender fell {found['late_ms_max']:.0f} ms behind")
    columns = ("ack p50 ms", "p99", "max", "queue", "largest commit", "us cpu/frame")
    report.table("bursts", ("burst, buffer, who", "sent/s", "lost", *columns), rows)
    for factor in FACTORS:
        _compare(report, measured, factor)


def _compare(report: Report, measured: dict[Case, dict[str, Any]], factor: int) -> None:
    """From which buffer on nothing is lost; and beside the C receiver."""
    ours = {case: found for case, found in measured.items() if case[:2] == ("ours", factor)}
    held = [found["granted_bytes"] for found in ours.values() if not found["lost"]]
    report.figures[f"{factor}x.holds_from_bytes"] = min(held, default=None)
    told = f"from {min(held) / MB:.3g} MB of buffer on" if held else "with none of the buffers tried"
    report.say(f"{factor}x the average: nothing is lost {told}")
    for case, found in ours.items():
        peer = measured.get(case._replace(who="c"))
        if peer is None:
            continue
        report.ratios[f"answered_to_c.{case.name}"] = rounded(found["acks"] / max(1, peer["acks"]))
        if found["ack_ms"] and peer["ack_ms"]:
            ratio = found["ack_ms"]["p99"] / peer["ack_ms"]["p99"]
            report.ratios[f"ack_p99_to_c.{case.name}"] = rounded(ratio)


def _draw(report: Report, measured: dict[Case, dict[str, Any]]) -> None:
    largest = max(case.buffer_bytes for case in measured)
    lines = {
        f"{case.who} {case.factor}x": [
            (at, depth / DATAGRAM_BYTES) for at, depth in found["queue_bytes_by_s"]
        ]
        for case, found in measured.items()
        if case.buffer_bytes == largest
    }
    draw(
        report.svg_path(),
        title=f"Datagrams waiting in the socket, {largest // MB} MB of buffer",
        x=Axis("second"),
        y=Axis("datagrams"),
        lines=lines,
    )
