"""A staged rollout and an ordered restart, whole: from the owner's request to the beats of 100 nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from engine.core.rollout import admits
from np1.codec import Ack, Code, State
from tests.e2e.api import Api, Reply
from tests.e2e.node import Node
from tests.e2e.system import System, eventually

SLUG = "rollout"
NODES = 100
INTERVAL_S = 1.0
AT_ONCE = 8
KINDS = f"/v1/projects/{SLUG}/kinds"
T = TypeVar("T")


def side_by_side(work: Callable[[Machine], T], machines: Sequence[Machine]) -> list[T]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, machines))


class Machine:
    """A node with its manager: it beats, and asks and reports with its session's token."""

    def __init__(self, system: System, made: dict[str, Any]) -> None:
        self.node = Node(system.api, made)
        self.node_id = self.node.node_id
        (self.workload_id,) = self.node.workloads
        self.manager = system.api_for(self.node.grant.token)

    def beat(self, state: State = State.HEALTHY) -> Ack:
        return self.node.beat({0: state})

    def desired(self) -> dict[str, Any]:
        """What its one workload should be."""
        (workload,) = self.manager.get("/v1/manager/desired")["workloads"]
        found: dict[str, Any] = workload
        return found

    def report(self, **report: object) -> None:
        path = f"/v1/manager/workloads/{self.workload_id}/version"
        answer = send(self.manager, "PUT", path, report)
        assert answer.status == 200, answer

    def close(self) -> None:
        self.node.close()


def send(api: Api, method: str, path: str, body: object, *, key: str = "") -> Reply:
    headers = {"content-type": "application/json", **({"idempotency-key": key} if key else {})}
    return api.request(method, path, body=json.dumps(body).encode(), headers=headers)


class Story:
    """The owner of the project and all machines."""

    def __init__(self, system: System) -> None:
        made = system.provision(SLUG, nodes=NODES, interval_ms=int(INTERVAL_S * 1_000))
        self.system, self.owner = system, system.api_for(made["api_key"])
        kind = send(self.owner, "POST", KINDS, {"slug": "gateway"}, key="kind")
        assert kind.status == 201, kind
        self.made = made["nodes"]
        self.machines: list[Machine] = []

    def bind(self, made: dict[str, Any]) -> None:
        (workload_id,) = made["workloads"]
        bound = send(self.owner, "PATCH", f"/v1/workloads/{workload_id}", {"kind": "gateway"})
        assert bound.status == 200, bound

    def offer(self, version: str, percent: int) -> str:
        """The id of the version."""
        body = {"version": version, "manifest": "{}", "rollout_percent": percent}
        answer = send(self.owner, "POST", f"{KINDS}/gateway/versions", body, key=version)
        assert answer.status == 201, answer
        version_id: str = answer.json["version_id"]
        return version_id

    def beat_all(self) -> set[str]:
        """One beat of each machine; the nodes that were told RESYNC."""
        acks = side_by_side(Machine.beat, self.machines)
        pairs = zip(self.machines, acks, strict=True)
        return {machine.node_id for machine, ack in pairs if ack.code is Code.RESYNC}


@pytest.fixture(scope="module")
def story(system: System) -> Iterator[Story]:
    """All machines run version 1.0.0 and are well."""
    told = Story(system)
    with ExitStack() as closing, ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(told.bind, told.made))
        told.offer("1.0.0", 100)
        told.machines = list(pool.map(lambda made: Machine(system, made), told.made))
        for machine in told.machines:
            closing.callback(machine.close)

        def begin(machine: Machine) -> None:
            assert machine.desired()["version"] == "1.0.0"
            machine.report(version="1.0.0")

        list(pool.map(begin, told.machines))
        eventually(lambda: not told.beat_all(), within_s=10)
        yield told


def test_a_rollout_to_ten_percent_is_told_to_them_within_two_intervals_and_to_nobody_else(story: Story):
    began = time.monotonic()
    version_id = story.offer("2.0.0", 10)
    chosen = {one.node_id for one in story.machines if admits(version_id, one.node_id, rollout_percent=10)}
    assert 1 <= len(chosen) <= 30  # of a hundred; both bounds are missed once in 30,000 runs
    rounds: list[set[str]] = []
    while time.monotonic() < began + 2 * INTERVAL_S:
        rounds.append(story.beat_all())
        time.sleep(max(0.0, min(INTERVAL_S, began + len(rounds) * INTERVAL_S - time.monotonic())))
    rounds.append(story.beat_all())
    assert rounds[-1] == chosen
    assert all(told <= chosen for told in rounds)

    reached = [machine for machine in story.machines if machine.node_id in chosen]
    assert {machine.desired()["version"] for machine in reached} == {"2.0.0"}
    others = [machine for machine in story.machines if machine.node_id not in chosen]
    assert others[0].desired()["version"] == "1.0.0"
    eventually(lambda: not story.beat_all(), within_s=5)


def test_an_update_and_a_restart_that_were_ordered_cost_the_operator_nothing(story: Story):
    machine = next(one for one in story.machines if one.desired()["version"] == "2.0.0")
    first = machine.beat()
    assert machine.desired()["running_version"] == "1.0.0"
    for state in (State.UPDATING, State.UPDATING, State.ABSENT, State.UNHEALTHY):
        machine.beat(state)
        time.sleep(INTERVAL_S / 2)
    machine.report(version="2.0.0")  # before the beat that says so: what lies between is excused as well
    machine.beat()

    ordered = send(story.owner, "POST", f"/v1/workloads/{machine.workload_id}/restart", {}, key="restart")
    assert ordered.status == 202, ordered
    eventually(lambda: machine.beat().code is Code.RESYNC, within_s=5, every_s=0.2)
    assert machine.desired()["restarts"] == 1
    time.sleep(2 * INTERVAL_S)  # not a word
    machine.report(restarts=1)
    eventually(lambda: machine.beat().code is not Code.RESYNC, within_s=5, every_s=0.2)
    last = machine.beat()

    answer = story.owner.uptime(machine.workload_id, first.server_ms, last.server_ms)
    answer.check_sum()
    spent = {kind: ms for kind, ms in answer.ms.items() if ms}
    assert set(spent) == {"up", "maintenance"}
    assert spent["maintenance"] >= 2_000  # four half seconds, and what the silence was beyond its ttl
    assert answer.raw["paid_ms"] == last.server_ms - first.server_ms
