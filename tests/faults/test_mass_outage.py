"""A tenth of 2,000 nodes falls silent at once and returns (LIVENESS.md 4).

Promises kept: a silent node is one event that names its workloads, each event stands in PostgreSQL exactly
once and since the end of that node's own coverage; those who beat are neither judged nor kept waiting.
(100,000 of 1,000,000 is `nodepulse bench`'s.)
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine.core.records import event_id
from tests.e2e.api import unix_ms
from tests.e2e.load import Load
from tests.e2e.system import System, eventually

TTL_MS, INTERVAL_MS = 1_500, 1_000
NODES, FALLING = 2_000, 200
TOLD_S = 15.0


@pytest.fixture(scope="module")
def system(start_system) -> System:
    return start_system()


def test_a_tenth_that_falls_silent_is_told_once_each_and_so_is_its_return(system):
    made = system.provision("outage", nodes=NODES, workloads=2, interval_ms=INTERVAL_MS)
    api = system.api_for(made["api_key"])
    load = Load(system, made["nodes"], per_s=2.5 * NODES)
    load.take_sessions()
    load.start()
    eventually(lambda: len(np.unique(load.credited()["node"])) == NODES, within_s=20, why=load.figures)
    falling = list(range(0, NODES, NODES // FALLING))
    load.silence(falling)
    time.sleep(0.3)  # ACKs under way
    last_ms = last_heard(load)[falling]

    def told(kind: str) -> list[dict]:
        found = [one for one in api.events("outage") if one["kind"] == kind]
        return found if len(found) >= FALLING else []

    downs = eventually(lambda: told("node.down"), within_s=3 * INTERVAL_MS / 1000 + TOLD_S, why=load.figures)
    wanted = {}
    for node, at in zip(falling, last_ms.tolist(), strict=True):
        node_id = load.nodes[node]["node_id"]
        wanted[event_id("node.down", node_id, at + TTL_MS)] = (node_id, sorted(load.nodes[node]["workloads"]))
    assert {one["event_id"]: (one["node_id"], sorted(one["workloads"])) for one in downs} == wanted
    assert len(downs) == FALLING
    lag_ms = [unix_ms(one["at"]) - unix_ms(one["since"]) - TTL_MS for one in downs]
    assert min(lag_ms) >= 0
    assert np.percentile(lag_ms, 50) < 1_000

    load.resume(falling)
    ups = eventually(lambda: told("node.up"), within_s=TOLD_S, why=load.figures)
    assert {one["node_id"] for one in ups} == {load.nodes[node]["node_id"] for node in falling}
    load.stop()
    events = [one for one in api.events("outage") if one["kind"].startswith("node.")]
    assert len(events) == len({one["event_id"] for one in events}) == 2 * FALLING
    assert not {one["kind"] for one in events} - {"node.down", "node.up"}


def last_heard(load: Load) -> np.ndarray:
    """The receive time of each node's last acknowledged beat."""
    credited = load.credited()
    last = np.zeros(len(load.nodes), np.int64)
    np.maximum.at(last, credited["node"], credited["t_ms"])
    return last
