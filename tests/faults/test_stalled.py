"""An engine that is stopped for a while and goes on (LIVENESS.md 3): the monitor suspects itself first.

Promises kept: more than a second between two readings of the sockets is a gap with cause stall; what the
sockets held is taken before anyone is judged, so nobody is down; what would be silent is `unobserved`, to the
millisecond, for whoever was covered when it began; who was silent stays silent.
"""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

import numpy as np
import pytest

from tests.e2e.api import now_ms, unix_ms
from tests.e2e.load import Load
from tests.e2e.system import System, eventually
from tests.faults.promise import check_acknowledged, vouched

TTL_MS = 1_500
STOPPED_S = 5.0


@pytest.fixture(scope="module")
def system(start_system) -> System:
    return start_system()


def of_node(load: Load, node: int) -> np.ndarray:
    credited = load.credited()
    return np.sort(credited["t_ms"][credited["node"] == node])


def test_a_stall_of_five_seconds_is_unobserved_and_nobody_is_down(system):
    made = system.provision("stalled", nodes=32, workloads=3)
    api = system.api_for(made["api_key"])
    load = Load(system, made["nodes"], per_s=320)
    load.open_sessions()
    load.start()
    eventually(lambda: len(set(load.credited()["node"].tolist())) == 32, within_s=10, why=load.figures)
    long_gone, just_gone, beating = 0, 1, range(2, 32)
    load.silence([long_gone])
    time.sleep(TTL_MS / 1000 + 0.5)
    load.silence([just_gone])
    engine = system.child("engine-0")
    os.kill(engine, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    os.kill(engine, signal.SIGCONT)
    going_ms = now_ms()
    eventually(
        lambda: all((of_node(load, node) >= going_ms).any() for node in beating),
        within_s=10,
        why=load.figures,
    )
    time.sleep(0.5)
    check_gap(api.uptime(load.nodes[2]["workloads"][0]))
    check_silent_ones(api, load, long_gone, just_gone)
    load.stop()
    until_ms = int(load.credited()["t_ms"].max()) + TTL_MS
    time.sleep(max(0.0, (until_ms - now_ms()) / 1000))
    check_acknowledged(api, load, to_ms=until_ms)
    for node in beating:
        spans = vouched(of_node(load, node), TTL_MS)
        between = [(end, start) for (_, end), (start, _) in pairwise(spans)]
        assert len(between) == 1
        for workload in load.nodes[node]["workloads"]:
            assert api.uptime(workload, 0, until_ms).of("unobserved") == between
    assert [one for one in api.events("stalled") if one["kind"].startswith("node.")] == []


def check_gap(answer) -> None:
    """The answer names one gap of this length and cause."""
    (gap,) = [gap for gap in answer.raw["gaps"] if gap["cause"] == "stall"]
    lasted_ms = unix_ms(gap["to"]) - unix_ms(gap["from"])
    assert 1000 * STOPPED_S - 500 < lasted_ms < 1000 * STOPPED_S + 2_000


def check_silent_ones(api, load: Load, long_gone: int, just_gone: int) -> None:
    """Who was silent when it began stays silent; whose coverage ended meanwhile may still be forgiven."""
    workload = load.nodes[long_gone]["workloads"][0]
    answer = api.uptime(workload)
    assert answer.ms["unobserved"] == 0
    assert answer.of("silent")[-1] == (int(of_node(load, long_gone)[-1]) + TTL_MS, answer.to_ms)
    answer = api.uptime(load.nodes[just_gone]["workloads"][0])
    assert answer.of("unobserved")[-1] == (int(of_node(load, just_gone)[-1]) + TTL_MS, answer.to_ms)
    assert answer.raw["provisional"] is True
