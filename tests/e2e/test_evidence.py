"""Why was I not paid, on a real system: refusals, a crash of ours, and two machines with one key."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from np1.codec import Code, State
from tests.e2e.api import now_ms, rfc3339
from tests.e2e.node import Node, SilenceError
from tests.e2e.system import System, eventually, new_folder, running

PROJECT = "evidence"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(System(new_folder(tmp_path_factory.mktemp("evidence")))) as started:
        yield started


@pytest.fixture(scope="module")
def made(system: System) -> dict[str, Any]:
    return system.provision(PROJECT, nodes=3)


def why(system: System, made: dict[str, Any], node: Node) -> dict[str, Any]:
    day = rfc3339(now_ms())[:10]
    answer: dict[str, Any] = system.api_for(made["api_key"]).get(
        f"/v1/workloads/{node.workloads[0]}/why", day=day
    )
    return answer


def refused(answer: dict[str, Any]) -> dict[str, int]:
    return {one["reason"]: one["count"] for one in answer["refused"]}


def test_what_was_refused_before_and_after_a_crash_of_ours_is_counted_and_the_crash_is_the_cause(
    system: System, made: dict[str, Any]
) -> None:
    with Node(system.api, made["nodes"][0]) as node:
        frame = node.frame()
        assert node.exchange(frame).code == Code.OK
        assert node.exchange(frame).code == Code.STALE
        forged = bytearray(node.frame())
        forged[-1] ^= 1
        with pytest.raises(SilenceError):
            node.exchange(bytes(forged), within_s=0.2)
        eventually(lambda: refused(why(system, made, node)) == {"stale": 1}, within_s=8)
        pid = system.child("engine-0")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: system.child("engine-0") not in (None, pid), within_s=20)

        def again() -> bool:
            try:
                return node.beat().code in (Code.OK, Code.EARLY)
            except (SilenceError, OSError):
                return False

        eventually(again, within_s=20)
        assert node.exchange(frame).code == Code.STALE
        assert node.beat({0: State.UNHEALTHY}).code in (Code.OK, Code.EARLY)
        eventually(lambda: refused(why(system, made, node)) == {"stale": 2}, within_s=8)
        answer = why(system, made, node)
        assert sum(answer["ms"].values()) == answer["paid_ms"] + answer["unpaid_ms"]
        causes = {one["kind"]: one["cause"] for one in answer["unpaid"]}
        assert causes["unhealthy"]["what"] == "unhealthy"
        if "unobserved" in causes:  # it was away for longer than what the last beat vouched for
            assert {gap["cause"] for gap in causes["unobserved"]["gaps"]} == {"crash"}
    admin = system.api_for(system.admin("key", "create", "--admin")["api_key"])
    told = [one for one in admin.events() if one["kind"].startswith("gap.") and "crash" in one["detail"]]
    assert [one["kind"] for one in told] == ["gap.opened", "gap.closed"]


def test_two_machines_with_one_key_are_told_of_with_their_addresses(
    system: System, made: dict[str, Any]
) -> None:
    with Node(system.api, made["nodes"][1]) as node:
        host, _, port = node.grant.udp.rpartition(":")
        machines = []
        for address in ("127.0.0.2", "127.0.0.3"):
            machine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            machine.bind((address, 0))
            machine.connect((host, int(port)))
            machines.append(machine)
        own = node.socket
        for turn in range(6):
            node.socket = machines[turn % 2]
            node.beat()
            time.sleep(0.05)
        node.socket = own
        for machine in machines:
            machine.close()
        api = system.api_for(made["api_key"])
        (clone,) = eventually(
            lambda: [one for one in api.events(PROJECT) if one["kind"] == "node.clone"], within_s=8
        )
        assert clone["node_id"] == node.node_id
        assert clone["detail"] == "beats of one key take turns between 127.0.0.2 and 127.0.0.3"


def test_a_manager_that_opens_sessions_again_and_again_is_no_clone(
    system: System, made: dict[str, Any]
) -> None:
    with Node(system.api, made["nodes"][2]) as node:
        for _ in range(4):
            node.open()
            node.beat()
        told = [one["node_id"] for one in system.api_for(made["api_key"]).events(PROJECT)]
        assert node.node_id not in told
