"""`bench journal`: what a durable commit costs, and how fast a journal is read back and applied.

Ours is `engine.journal`: blocks with a CRC into a preallocated segment, synced; called directly, and in a
thread of the host loop as the engine does it. The limit is a plain write and fdatasync of the same bytes in
another preallocated file of the same folder. All take turns commit by commit, so that whatever the disk does
meanwhile falls on all alike.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.rig.beater_child import percentiles
from bench.rig.chart import Axis, draw
from bench.rig.engine_child import SECRETS
from bench.rig.frames import GENERATION, Array, mask_of
from bench.rig.machine import disk
from bench.rig.plain_read import read_through
from bench.rig.report import Report, rounded
from bench.rig.world import fill
from engine.core.beats import BEAT_DTYPE
from engine.core.timing import ttl_of_interval
from engine.decisions import Decisions
from engine.gaps import Gaps
from engine.journal import DiskFiles, Journal
from engine.journal_blocks import Kind, encode, read, segments
from engine.pulse import Pulse
from engine.recovery import recover
from engine.settings import JournalSettings
from engine.table import Table
from engine.windows import Windows
from storage.bridge import Host, run_on_uvloop

MB = 1024 * 1024
INTERVAL_MS = 60_000
NOW_MS = 1_800_000_000_000
WAYS = ("thread", "direct", "plain")


class Size(NamedTuple):
    """How much is measured."""

    commits: dict[int, int]  # by beats per commit
    replay_rows: int
    replay_beats: int
    replay_per_commit: tuple[int, ...]


FULL = Size({1: 1_000, 64: 1_000, 1_000: 600, 16_700: 300}, 1_000_000, 1_000_000, (64, 16_700))
QUICK = Size({1: 20, 64: 20, 1_000: 10}, 5_000, 5_000, (64,))


def main(*, as_json: bool, quick: bool, svg: str | None = None) -> int:
    """Run it; the exit code."""
    report = Report("journal", as_json=as_json, quick=quick, svg=svg)
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="nodepulse-bench-") as name:
        folder = Path(name)
        report.figures["disk"] = disk(folder)
        if report.figures["disk"] == "tmpfs":
            report.note("the temp folder is memory: set TMPDIR to a folder on the disk that matters")
        _commits(report, size, folder)
        _replays(report, size, folder)
    return report.finish()


class Ended:
    """Notes when a commit ended, on the host loop, where the engine goes on with it."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.at = 0.0
        self.error: BaseException | None = None

    def tell(self, error: BaseException | None) -> None:
        self.at, self.error = time.perf_counter(), error
        self.pulse.give()


# -- commits ----------------------------------------------------------------------------------------


