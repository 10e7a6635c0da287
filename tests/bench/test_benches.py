"""Every bench runs to its end and prints what the contract asks for. How fast anything was is no test's
business: these runs are short, and the machine is busy.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from nodepulse.commands.bench import names

TOP = Path(__file__).parents[2]
PATIENCE_S = 300.0
KEYS = ["bench", "machine", "versions", "figures", "peers", "ratios"]
COMPILER = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
SLOW = (
    "bridge",
    "bulk",
    "burst",
    "detect",
    "flush",
    "ingest",
    "pages",
    "points",
    "reads",
    "seal",
)  # more than some seconds, even when quick


class Wanted(NamedTuple):
    """Paths (keys joined by /) of numbers that must be there: a sample of what each bench is for."""

    figures: tuple[str, ...]
    peers: tuple[str, ...]  # none: it is held against what is promised
    ratios: tuple[str, ...]
    compiled: bool = False  # without a C compiler it tells less
    draws: bool = True


_INGEST = "rows_1000.workloads_1.shards_1"
_RECOVER = "rows_2000.workloads_2.journal_s_1"
_BURST = "8x.buffer_67108864"
WANTED = {
    "actors": Wanted(
        ("nodes_1000/live/bytes_per_actor", "shard.nodes_500.workloads_10.passivated/rss_bytes"),
        ("bare_tasks_1000/bytes_per_actor",),
        ("live_bytes_to_bare_task.nodes_1000", "passivated_bytes_to_promise"),
    ),
    "bridge": Wanted(
        ("guest_flush_median_ms",),
        ("portal_flush_median_ms", "callbacks_flush_median_ms"),
        ("portal_flush_median_ms_to_guest", "callbacks_flush_median_ms_to_guest"),
        draws=False,
    ),
    "burst": Wanted(
        (f"{_BURST}/ack_ms/p99", f"{_BURST}/lost", f"{_BURST}/queue_datagrams_max"),
        (f"c_receiver.{_BURST}/lost", f"c_receiver.{_BURST}/ack_ms/p99"),
        (f"answered_to_c.{_BURST}",),
        compiled=True,
    ),
    "bulk": Wanted(
        ("open.ndjson/rows_per_s", "closed.csv/rss_max_mb", "open.csv/first_byte_s"),
        ("copy.open/rows_per_s", "copy.closed/s"),
        ("open.ndjson_s_to_copy", "closed.csv_s_to_promise", "open.csv_rss_to_promise"),
        draws=False,
    ),
    "detect": Wanted(
        (
            "lag.rows_500.workloads_10/lag_ms/p99",
            "lag.rows_500.workloads_10/missed",
            "outage.rows_500.workloads_1/in_postgres_s_after_last_due",
        ),
        (),
        ("lag_p99_to_promise.rows_500.workloads_10", "outage_s_to_promise"),
    ),
    "flush": Wanted(
        ("intervals.new/rows_per_s", "events.new/events_per_s", "live.everything.pages/mb_per_s"),
        ("plain.intervals/rows_per_s", "plain.live.everything/mb_per_s"),
        ("intervals.new_to_plain_by_rate", "live.everything.pages_to_plain_by_rate"),
        draws=False,
    ),
    "http": Wanted(
        ("closed/json/beats_per_s", "closed/ping/cpu_us_per_request", "open_json_by_rate/500/p99_us"),
        ("bare_loop_and_parser/per_s",),
        ("json_of_bare_by_cpu", "json_of_bare_by_rate"),
        compiled=True,
    ),
    "ingest": Wanted(
        (f"{_INGEST}/ack.drain/cpu_us_per_frame",),
        (f"c_receiver.{_INGEST}/ack.drain/cpu_us_per_frame", "valkey/set/sets_per_s"),
        ("of_c_by_cpu.ack.drain", "ack.frames_to_valkey_set"),
        compiled=True,
    ),
    "journal": Wanted(
        ("thread.beats_64/commit_ms/p99", "replay.beats_64/replayed_beats_per_s"),
        ("plain.beats_64/commit_ms/p99", "plain_read.beats_64/read_s"),
        ("direct_p50_to_plain.beats_64", "replay_to_plain_read.beats_64"),
    ),
    "points": Wanted(
        ("commit/s", "commit/rows_per_s", "commit/rss_max_mb", "commit/others_wait_s_max"),
        ("copy/rows_per_s",),
        ("commit_s_to_copy", "commit_s_to_promise"),
        draws=False,
    ),
    "news": Wanted(
        ("live/event_to_arrival_s/p99", "live/missing", "backlog/messages_per_s"),
        ("plain_posts/posts_per_s",),
        ("p99_to_promise", "backlog_to_plain_posts_by_rate"),
    ),
    "pages": Wanted(
        ("loaded/network/p95_ms", "loaded/workloads/p95_ms", "loaded/beats/beats_per_s"),
        ("quiet/network/p95_ms", "plain/nodes/p95_ms", "plain/workloads/p95_ms"),
        ("worst_p95_to_promise", "nodes_p95_to_plain", "workloads_p95_to_plain"),
        compiled=True,
        draws=False,
    ),
    "reads": Wanted(
        ("loaded/p99_ms", "loaded/reads_per_s", "loaded/beats_per_s", "loaded/ack_p99_ms"),
        ("quiet/p50_ms", "quiet/p99_ms"),
        ("p99_loaded_to_promise", "p99_loaded_to_quiet"),
        compiled=True,
        draws=False,
    ),
    "seal": Wanted(
        ("seal/s", "seal/stall_max_ms", "seal/rss_max_mb", "beats/alone/p99_ms", "beats/during/acks_per_s"),
        ("copy/s",),
        ("s_to_copy", "s_to_promise", "acks_during_to_alone", "ack_p99_during_to_alone"),
        draws=False,
    ),
    "recover": Wanted(
        (f"{_RECOVER}/readable_s", f"{_RECOVER}/replayed_beats", f"{_RECOVER}/missing"),
        (f"plain_read.{_RECOVER}/warm_s",),
        (f"ready_to_promise.{_RECOVER}", f"replayed_to_cold_read.{_RECOVER}"),
        draws=False,
    ),
}


def numbers(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in what a bench printed, with its path."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from numbers(value, f"{path}/{key}" if path else key)
    elif isinstance(found, list):
        for place, value in enumerate(found):
            yield from numbers(value, f"{path}/{place}")
    elif isinstance(found, (int, float)) and not isinstance(found, bool):
        yield path, float(found)


def test_each_bench_is_tested_here():
    assert sorted(WANTED) == names()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(WANTED)]
)
def test_a_bench_ends_well_and_its_only_line_is_what_the_contract_says(name, tmp_path):
    wanted, svg = WANTED[name], tmp_path / "curve.svg"
    command = [sys.executable, "-P", "-m", "nodepulse", "bench", name, "--quick", "--json", "--svg", str(svg)]
    done = subprocess.run(
        command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert list(told) == KEYS
    assert told["bench"] == name
    assert told["machine"]["cpus"] >= 1
    assert told["versions"]["nodepulse"]
    assert told["figures"]["quick"] is True
    for part in ("figures", "peers", "ratios"):
        found = dict(numbers(told[part]))
        # (json reads NaN and Infinity back, so that they show here)
        assert [path for path, number in found.items() if not math.isfinite(number)] == []
        if COMPILER or not wanted.compiled:
            assert [path for path in getattr(wanted, part) if path not in found] == []
    assert all(number >= 0 for _, number in numbers(told["ratios"]))
    if wanted.draws and (COMPILER or not wanted.compiled):
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        assert told["figures"]["svg"] == str(svg)
