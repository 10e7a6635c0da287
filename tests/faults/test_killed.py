"""kill -9 at random moments under load (LIVENESS.md 2 and 3, WIRE.md rule 3 of the server).

Promises kept: an ACK with a crediting code means durable, so time vouched for by acknowledged beats is in the
answer, to the millisecond; the time of a crash is our own fault, so nobody is told to be down for it; nothing
is left running.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.api import now_ms, unix_ms
from tests.e2e.load import Load
from tests.e2e.system import System, eventually
from tests.faults.promise import check_acknowledged

TTL_MS = 1_500
RESTART_S = 30.0


@pytest.fixture(scope="module")
def system(start_system) -> System:
    return start_system()


def kill_engine(system: System, *, shard: int = 0) -> None:
    """SIGKILL, and return when the next one runs (not: listens)."""
    name = f"engine-{shard}"
    killed = eventually(lambda: system.child(name), within_s=RESTART_S)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: system.child(name) not in (None, killed), within_s=RESTART_S, why=system.log)


def settle(system: System, load: Load) -> int:
    """Beat until everybody has been heard after the last fault, then stop; a time that is over."""
    system.wait_ready()
    after_ms = now_ms()

    def all_heard() -> bool:
        acks = load.credited()
        return len(set(acks["node"][acks["t_ms"] >= after_ms].tolist())) == len(load.nodes)

    eventually(all_heard, within_s=RESTART_S, why=load.figures)
    load.stop()
    until_ms = int(load.credited()["t_ms"].max()) + TTL_MS
    time.sleep(max(0.0, (until_ms - now_ms()) / 1000))
    return until_ms


def check_nobody_blamed(system: System, slug: str, key: str, load: Load) -> None:
    """No node is told to be down for a time before its last beat; of workloads only those that are ill."""
    ill = {made["workloads"][slot] for made in load.nodes for slot in range(1, len(made["workloads"]), 3)}
    events = system.api_for(key).events(slug)
    credited = load.credited()
    heard_ms = np.zeros(len(load.nodes), np.int64)
    np.maximum.at(heard_ms, credited["node"], credited["t_ms"])
    end_ms = {made["node_id"]: int(at) + TTL_MS for made, at in zip(load.nodes, heard_ms, strict=True)}
    downs = [one for one in events if one["kind"].startswith("node.")]
    assert [one for one in downs if unix_ms(one["since"]) < end_ms[one["node_id"]]] == []
    assert {one["workload_id"] for one in events if one["kind"] == "workload.down"} <= ill
    ids = [one["event_id"] for one in events]
    assert len(ids) == len(set(ids))


def run_kills(system: System, slug: str, *, nodes: int, workloads: int, per_s: float, kills: int) -> None:
    made = system.provision(slug, nodes=nodes, workloads=workloads)
    load = Load(system, made["nodes"], per_s=per_s)
    load.open_sessions()
    chance = random.Random(slug)
    load.start()
    time.sleep(1.0)
    for number in range(kills):
        kill_engine(system)
        if number % 3 == 2:
            system.wait_ready()  # a child that never listens would make serve give up, rightly
        time.sleep(chance.uniform(0.0, 4.0))
    until_ms = settle(system, load)
    figures = load.figures()
    assert check_acknowledged(system.api_for(made["api_key"]), load, to_ms=until_ms) > 0
    check_nobody_blamed(system, slug, made["api_key"], load)
    assert sum(figures.answered.values()) > 0.3 * figures.sent, figures


def test_killed_engines_lose_no_acknowledged_beat_and_blame_nobody(system):
    run_kills(system, "killed", nodes=150, workloads=3, per_s=2_000, kills=3)


@pytest.mark.slow
def test_fifty_killed_engines_at_20000_beats_a_second_lose_no_acknowledged_beat(system):
    run_kills(system, "killed-fifty", nodes=3_000, workloads=2, per_s=20_000, kills=50)


def test_a_killed_serve_leaves_engines_that_stop_in_order_and_a_next_start_goes_on(system):
    made = system.provision("killed-serve", nodes=40, workloads=3)
    load = Load(system, made["nodes"], per_s=400)
    load.open_sessions()
    load.start()
    time.sleep(1.5)
    system.kill()
    time.sleep(random.Random(1).uniform(0.0, 0.5))
    system.start()
    until_ms = settle(system, load)
    assert check_acknowledged(system.api_for(made["api_key"]), load, to_ms=until_ms) > 0
    check_nobody_blamed(system, "killed-serve", made["api_key"], load)


@pytest.mark.parametrize("name", ["web", "worker"])
def test_a_killed_edge_process_comes_back_and_beats_never_notice(system, name):
    made = system.provision(f"killed-{name}")
    load = Load(system, made["nodes"], per_s=20)
    load.open_sessions()
    load.start()
    killed = system.child(name)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: system.child(name) not in (None, killed), within_s=RESTART_S)
    until_ms = settle(system, load)
    figures = load.figures()
    assert sum(figures.answered.values()) == figures.sent
    assert check_acknowledged(system.api_for(made["api_key"]), load, to_ms=until_ms) > 0


def test_nothing_of_a_killed_serve_is_left_after_the_next_start_and_stop(system):
    system.kill()
    eventually(lambda: not any(map(is_ours, system.processes())), within_s=15, why=system.log)
    assert system.processes() != []  # the stores outlive it, until the next start takes their place
    system.start()
    assert system.stop() == 0
    eventually(lambda: not system.processes(), within_s=5, why=system.processes)


def is_ours(pid: int) -> bool:
    """Engine, web or worker: not one of the stores."""
    try:
        return "nodepulse" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
