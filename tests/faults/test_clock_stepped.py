"""The wall clock stepped by an hour, forward and back (LIVENESS.md 1).

Promises kept: recorded time never runs back and does not jump under way; a step over 1 s is told once as the
event clock.stepped; a forward step is adopted at a restart, as a gap that nobody pays for; after a backward
step a restart goes on from the last recorded time. The steps are those of stepped_clock.c, or of libfaketime
where there is no compiler, on every process of the system; the nodes' own clocks stay right. The clock with
fake readings: tests/engine/test_clock.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.e2e.api import now_ms
from tests.e2e.load import Load
from tests.e2e.system import System, eventually, new_folder, running
from tests.faults.promise import check_acknowledged

HOUR_MS = 3_600_000
TTL_MS = 1_500
SOURCE = Path(__file__).with_name("stepped_clock.c")
COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
LIBRARY = next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
pytestmark = pytest.mark.skipif(
    not (COMPILER or LIBRARY), reason="neither a C compiler nor libfaketime (apt-get install libfaketime)"
)


class SteppedClock:
    """The wall clock of whoever is started in `environment`."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        self._file = folder / "offset"
        self.step_to(0)
        if COMPILER:
            library = folder / "stepped_clock.so"
            flags = ["-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
            subprocess.run([COMPILER, *flags], check=True)
            self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK_FILE": str(self._file)}
        else:
            self.environment = {
                "LD_PRELOAD": str(LIBRARY),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }

    def step_to(self, seconds: int) -> None:
        """From now on the system's wall clock is so many seconds off."""
        told = struct.pack("=q", seconds) if COMPILER else f"{seconds:+d}\n".encode().ljust(8)
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(told)  # in place: the file is mapped
        self._file.chmod(0o644)


@pytest.fixture(scope="module")
def clock() -> Iterator[SteppedClock]:
    folder = Path(tempfile.mkdtemp(prefix="np-clock-"))
    yield SteppedClock(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def system(clock, tmp_path_factory) -> Iterator[System]:
    folder = new_folder(tmp_path_factory.mktemp("stepped"))
    with running(System(folder, environment=clock.environment)) as started:
        yield started


def beating(system: System, slug: str) -> SimpleNamespace:
    made = system.provision(slug, nodes=10, workloads=3)
    load = Load(system, made["nodes"], per_s=100)
    load.open_sessions()
    load.start()
    beats = SimpleNamespace(api=system.api_for(made["api_key"]), load=load, slug=slug)
    eventually(lambda: heard_since(load, 0) == 10, within_s=10, why=load.figures)
    return beats


def heard_since(load: Load, t_ms: int) -> int:
    """How many nodes were acknowledged at or after a (recorded) time."""
    acks = load.credited()
    return len(set(acks["node"][acks["t_ms"] >= t_ms].tolist()))


def last_ms(load: Load) -> int:
    return int(load.credited()["t_ms"].max())


def stepped_events(system: System) -> int:
    admin = system.admin("key", "create", "--admin")["api_key"]
    return sum(one["kind"] == "clock.stepped" for one in system.api_for(admin).events())


def kill_engine(system: System) -> None:
    killed = system.child("engine-0")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: system.child("engine-0") not in (None, killed), within_s=30)


def finish(system: System, beats: SimpleNamespace) -> None:
    """Stop beating, wait until all coverage has ended by recorded time, and check every promise."""
    beats.load.stop()
    until_ms = last_ms(beats.load) + TTL_MS
    eventually(lambda: recorded_ms(beats) >= until_ms, within_s=15)
    check_acknowledged(beats.api, beats.load, to_ms=until_ms)
    assert [one for one in beats.api.events(beats.slug) if one["kind"].startswith("node.")] == []


def recorded_ms(beats: SimpleNamespace) -> int:
    return beats.api.uptime(beats.load.nodes[0]["workloads"][0]).as_of


@pytest.mark.parametrize(
    "hours", [pytest.param(1, id="forward", marks=pytest.mark.slow), pytest.param(-1, id="back")]
)
def test_a_step_under_way_moves_no_recorded_time_and_is_told_once(system, clock, hours):
    beats = beating(system, f"stepped-{'on' if hours > 0 else 'back'}")
    told = stepped_events(system)
    clock.step_to(3_600 * hours)
    stepped_at_ms = now_ms()
    time.sleep(3.0)
    assert heard_since(beats.load, stepped_at_ms + 1_500) == 10
    assert abs(last_ms(beats.load) - now_ms()) < 1_000  # as ever, up to the slewing
    # A read right after an ACK still finds it, although web's own clock is off.
    assert beats.api.workload_state(beats.load.nodes[0]["workloads"][0]) == "up"
    assert recorded_ms(beats) > stepped_at_ms
    eventually(lambda: stepped_events(system) == told + 1, within_s=10)
    clock.step_to(0)
    time.sleep(2.5)
    assert stepped_events(system) == told + 1
    finish(system, beats)


def test_a_forward_step_is_adopted_at_a_restart_as_a_gap_and_a_backward_one_is_not(system, clock):
    beats = beating(system, "stepped-restart")
    before_ms = last_ms(beats.load)
    clock.step_to(3_600)
    kill_engine(system)
    # The nodes' clocks are an hour behind now: they are told so, once, and go on by the server's.
    eventually(
        lambda: heard_since(beats.load, before_ms + HOUR_MS) == 10, within_s=30, why=beats.load.figures
    )
    answer = beats.api.uptime(beats.load.nodes[0]["workloads"][0])
    assert answer.ms["unobserved"] > HOUR_MS - 10_000
    forward_ms = last_ms(beats.load)
    clock.step_to(0)
    kill_engine(system)
    eventually(lambda: heard_since(beats.load, forward_ms + 1_000) == 10, within_s=30)
    assert last_ms(beats.load) - forward_ms < 60_000  # it went on; it did not jump again
    finish(system, beats)
