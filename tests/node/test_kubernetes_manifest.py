"""The kubernetes driver's manifest and what is rendered of it, held against the published schemas."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from node.config import NodeConfig, load, save
from node.drivers.kubernetes_deployment import label_of, name_of, read_order, render, selector_of
from node.drivers.kubernetes_install import RULES, cluster_values, install_objects, render_install, to_yaml
from node.drivers.kubernetes_manifest import parse_manifest
from node.drivers.port import ManifestError
from tests.node.kube_api.double import TOP
from tests.node.kubernetes_rig import order

VERSIONS = ("1.27", "1.31", "1.37")  # of Kubernetes
DIGEST = "sha256:" + "a" * 64
WHOLE: dict[str, Any] = {
    "image": f"ghcr.io/project/workload:1.2.3@{DIGEST}",
    "command": ["/bin/work", "$(HOME)"],
    "args": ["--price", "5$$"],
    "env": {"LEVEL": "debug", "EMPTY": ""},
    "ports": {"http": 8080, "p2p": 4001},
    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
    "probes": {
        "startup": {"tcp": 4001, "failures": 30},
        "readiness": {"http": {"port": 8080, "path": "/ready?x=1"}, "interval_s": 10},
        "liveness": {"command": ["check"], "delay_s": 5, "timeout_s": 2},
    },
    "scratch": {"/tmp": "64Mi", "/var/cache/work": "1Gi"},
    "user": 1000,
    "writable_root": True,
    "pull_secret": "registry",
    "stop_timeout_s": 30,
    "health": {"report": True, "start_period_s": 60},
}
WRONG: list[tuple[Any, str]] = [
    ([], "not a JSON object"),
    ({}, "image: missing"),
    ({"image": ""}, "image: not a name"),
    ({"image": "with space"}, "image: not a name"),
    ({"image": "x@sha256:abc"}, "image: not a name"),
    ({"privileged": True}, "privileged: there is no such key"),
    ({"hostNetwork": True}, "hostNetwork: there is no such key"),
    ({"command": []}, "command: not a list"),
    ({"command": "sh"}, "command: not a list"),
    ({"env": {"A-B": "x"}}, "env.A-B: not a variable"),
    ({"env": {"A": 1}}, "env.A: not a variable"),
    ({"ports": {"http": 0}}, "ports.http: not a whole number"),
    ({"ports": {"80": 80}}, "ports.80: a name has"),
    ({"ports": {"a": 80, "b": 80}}, "two names"),
    ({"resources": {"limits": {"cpu": "lots"}}}, "resources.limits.cpu: not"),
    ({"resources": {"limits": {"nvidia.com/gpu": "1"}}}, "there is no such key"),
    ({"resources": {"claims": {}}}, "resources.claims: there is no such key"),
    ({"probes": {"readiness": {}}}, "probes.readiness: not exactly one"),
    ({"probes": {"readiness": {"tcp": 1, "command": ["x"]}}}, "probes.readiness: not exactly one"),
    ({"probes": {"readiness": {"http": {"port": 1, "host": "x"}}}}, "host: there is no such key"),
    ({"probes": {"readiness": {"http": {"port": 1, "path": "x"}}}}, "http.path: not a path"),
    ({"probes": {"readiness": {"tcp": 1, "failures": 0}}}, "failures: not a whole number"),
    ({"scratch": {"tmp": "1Mi"}}, "scratch.tmp: not an absolute path"),
    ({"scratch": {"/tmp/../etc": "1Mi"}}, "not an absolute path"),
    ({"scratch": {"/tmp": "much"}}, "scratch./tmp: not"),
    ({"user": 0}, "user: not a whole number from 1"),
    ({"user": True}, "user: not a whole number"),
    ({"writable_root": "yes"}, "writable_root: neither"),
    ({"pull_secret": "A"}, "pull_secret: not the name"),
    ({"stop_timeout_s": 301}, "stop_timeout_s: not a whole number"),
    ({"health": {"http": "http://x/"}}, "health.http: there is no such key"),
]


def rendered(manifest: dict[str, Any], **more: str) -> dict[str, Any]:
    told = order("019aa8e6-1c00-7000-8000-00000000002a", json.dumps(manifest))
    where = {"node": "n", "namespace": "nodepulse", "report_url": "", "machine": "", **more}
    return render(told, parse_manifest(told.manifest), **where)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", [WHOLE, {"image": "x"}], ids=["everything", "an image alone"])
def test_what_is_rendered_is_a_deployment_by_the_published_schema(manifest: dict[str, Any], version: str):
    made = rendered(manifest, report_url="http://manager:7910", machine="m1")
    kubernetes_validate.validate(made, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**made, "spec": {**made["spec"], "strange": 1}}, version, strict=True)


def test_a_workload_may_do_nothing_in_the_cluster_and_never_runs_twice():
    made = rendered(WHOLE, report_url="http://manager:7910", machine="m1")
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert made["spec"]["strategy"] == {"type": "Recreate"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert rendered({"image": "x"})["spec"]["template"]["spec"]["containers"][0]["securityContext"][
        "readOnlyRootFilesystem"
    ]
    assert pod["nodeSelector"] == {"kubernetes.io/hostname": "m1"}
    env = {one["name"]: one["value"] for one in container["env"]}
    assert env["NODEPULSE_URL"] == "http://manager:7910"
    assert env["NODEPULSE_WORKLOAD_ID"] == "019aa8e6-1c00-7000-8000-00000000002a"


def test_a_manifests_text_is_meant_as_it_stands():
    (container,) = rendered(WHOLE)["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/work", "$$(HOME)"]
    assert container["args"] == ["--price", "5$$$$"]  # which Kubernetes reads as 5$$


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_a_manifest_that_is_wrong_is_refused_by_the_key_at_fault(wrong: Any, told: str):
    value = {"image": "x", **wrong} if isinstance(wrong, dict) and wrong else wrong
    with pytest.raises(ManifestError) as refused:
        parse_manifest(json.dumps(value))
    assert told in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"image": "\\ud800"}', '{"image": NaN}'])
def test_what_is_no_manifest_is_refused(text: str):
    with pytest.raises(ManifestError):
        parse_manifest(text)


def test_an_order_is_read_back_from_its_deployment():
    told = order("a", json.dumps(WHOLE), restarts=3)
    made = render(told, parse_manifest(told.manifest), node="n", namespace="n", report_url="", machine="")
    found = read_order(made)
    assert found is not None
    assert (found[0].restarts, found[0].version, found[0].digest, found[0].name) == (
        3,
        "1.0.0",
        told.digest,
        "the a",
    )
    assert found[1] == parse_manifest(told.manifest).health
    for spoilt in ("", "[]", "{}", '{"health": 1}', "null"):
        made["metadata"]["annotations"]["nodepulse/order"] = spoilt
        assert read_order(made) is None


def test_labels_and_names_have_the_form_that_kubernetes_asks_for():
    assert label_of("019aa8e6-1c00") == "019aa8e6-1c00"
    assert label_of("~!") == label_of("~!") != label_of("~?")
    assert len(label_of("x" * 128)) <= 63
    assert selector_of("n") == "app.kubernetes.io/managed-by=nodepulse,nodepulse/node=n"
    assert name_of("0a-b") == "np-0a-b"
    for wrong in ("", "A", "-a", "a-", "a.b", "x" * 51):
        with pytest.raises(ManifestError):
            name_of(wrong)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_installation_is_valid_by_the_published_schemas_and_reads_back_as_yaml(version: str):
    image = f"ghcr.io/nodepulse/node@{DIGEST}"
    objects = install_objects("edge", image)
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    text = render_install("edge", image)
    assert list(yaml.safe_load_all(text)) == list(objects)
    roles = [one for one in objects if one["kind"] == "Role"]
    assert roles[0]["rules"] == list(RULES)
    assert not [one for one in objects if one["kind"] == "Secret"]


@pytest.mark.slow
def test_the_commands_at_its_head_make_the_configuration_that_it_needs(tmp_path: Path):
    path = tmp_path / "node.json"
    save(path, NodeConfig(node_id="n", private_key="00" * 32, web_url="https://x"))
    head = render_install("edge", "x").split("---\n")[0]
    commands = [shlex.split(line[2:]) for line in head.splitlines() if "config set" in line]
    for name, *words in commands:
        assert name == "nodepulse-node"
        whole = [sys.executable, "-P", "-m", "node.commands", *words]
        subprocess.run(
            whole, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TOP)}, check=True, timeout=30
        )
    found = asdict(load(path, {}))
    assert {key: found[key] for key in cluster_values("edge")} == cluster_values("edge")
    assert (found["node_id"], found["private_key"]) == ("n", "00" * 32)


@pytest.mark.parametrize("wrong", [("A", "x"), ("n", "x\ny"), ("n", ""), ("n" * 64, "x")])
def test_an_installation_that_would_be_no_yaml_is_refused(wrong: tuple[str, str]):
    with pytest.raises(ValueError, match="not"):
        render_install(*wrong)


def test_every_text_survives_the_way_through_yaml():
    words = [
        "",
        "yes",
        "No",
        "null",
        "~",
        "1",
        "1.5",
        "a: b",
        "- a",
        "#",
        "x #y",
        "'",
        '"',
        "\n",
        "é",
        "/etc/x",
        "0o1",
    ]
    value = {"list": words, **{word or "empty": [{"a": word, "b": [word]}, [], {}] for word in words}}
    assert yaml.safe_load(to_yaml(value)) == value