def _commits(report: Report, size: Size, folder: Path) -> None:
    rows: list[tuple[Any, ...]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    for beats, commits in size.commits.items():
        found = _commit_in_turns(folder / f"{beats}", beats, commits)
        for way, took_ms in found.items():
            measured = {
                "commit_ms": percentiles(took_ms),
                "records_per_s": beats / took_ms.mean() * 1_000,
            }
            into = report.peers if way == "plain" else report.figures
            into[f"{way}.beats_{beats}"] = rounded(measured)
            told = measured["commit_ms"]
            rows.append(
                (f"{beats:,} {way}", told["p50"], told["p99"], told["max"], measured["records_per_s"])
            )
            for name in ("p50", "p99"):
                lines.setdefault(f"{way} {name}", []).append((float(beats), told[name]))
        for way in ("thread", "direct"):
            for number in (50, 99):
                ratio = np.percentile(found[way], number) / np.percentile(found["plain"], number)
                report.ratios[f"{way}_p{number}_to_plain.beats_{beats}"] = rounded(float(ratio))
    report.table("one commit, ms", ("beats per commit", "p50", "p99", "max", "records/s"), rows)
    draw(
        report.svg_path(),
        title="A durable commit",
        x=Axis("beats per commit", log=True),
        y=Axis("ms", log=True),
        lines=lines,
    )


def _commit_in_turns(folder: Path, beats: int, commits: int) -> dict[str, Array]:
    """Milliseconds of each commit, by way."""
    found: dict[str, Array] = {}

    async def main() -> int:
        host = Host("journal")
        found.update(await _take_turns(folder, beats, commits, host))
        host.close()
        return 0

    run_on_uvloop(main)
    return found


async def _take_turns(folder: Path, beats: int, commits: int, host: Host) -> dict[str, Array]:
    settings = JournalSettings()
    journals = {way: _journal(folder / way, settings.segment_bytes_max) for way in ("thread", "direct")}
    payload = _beats(np.arange(beats), t_ms=NOW_MS).tobytes()
    block = encode(Kind.BEATS, NOW_MS, payload)
    files, path = DiskFiles(), folder / "plain"
    fd = files.create(path, len(block) * (commits + 1))
    took: dict[str, list[float]] = {way: [] for way in WAYS}

    async def committed(way: str) -> float:
        """When it was."""
        journal, ended = journals[way], Ended()
        journal.append(Kind.BEATS, NOW_MS, payload)
        taken = journal.take()
        if way == "thread":
            host.in_thread(partial(journal.commit, taken), ended.tell)
            await ended.pulse.wait()
            if ended.error is not None:
                raise ended.error
        else:
            journal.commit(taken)
            ended.tell(None)
        journal.settle(taken, written=True)
        return ended.at

    for number in range(commits + 1):
        for way in WAYS:
            before = time.perf_counter()
            if way == "plain":
                os.pwrite(fd, block, number * len(block))
                os.fdatasync(fd)
                after = time.perf_counter()
            else:
                after = await committed(way)
            took[way].append((after - before) * 1_000)
    os.close(fd)
    path.unlink()
    for journal in journals.values():
        journal.close()
    return {way: np.array(each[1:]) for way, each in took.items()}  # the first opens a segment


def _journal(folder: Path, segment_bytes: int) -> Journal:
    return Journal(folder, shard=0, shards=1, boot_id="bench", segment_bytes=segment_bytes, now_ms=NOW_MS)


def _beats(rows: Array, *, t_ms: Array | int) -> Array:
    """Beats of one healthy workload each, that say what was said before."""
    beats = np.zeros(len(rows), BEAT_DTYPE)
    for name, value in {
        "row": rows,
        "generation": GENERATION,
        "plane0": mask_of(1),
        "slots": mask_of(1),
        "t_ms": t_ms,
        "ttl_ms": ttl_of_interval(INTERVAL_MS),
    }.items():
        beats[name] = value
    beats["seq"] = beats["t_ms"].astype(np.uint64) << np.uint64(16)
    return beats


# -- replay -----------------------------------------------------------------------------------------


def _replays(report: Report, size: Size, folder: Path) -> None:
    rows = []
    for per_commit in size.replay_per_commit:
        measured, plain_s = _replay(folder / f"replay-{per_commit}", size, per_commit)
        name = f"beats_{per_commit}"
        report.figures[f"replay.{name}"] = rounded(measured)
        report.peers[f"plain_read.{name}"] = rounded({"read_s": plain_s})
        for step in ("read", "replay"):
            ratio = measured[f"{step}_s"] / plain_s
            report.ratios[f"{step}_to_plain_read.{name}"] = rounded(ratio)
        rows.append(
            (
                f"{per_commit:,}",
                measured["bytes"] / MB,
                measured["read_s"],
                measured["replay_s"],
                plain_s,
                measured["replayed_beats_per_s"],
            )
        )
    report.table(
        f"{size.replay_beats:,} beats read back into {size.replay_rows:,} rows",
        ("beats per commit", "MB", "blocks read, s", "and applied, s", "plain read, s", "beats/s"),
        rows,
    )


def _replay(folder: Path, size: Size, per_commit: int) -> tuple[dict[str, float], float]:
    """Our figures, and the seconds of a plain read of the same files."""
    journal = _journal(folder, JournalSettings().segment_bytes_max)
    rows = np.random.default_rng(1).integers(0, size.replay_rows, size.replay_beats)
    t_ms = NOW_MS + np.arange(size.replay_beats) * INTERVAL_MS // size.replay_beats
    beats = _beats(rows, t_ms=t_ms)
    for start in range(0, len(beats), per_commit):
        part = beats[start : start + per_commit]
        journal.append(Kind.BEATS, int(part["t_ms"][0]), part.tobytes())
    journal.commit(journal.take())
    journal.close()
    plain_s, count = _timed(lambda: sum(read_through(each.path) for each in segments(folder)))
    read_s, _ = _timed(lambda: sum(1 for _ in read(folder, 0)))
    table = Table(shard=0, shards=1)
    fill(table, rows=size.replay_rows, workloads=1, interval_ms=INTERVAL_MS, now_ms=NOW_MS)
    decisions, gaps, windows = Decisions(table), Gaps(table), Windows()
    replay_s, found = _timed(partial(recover, folder, table, decisions, gaps, windows, SECRETS))
    assert found.beats == size.replay_beats, "a beat is missing"
    return {
        "bytes": count,
        "read_s": read_s,
        "read_bytes_per_s": count / read_s,
        "replay_s": replay_s,
        "replayed_beats_per_s": found.beats / replay_s,
    }, plain_s


def _timed(call: Any) -> tuple[float, Any]:
    before = time.perf_counter()
    result = call()
    return time.perf_counter() - before, result
