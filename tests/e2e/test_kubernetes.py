"""A real manager with the kubernetes driver, a real `serve`, and an API server process with pods that live.

No cluster runs here, so pods are pretended (tests/node/kube_api); everything else is real. Intervals are one
second.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import now_ms
from tests.e2e.machine import Machine, Owner
from tests.e2e.system import System, eventually, new_folder
from tests.e2e.system import running as system_running
from tests.node.kube_api.double import NAMESPACE, KubeApiDouble

pytestmark = pytest.mark.slow
AWAY_S = 30
RSS_MIB_MAX = 60


def well(version: str) -> dict[str, Any]:
    image = f"registry.test/project/well:{version}@sha256:{'a' * 64}"
    return {"image": image, "stop_timeout_s": 1, "resources": {"limits": {"memory": "64Mi"}}}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubeApiDouble]:
    double = KubeApiDouble(tmp_path / "cluster")
    double.start()
    yield double
    double.close()


@pytest.fixture
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    with system_running(System(new_folder(tmp_path_factory.mktemp("kubernetes")))) as system:
        owner = Owner(system, "clusters")
        for kind in ("steady", "breaking"):
            owner.kind(kind)
        owner.offer("steady", "1.0.0", well("1.0.0"))
        owner.offer("breaking", "1.0.0", {"image": "registry.test/project/crash:1.0.0"})
        yield owner


@pytest.fixture
def machine(tmp_path: Path, owner: Owner, cluster: KubeApiDouble) -> Iterator[Machine]:
    made = owner.register({"one": "steady", "two": "steady", "bad": "breaking"})
    options = {
        "api_server": cluster.url,
        "namespace": NAMESPACE,
        "token_file": str(cluster.account / "token"),
        "ca_file": str(cluster.account / "ca.crt"),
    }
    machine = Machine(tmp_path / "machine", owner, made, driver="kubernetes", driver_options=options)
    machine.start()
    yield machine
    machine.close()


def test_workloads_of_a_cluster_live_through_crashes_rollouts_removals_and_outages(
    machine: Machine, owner: Owner, cluster: KubeApiDouble
):
    def why() -> Any:
        return machine.status(), machine.log()

    def id_of(name: str) -> str:
        return machine.workloads[name]

    def images(name: str) -> list[str]:
        pods = cluster.pods(id_of(name))
        return [one["spec"]["containers"][0]["image"].split("@")[0].rpartition(":")[2] for one in pods]

    def uids(name: str) -> list[str]:
        return [one["metadata"]["uid"] for one in cluster.pods(id_of(name))]

    # Three begin, one of them crashes again and again.
    eventually(lambda: [machine.seen(n) for n in ("one", "two")] == ["up", "up"], within_s=40, why=why)
    eventually(
        lambda: "CrashLoopBackOff: ended with code 1" in machine.told("bad")["detail"], within_s=30, why=why
    )
    # It is being begun until it is well, or for so long as the manager waits for that (a minute).
    eventually(lambda: machine.seen("bad") == "unhealthy", within_s=100, why=why)
    assert machine.told("bad")["crashes"] >= 1
    assert owner.api.get(f"/v1/workloads/{id_of('one')}")["running_version"] == "1.0.0"
    rss = Path(f"/proc/{machine.status()['pid']}/status").read_text().split("VmRSS:")[1].split()[0]
    assert int(rss) / 1024 < RSS_MIB_MAX

    # A rollout is patched in, reported, and costs nothing.
    from_ms = now_ms()
    owner.offer("steady", "2.0.0", well("2.0.0"))
    for name in ("one", "two"):
        where = f"/v1/workloads/{id_of(name)}"
        eventually(lambda w=where: owner.api.get(w)["running_version"] == "2.0.0", within_s=40, why=why)
        eventually(lambda n=name: images(n) == ["2.0.0"], within_s=5)
    eventually(lambda: machine.seen("one") == "up", within_s=10, why=why)
    spent = owner.api.uptime(id_of("one"), from_ms, now_ms() - 1_000).ms
    assert {kind for kind, ms in spent.items() if ms} <= {"up", "maintenance"}, spent

    # A manifest that cannot be run here leaves what runs, and says why.
    owner.offer("steady", "2.1.0", {**well("2.1.0"), "privileged": True})
    eventually(
        lambda: "privileged: there is no such key" in machine.told("one")["error"], within_s=20, why=why
    )
    assert images("one") == ["2.0.0"]

    # One is removed.
    assert owner.api.post(f"/v1/workloads/{id_of('two')}/retire", {}).status == 200
    eventually(lambda: cluster.deployment(id_of("two")) is None, within_s=30, why=why)
    assert cluster.pods(id_of("two")) == []

    # The API server is away; the manager is killed meanwhile; a version is offered that cannot be had yet.
    from_ms, pods = now_ms(), uids("one")
    made = cluster.control("state")["pods_made"]
    cluster.kill()
    away_since_ms = now_ms()
    eventually(lambda: "does not answer" in machine.status()["driver_error"], within_s=15, why=why)
    machine.kill()
    machine.start()
    eventually(lambda: machine.status()["state"] == "beating", within_s=25, why=why)
    assert machine.told("one")["state"] == "healthy"
    owner.offer("steady", "3.0.0", well("3.0.0"))
    while now_ms() < away_since_ms + AWAY_S * 1_000:
        assert machine.seen("one") in ("up", "updating", "maintenance"), why()
    assert "does not answer" in machine.told("one")["error"]
    cluster.start()
    assert uids("one") == pods
    where = f"/v1/workloads/{id_of('one')}"
    eventually(lambda: owner.api.get(where)["running_version"] == "3.0.0", within_s=60, why=why)
    assert images("one") == ["3.0.0"]
    assert machine.status()["driver_error"] == ""
    state = cluster.control("state")
    assert state["pods_made"][f"np-{id_of('one')}"] == made[f"np-{id_of('one')}"] + 1
    assert set(state["most_at_once"].values()) == {1}

    # Killed and begun again, nothing is doubled or begun anew.
    pods = uids("one")
    machine.kill()
    machine.start()
    eventually(lambda: machine.status()["state"] == "beating", within_s=25, why=why)
    eventually(lambda: machine.seen("one") == "up", within_s=10, why=why)
    assert uids("one") == pods

    # An ordered restart begins another pod; an orderly stop ends them all and is told.
    owner.make(f"{where}/restart", {})
    eventually(lambda: machine.told("one")["restarts"] == 1, within_s=30, why=why)
    eventually(lambda: uids("one") not in (pods, []) and machine.seen("one") == "up", within_s=30, why=why)
    assert machine.stop() == 0
    assert cluster.all("pods") == []
    assert len(cluster.all("deployments")) == 2
    assert owner.api.node_state(machine.node_id) == "stopped"
    machine.start()
    eventually(lambda: machine.seen("one") == "up", within_s=40, why=why)
