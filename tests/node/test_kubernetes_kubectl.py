"""The pretended API server asked by the real `kubectl`: what both clients see of each other's doing.

It is no real API server, so this is the only judge of it that was not written here. Run where a `kubectl` is
on the PATH: nobody should have to install it for these tests, least of all from whoever packed it for Python.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from node.drivers.kubernetes_deployment import render
from node.drivers.kubernetes_manifest import parse_manifest
from node.drivers.port import Origin
from tests.node.kube_api.double import NAMESPACE, KubeApiDouble
from tests.node.kubernetes_rig import NODE_ID, driving, manifest, order, phase, until

KUBECTL = shutil.which("kubectl")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(KUBECTL is None, reason="no kubectl on the PATH: install Kubernetes' own client"),
]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def kubectl(double: KubeApiDouble, tmp_path: Path) -> Kubectl:
    assert KUBECTL is not None

    def run(*words: str, token: str = "admin") -> subprocess.CompletedProcess[str]:
        ca = str(double.folder / "ca.crt")
        where = ["--server", double.url, "--certificate-authority", ca, "--token", token, "-n", NAMESPACE]
        environment = {"HOME": str(tmp_path), "PATH": ""}
        return subprocess.run(
            [KUBECTL, *where, *words],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=30,
        )

    return run


def apply_words(path: Path, image: str, *more: str) -> list[str]:
    told = order("a", manifest(image))
    whole = render(
        told, parse_manifest(told.manifest), node=NODE_ID, namespace=NAMESPACE, report_url="", machine=""
    )
    path.write_text(json.dumps(whole))
    return ["apply", "--server-side", "--validate=false", "-f", str(path), *more]


async def test_what_kubectl_applies_is_adopted_and_what_the_driver_applies_kubectl_sees(
    double: KubeApiDouble, kubectl: Kubectl, tmp_path: Path
):
    ours = ("--field-manager", "nodepulse")
    done = kubectl(*apply_words(tmp_path / "a.json", "r.test/well:1", *ours))
    assert (done.returncode, done.stdout) == (0, "deployment.apps/np-a serverside-applied\n"), done.stderr
    await until(lambda: '"readyReplicas": 1' in kubectl("get", "deployment", "np-a", "-o", "json").stdout)
    async with driving(double, tmp_path) as driver:
        first = await phase(driver, "a", "running", origin=Origin.ADOPTED)
        await driver.apply(order("a", manifest("r.test/well:1")))
        assert (await phase(driver, "a", "running")).run == first.run  # the same to the letter
        told = kubectl(
            "get", "deployments", "-l", f"nodepulse/node={NODE_ID}", "-o", "json", "--show-managed-fields"
        )
        (seen,) = json.loads(told.stdout)["items"]
        assert [one["manager"] for one in seen["metadata"]["managedFields"]] == ["nodepulse"]
        # Somebody edits the image by hand: the next version takes it back.
        image = '{"spec":{"template":{"spec":{"containers":[{"name":"workload","image":"r.test/well:9"}]}}}}'
        assert kubectl("patch", "deployment", "np-a", "--type", "merge", "-p", image).returncode == 0
        await driver.apply(order("a", manifest("r.test/well:2"), version="2.0.0"))
        assert kubectl("get", "deployment", "np-a", "-o", "jsonpath={..image}").stdout == "r.test/well:2"
        assert kubectl("delete", "deployment", "np-a", "--cascade=foreground").returncode == 0
        await driver.remove("a")
        assert driver.running() == {}


def test_kubectl_is_refused_in_the_words_it_knows(double: KubeApiDouble, kubectl: Kubectl, tmp_path: Path):
    assert (
        kubectl(*apply_words(tmp_path / "a.json", "r.test/well:1", "--field-manager", "nodepulse")).returncode
        == 0
    )
    refused = kubectl(*apply_words(tmp_path / "b.json", "r.test/well:2", "--field-manager", "somebody"))
    assert refused.returncode == 1
    assert (
        'conflict with "nodepulse": .spec.template.spec.containers[name="workload"].image' in refused.stderr
    )
    assert "You must be logged in" in kubectl("get", "deployments", token="wrong").stderr
    assert 'cannot get resource "deployments"' in kubectl("get", "deployment", "np-a", token="first").stderr
    assert kubectl("get", "deployments", "-o", "name", token="first").stdout == "deployment.apps/np-a\n"
    assert kubectl("get", "pods", "-o", "name", "--chunk-size=1").returncode == 0
