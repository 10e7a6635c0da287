"""`nodepulse top` against a real installation, by its folder and by addresses, and its sums by hand."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nodepulse.figures import Scrape, frame
from tests.e2e.load import Load
from tests.e2e.system import NODEPULSE, TOP, System, eventually, new_folder, running

BEATS_PER_S = 40


@pytest.fixture(scope="module")
def beaten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(System(new_folder(tmp_path_factory.mktemp("top")), shards=2)) as system:
        load = Load(system, system.provision("watched", nodes=4)["nodes"], per_s=BEATS_PER_S)
        load.take_sessions()
        eventually(lambda: shard_rows(system) == [2, 2], within_s=10)
        load.start()
        yield system
        load.stop()


def shard_rows(system: System) -> list[float]:
    return [system.metrics(shard)["nodepulse_table_rows"] for shard in (0, 1)]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NODEPULSE, "top", *words],
        env={**os.environ, "PYTHONPATH": str(TOP), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def figures(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_figures_of_a_running_installation_are_found_by_its_folder(beaten: System):
    seen = figures("--data-dir", str(beaten.folder))
    assert [shard["rows"] for shard in seen["shards"]] == [2, 2]
    assert sum(shard["beats_per_s"] for shard in seen["shards"]) == pytest.approx(BEATS_PER_S, rel=0.6)
    for shard in seen["shards"]:
        assert 0 < shard["ack_p50_ms"] <= shard["ack_p99_ms"] < 5_000
        assert shard["phase"] == "normal"
        assert shard["watermark_age_s"] < 5
        assert shard["trouble"] == []
    assert [worker["notifies"] for worker in seen["workers"]] == [True]
    assert len(seen["webs"]) == 1
    assert seen["restarts"]["engine-1"] == 0
    assert seen["away"] == {}


@pytest.mark.slow
def test_addresses_may_be_given_and_one_that_does_not_answer_is_shown_beside_the_others(beaten: System):
    port = beaten.config["engine"]["metrics_port"]
    seen = figures(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}/metrics", "http://127.0.0.1:1")
    assert len(seen["shards"]) == 2
    assert list(seen["away"]) == ["http://127.0.0.1:1/metrics"]


def test_one_frame_fits_a_terminal_of_80_columns(beaten: System):
    done = run("--once", "--data-dir", str(beaten.folder))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert not [line for line in lines if "…" in line]
    for heading in ("shard", "flush", "outbox", "schedule", "web"):
        assert [line for line in lines if line.startswith(heading)], heading
    assert "beats/s" in lines[0]


@pytest.mark.slow
def test_a_terminal_shows_frame_after_frame_until_ctrl_c(beaten: System):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*NODEPULSE, "top", "--data-dir", str(beaten.folder), "--every", "0.2"],
        env={**os.environ, "PYTHONPATH": str(TOP), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        said, deadline = b"", time.monotonic() + 20
        while said.count(b"watermark") < 3 and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                said += os.read(ours, 65_536)
        assert said.count(b"watermark") >= 3
        process.send_signal(2)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_what_is_no_address_is_refused():
    done = run("10.0.0.5:9100", "--once")
    assert done.returncode == 2
    assert "http(s) address" in done.stderr


@pytest.mark.slow
def test_a_folder_that_nobody_serves_is_said_so(tmp_path):
    done = run("--once", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "nothing serves" in done.stderr


def scrape_of(at_s: float, **series: float) -> Scrape:
    named = {}
    for name, value in series.items():
        known, _, of = name.partition("__")
        named[f"nodepulse_{known}", of.replace("_", ".").replace("inf", "+Inf")] = value
    return Scrape("http://a/metrics", at_s, {("nodepulse_table_rows", ""): 3, **named})


def test_rates_are_of_the_time_between_two_looks():
    before = scrape_of(10, intake_taken=100, refusals_counted__stale=4)
    now = scrape_of(15, intake_taken=150, refusals_counted__stale=14)
    (shard,) = frame([now], [before]).shards
    assert shard.beats_per_s == 10
    assert shard.rejected_per_s == {"stale": 2}


def test_a_process_that_was_started_again_has_begun_at_nothing():
    before, now = scrape_of(10, intake_taken=100_000), scrape_of(12, intake_taken=20)
    assert frame([now], [before]).shards[0].beats_per_s == 10


def test_percentiles_are_of_what_was_answered_between_two_looks():
    old = {"ack_seconds_bucket__0_01": 50, "ack_seconds_bucket__0_1": 50, "ack_seconds_bucket__inf": 50}
    new = {"ack_seconds_bucket__0_01": 50, "ack_seconds_bucket__0_1": 150, "ack_seconds_bucket__inf": 150}
    (shard,) = frame([scrape_of(2, **new)], [scrape_of(1, **old)]).shards
    assert shard.ack_p50_ms == pytest.approx(55)
    (idle,) = frame([scrape_of(3, **new)], [scrape_of(2, **new)]).shards
    assert idle.ack_p50_ms is None
