"""The kubernetes driver against an API server process that behaves as Kubernetes documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

import node.drivers.kubernetes_api as api_module
from node.drivers.kubernetes_deployment import render
from node.drivers.kubernetes_manifest import parse_manifest
from node.drivers.kubernetes_view import View
from node.drivers.port import DriverError, ManifestError, Origin, Phase
from tests.node.kube_api.double import KubeApiDouble
from tests.node.kubernetes_rig import driving, manifest, order, phase, until

RUNNING, FAILED = "running", "failed"


async def test_a_workload_is_made_patched_restarted_and_deleted(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        assert driver.running()["a"].phase is Phase.STARTING
        first = await phase(driver, "a", RUNNING, origin=Origin.ORDERED)
        made = double.deployment("a")
        assert made is not None
        (owner,) = [one for one in made["metadata"]["managedFields"] if one["manager"] == "nodepulse"]
        assert owner["operation"] == "Apply"

        await driver.apply(order("a", manifest("registry.test/well:2.0.0"), version="2.0.0"))
        assert driver.running()["a"].version == "2.0.0"
        second = await phase(driver, "a", RUNNING, origin=Origin.ORDERED)
        assert second.run != first.run

        await driver.restart("a", restarts=1)
        assert driver.running()["a"].phase is Phase.STARTING
        third = await phase(driver, "a", RUNNING, origin=Origin.ORDERED, restarts=1)
        assert third.run != second.run
        assert (third.version, third.crashes) == ("2.0.0", 0)

        await driver.remove("a")
        assert driver.running() == {}
        assert double.all("deployments") == double.all("pods") == []
        await driver.remove("a")
    assert double.control("state")["most_at_once"]["np-a"] == 1


async def test_what_ails_a_workload_is_told(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path) as driver:
        for word in ("crash", "missing", "lazy", "huge", "forbidden", "fading"):
            await driver.apply(order(word, manifest(f"registry.test/{word}@sha256:{'a' * 64}")))
        await phase(driver, "missing", FAILED, detail="ImagePullBackOff: rpc error: image not found")
        assert "Insufficient cpu" in (await phase(driver, "huge", FAILED)).detail
        assert "exceeded quota" in (await phase(driver, "forbidden", FAILED)).detail
        assert (await phase(driver, "fading", FAILED)).detail.startswith("not ready")
        await until(lambda: "unready status" in driver.running()["lazy"].detail)
        assert driver.running()["lazy"].phase is Phase.STARTING
        await phase(driver, "crash", FAILED, detail="CrashLoopBackOff: ended with code 1")
        assert (await phase(driver, "crash", RUNNING, origin=Origin.CRASHED)).crashes >= 1


async def test_a_deleted_pod_is_a_crash_and_a_deleted_deployment_is_no_longer_run(
    double: KubeApiDouble, tmp_path: Path
):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        await phase(driver, "a", RUNNING)
        (pod,) = double.pods("a")
        double.ask("DELETE", f"/api/v1/namespaces/nodepulse/pods/{pod['metadata']['name']}")
        await phase(driver, "a", RUNNING, origin=Origin.CRASHED, crashes=1)
        double.ask("DELETE", "/apis/apps/v1/namespaces/nodepulse/deployments/np-a")
        await until(lambda: driver.running() == {})
        with pytest.raises(DriverError, match="there is no workload"):
            await driver.restart("a", restarts=1)


async def test_the_next_driver_finds_what_runs_and_doubles_nothing(double: KubeApiDouble, tmp_path: Path):
    async with driving(double, tmp_path / "lost") as driver:
        pass  # no folder: what is known cannot be kept, which is no error
    tmp_path.joinpath("one").mkdir()
    async with driving(double, tmp_path / "one") as driver:
        await driver.apply(order("a", manifest(health={"report": True, "start_period_s": 7})))
        before = await phase(driver, "a", RUNNING)
    for folder in (tmp_path / "one", tmp_path):  # with what the first has kept, and without
        async with driving(double, folder) as driver:
            found = driver.running()["a"]
            assert (found.run, found.phase, found.origin) == (before.run, Phase.RUNNING, Origin.ADOPTED)
            assert (found.version, found.digest, found.name) == (before.version, before.digest, "the a")
            assert found.health is not None
            assert (found.health.report, found.health.start_period_s) == (True, 7)
            await driver.apply(order("a", manifest(health={"report": True, "start_period_s": 7})))
            assert (await phase(driver, "a", RUNNING)).run == before.run
    assert double.control("state")["pods_made"]["np-a"] >= 1
    assert len(double.pods("a")) == 1


async def test_an_orderly_stop_ends_the_pods_and_the_next_start_begins_them(
    double: KubeApiDouble, tmp_path: Path
):
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        await driver.apply(order("b"))
        await phase(driver, "b", RUNNING)
        await driver.stop_all()
        assert double.all("pods") == []
        await until(lambda: driver.running()["a"].detail == "stopped")
        # Looking on does not begin them.
        asked = len(double.control("state")["requests"])
        await until(lambda: len(double.control("state")["requests"]) >= asked + 6)
        assert [one["spec"]["replicas"] for one in double.all("deployments")] == [0, 0]
    async with driving(double, tmp_path) as driver:
        assert (await phase(driver, "a", RUNNING)).origin is Origin.ORDERED
        await phase(driver, "b", RUNNING)


async def test_two_nodes_of_one_namespace_leave_each_other_alone(double: KubeApiDouble, tmp_path: Path):
    (tmp_path / "other").mkdir()
    async with driving(double, tmp_path) as one, driving(double, tmp_path / "other", node_id="~#") as other:
        await one.apply(order("a"))
        await other.apply(order("b"))
        await phase(one, "a", RUNNING)
        await phase(other, "b", RUNNING)
        assert (set(one.running()), set(other.running())) == ({"a"}, {"b"})


@pytest.mark.slow
async def test_pages_are_read_to_the_end_and_again_when_they_expire(
    double: KubeApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api_module, "PAGE", 2)
    async with driving(double, tmp_path) as driver:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(driver.apply, order(f"w{number}"))
        for number in range(5):
            await phase(driver, f"w{number}", RUNNING)
        double.fail({"verb": "list", "resource": "pods", "code": 410, "times": 2})
        await until(lambda: double.control("state")["faults"][0]["times"] == 0)
        assert driver.trouble() == ""
        assert len(driver.running()) == 5


async def test_somebody_elses_field_is_left_and_ours_is_taken_back(double: KubeApiDouble, tmp_path: Path):
    where = "/apis/apps/v1/namespaces/nodepulse/deployments/np-a?fieldManager=kubectl-edit"
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a", manifest(env={"OLD": "1", "KEPT": "1"})))
        foreign = {"metadata": {"annotations": {"team": "x"}}, "spec": {"progressDeadlineSeconds": 9}}
        double.ask("PATCH", where, foreign, kind="application/merge-patch+json")
        await driver.apply(order("a", manifest(env={"KEPT": "2"}), version="2.0.0"))
    made = double.deployment("a")
    assert made is not None
    env = {one["name"]: one["value"] for one in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env == {"KEPT": "2", "NODEPULSE_WORKLOAD_ID": "a", "NODEPULSE_WORKLOAD": "the a"}
    assert made["metadata"]["annotations"]["team"] == "x"
    assert made["spec"]["progressDeadlineSeconds"] == 540


async def test_a_spoilt_annotation_is_of_no_version_so_that_it_is_ordered_anew(
    double: KubeApiDouble, tmp_path: Path
):
    where = "/apis/apps/v1/namespaces/nodepulse/deployments/np-a"
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        spoilt = {"metadata": {"annotations": {"nodepulse/order": "{"}}}
        double.ask("PATCH", where, spoilt, kind="application/merge-patch+json")
        await until(lambda: driver.running()["a"].digest == "")
        await driver.apply(order("a"))
        assert driver.running()["a"].version == "1.0.0"
        await phase(driver, "a", RUNNING, version="1.0.0")


async def test_a_manifest_that_the_server_refuses_is_the_manifests_fault(
    double: KubeApiDouble, tmp_path: Path
):
    async with driving(double, tmp_path) as driver:
        for wrong in ("Upper", "a.b", "x" * 60):
            with pytest.raises(ManifestError, match="name a Deployment"):
                await driver.apply(order(wrong))
        double.fail({"verb": "patch", "code": 422, "message": "spec: not so"})
        with pytest.raises(ManifestError, match="422 spec: not so"):
            await driver.apply(order("a"))
        with pytest.raises(ManifestError, match="privileged: there is no such key"):
            driver.check(json.dumps({"image": "x", "privileged": True}))


async def test_a_deployment_on_its_way_out_is_waited_for_and_made_anew(double: KubeApiDouble, tmp_path: Path):
    where = "/apis/apps/v1/namespaces/nodepulse/deployments/np-a"
    async with driving(double, tmp_path) as driver:
        await driver.apply(order("a"))
        before = await phase(driver, "a", RUNNING)
        double.ask("DELETE", where, {"propagationPolicy": "Foreground"})
        await driver.apply(order("a"))
        after = await phase(driver, "a", RUNNING)
    assert after.run != before.run
    made = double.deployment("a")
    assert made is not None
    assert "deletionTimestamp" not in made["metadata"]
    assert double.control("state")["most_at_once"]["np-a"] == 1


async def test_a_reading_that_began_before_a_change_says_nothing_of_it(tmp_path: Path):
    view = View(tmp_path / "kubernetes.json")
    moment = view.moment()
    with view.changing("a"):
        view.ordered(order("a"), None, stop_s=1)
        view.take([], [], moment=view.moment())
        assert "a" in view.kept
    view.take([], [], moment=moment)
    assert "a" in view.kept
    view.take([], [], moment=view.moment())
    assert view.kept == {}
    # What is removed does not come back by a reading that still showed it.
    told = order("a")
    where = {"node": "n", "namespace": "n", "report_url": "", "machine": ""}
    shown = render(told, parse_manifest(told.manifest), **where)
    moment = view.moment()
    with view.changing("a"):
        view.take([shown], [], moment=view.moment())
    view.take([shown], [], moment=moment)
    assert view.kept == {}
    view.take([shown], [], moment=view.moment())
    assert view.kept["a"].order.digest == told.digest


async def test_a_file_that_is_spoilt_is_no_reason_not_to_start(tmp_path: Path):
    for spoilt in (b"", b"[1]", b'[{"order": {}}]', b'{"a": 1}', b"\xff", b"null"):
        (tmp_path / "kubernetes.json").write_bytes(spoilt)
        assert View(tmp_path / "kubernetes.json").kept == {}
