"""A real manager with the process driver against a real `serve`: what it promises when things break.

Workloads are Python one-liners. One system for all tests of this file; its UDP goes through a forwarder that
can drop everything. Intervals are one second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import now_ms
from tests.e2e.forwarder import Forwarder
from tests.e2e.machine import MANAGER, Machine, Owner
from tests.e2e.system import TOP, System, eventually, new_folder
from tests.e2e.system import running as system_running

RSS_MIB_MAX = 60
NAMES = ("one", "two", "three")
Start = Callable[..., Machine]
# The time between two probes of UDP, which the contract has at 10 to 60 minutes, is two seconds here.
QUICK_PROBE = (
    "import np1.route; np1.route.PROBE_MS_MIN = np1.route.PROBE_MS_MAX = 2000; import node.manager.__main__"
)


def sleeper(word: str, **more: Any) -> dict[str, Any]:
    """A manifest of a workload that says a word and sleeps."""
    code = f"import time; print({word!r}, flush=True); time.sleep(9999)"
    return {"command": [sys.executable, "-c", code], **more}


@pytest.fixture(scope="module")
def wire() -> Iterator[Forwarder]:
    with Forwarder() as forwarder:
        yield forwarder


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, wire: Forwarder) -> Iterator[System]:
    folder = new_folder(tmp_path_factory.mktemp("manager"))
    with system_running(System(folder, sets={"ingest.public_udp": wire.endpoint})) as started:
        wire.to = started.beats
        yield started


@pytest.fixture(scope="module")
def owner(system: System) -> Owner:
    owner = Owner(system, "machines")
    owner.kind("sleeper")
    owner.offer("sleeper", "1.0.0", sleeper("hello"))
    return owner


@pytest.fixture
def start(owner: Owner, tmp_path: Path) -> Iterator[Start]:
    """Start a machine with three sleepers, or with what is named, and wait until the server sees them up."""
    machines: list[Machine] = []

    def begin(kinds: dict[str, str] | None = None, *, awaited: bool = True, **options: Any) -> Machine:
        made = owner.register(kinds or dict.fromkeys(NAMES, "sleeper"))
        machine = Machine(tmp_path / str(len(machines)), owner, made, **options)
        machines.append(machine)
        machine.start()
        if awaited:
            eventually(
                lambda: all(machine.seen(name) == "up" for name in machine.workloads),
                within_s=30,
                why=lambda: (machine.status(), machine.log()),
                every_s=0.2,
            )
        return machine

    yield begin
    for machine in machines:
        machine.close()


def test_three_workloads_run_are_reported_and_the_manager_is_small(start: Start, owner: Owner):
    machine = start()
    status = machine.status()
    assert (status["state"], status["via"]) == ("beating", "udp")
    assert [one["version"] for one in status["workloads"]] == ["1.0.0"] * 3
    for name in NAMES:
        found = owner.api.get(f"/v1/workloads/{machine.workloads[name]}")
        assert found["running_version"] == "1.0.0"
        assert len(machine.of(name)) == 1
    rss = Path(f"/proc/{status['pid']}/status").read_text().split("VmRSS:")[1].split()[0]
    assert int(rss) / 1024 < RSS_MIB_MAX


def test_a_killed_workload_is_seen_ill_and_begun_again(start: Start):
    machine = start()
    (first,) = machine.of("one")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: machine.of("one") not in ([], [first]), within_s=5)
    # The second time it waits for two seconds, which two beats see.
    (second,) = machine.of("one")
    os.kill(second, signal.SIGKILL)
    eventually(lambda: machine.seen("one") == "unhealthy", within_s=5)
    assert machine.told("one")["why"] == "killed by signal 9; begun again after 2 s"
    assert machine.seen("two") == "up"
    eventually(lambda: machine.seen("one") == "up", within_s=10)
    assert len(machine.of("one")) == 1
    assert machine.told("one")["crashes"] == 2


def test_a_killed_manager_finds_its_workloads_and_doubles_none(start: Start, owner: Owner):
    machine = start()
    before = {name: machine.of(name) for name in NAMES}
    from_ms = now_ms()
    machine.kill()
    machine.start()
    eventually(lambda: machine.status()["state"] == "beating", within_s=10)
    assert {name: machine.of(name) for name in NAMES} == before
    # One that dies while nobody looks is begun once.
    machine.kill()
    os.kill(before["one"][0], signal.SIGKILL)
    machine.start()
    eventually(lambda: len(machine.of("one")) == 1, within_s=10)
    assert machine.of("one") != before["one"]
    assert [machine.of(name) for name in ("two", "three")] == [before[name] for name in ("two", "three")]
    eventually(lambda: machine.seen("one") == "up", within_s=10)
    spent = owner.api.uptime(machine.workloads["two"], from_ms).ms
    assert {kind for kind, ms in spent.items() if ms} <= {"up", "silent"}


@pytest.mark.slow
def test_without_udp_beats_go_over_http_within_three_intervals_and_back(start: Start, wire: Forwarder):
    machine = start(command=(sys.executable, "-P", "-c", QUICK_PROBE))
    frames = machine.status()["frames_sent"]
    wire.drops = True
    try:
        eventually(lambda: machine.status()["via"] == "http", within_s=8)
        eventually(lambda: (machine.status()["last_ack"] or {})["via"] == "http", within_s=5)
        assert machine.status()["frames_sent"] - frames <= 15  # three tries each of four beats, and some
        assert machine.seen("one") == "up"
    finally:
        wire.drops = False
    eventually(lambda: machine.status()["via"] == "udp", within_s=10)


def outage(machine: Machine, seconds: float, *, kill: bool) -> None:
    """The backend is away for so long, and in the middle of it the manager is killed and begun again."""
    owner, system = machine.owner, machine.owner.system
    from_ms = now_ms()
    system.stop()
    missed = max(2, int(seconds) - 4)
    eventually(lambda: machine.status()["backlog"]["beats"] >= missed // 2, within_s=seconds)
    dead_ms = 0
    if kill:
        before, killed_ms = machine.status()["backlog"]["beats"], now_ms()
        machine.kill()
        machine.start()
        assert machine.status()["backlog"]["beats"] >= before
        eventually(lambda: machine.status()["frames_sent"] > 0, within_s=10)
        dead_ms = now_ms() - killed_ms
    eventually(lambda: machine.status()["backlog"]["beats"] >= missed, within_s=2 * seconds)
    kept = machine.status()["backlog"]["beats"]
    system.start()
    eventually(lambda: machine.status()["state"] == "beating", within_s=60, why=machine.log)
    eventually(lambda: machine.status()["backlog"]["beats"] == 0, within_s=30, why=machine.status)
    backlog = machine.status()["backlog"]
    assert backlog["taken"] >= kept
    assert not any(backlog["ignored"].values())
    answer = owner.api.uptime(machine.workloads["one"], from_ms, now_ms() - 1_000)
    answer.check_sum()
    spent = {kind: ms for kind, ms in answer.ms.items() if ms}
    # Not a moment is lost while a manager lives: what no beat vouched for a claim does.
    assert spent.pop("unobserved", 0) <= dead_ms
    assert set(spent) == {"up", "claimed_up"}, (spent, answer.intervals)


@pytest.mark.slow
def test_no_beat_is_lost_while_the_backend_is_away_and_the_manager_is_killed(start: Start):
    outage(start(), 6, kill=True)


@pytest.mark.slow
def test_no_beat_of_a_longer_outage_is_lost(start: Start):
    outage(start(), 25, kill=False)


def test_a_new_version_is_begun_inside_its_window_and_reported(start: Start, owner: Owner):
    owner.kind("rolled")
    owner.offer("rolled", "1.0.0", sleeper("old"))
    machine = start({"only": "rolled"})
    from_ms = now_ms()
    (old,) = machine.of("only")
    owner.offer("rolled", "2.0.0", sleeper("new"))
    where = f"/v1/workloads/{machine.workloads['only']}"
    eventually(lambda: owner.api.get(where)["running_version"] == "2.0.0", within_s=15, why=machine.log)
    assert old not in machine.of("only")
    output = machine.config.data_path / "workloads" / machine.workloads["only"] / "stdout.log"
    assert output.read_text() == "old\nnew\n"

    owner.make(f"{where}/restart", {})
    eventually(lambda: machine.told("only")["restarts"] == 1, within_s=15)
    eventually(lambda: output.read_text() == "old\nnew\nnew\n", within_s=5)
    eventually(lambda: machine.seen("only") == "up", within_s=10)
    answer = owner.api.uptime(machine.workloads["only"], from_ms, now_ms() - 1_000)
    assert {kind for kind, ms in answer.ms.items() if ms} <= {"up", "maintenance"}, answer.intervals

    # One that cannot be begun here leaves what runs as it is.
    (running_now,) = machine.of("only")
    owner.offer("rolled", "3.0.0", {"command": ["no-such-program"]})
    eventually(lambda: "no-such-program" in machine.told("only")["error"], within_s=15)
    assert machine.of("only") == [running_now]
    assert machine.told("only")["state"] == "healthy"

    # One that does not get well does not delay the one that mends it.
    nowhere = {"http": "http://127.0.0.1:9/", "start_period_s": 300}
    owner.offer("rolled", "4.0.0", sleeper("broken", health=nowhere))
    eventually(lambda: output.read_text().endswith("broken\n"), within_s=15)
    eventually(lambda: machine.seen("only") in ("updating", "maintenance"), within_s=5)
    owner.offer("rolled", "5.0.0", sleeper("mended"))
    eventually(lambda: output.read_text().endswith("mended\n"), within_s=15)
    eventually(lambda: owner.api.get(where)["running_version"] == "5.0.0", within_s=10)


def test_two_managers_do_not_share_a_folder(start: Start, capfd: pytest.CaptureFixture[str]):
    machine = start()
    command = [*MANAGER, "--config", str(machine.folder / "node.json")]
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    second = subprocess.run(command, env=environment, check=False, timeout=20)
    assert second.returncode == 3
    assert "another manager runs" in capfd.readouterr().err
    (machine.folder / "node.json").chmod(0o644)
    assert subprocess.run(command, env=environment, check=False, timeout=20).returncode == 2
    assert len(machine.of("one")) == 1


def test_an_orderly_stop_is_told_and_ends_everything_but_a_hand_over_ends_nothing(start: Start, owner: Owner):
    machine = start()
    before = {name: machine.of(name) for name in NAMES}
    generation = machine.status()["session"]["generation"]
    assert machine.process is not None
    machine.process.send_signal(signal.SIGHUP)
    eventually(lambda: "hands over" in machine.log(), within_s=5)
    eventually(machine.answers, within_s=10)
    eventually(lambda: (machine.status()["session"] or {}).get("generation") == generation + 1, within_s=10)
    assert {name: machine.of(name) for name in NAMES} == before
    assert machine.stop() == 0
    assert machine.processes() == []
    assert owner.api.node_state(machine.node_id) == "stopped"


@pytest.mark.slow
def test_a_workload_that_others_run_is_believed_for_a_while(start: Start, owner: Owner):
    owner.kind("foreign")
    machine = start({"foreign": "foreign"}, awaited=False, health_ttl_s=3)
    eventually(lambda: machine.status()["state"] == "beating", within_s=10)
    assert machine.seen("foreign") == "new"
    for state, seen in (("healthy", "up"), ("updating", "updating"), ("unhealthy", "unhealthy")):
        machine.report("foreign", state)
        eventually(lambda seen=seen: machine.seen("foreign") == seen, within_s=2.9)
    machine.report("foreign", "healthy")
    eventually(lambda: machine.seen("foreign") == "up", within_s=2.9)
    eventually(lambda: machine.seen("foreign") == "unhealthy", within_s=6)
    assert machine.told("foreign")["why"].startswith("no report for")
