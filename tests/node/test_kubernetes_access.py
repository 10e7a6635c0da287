"""Finding the API server: kubeconfigs as kubectl and K3s write them, tokens that are replaced."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config import ConfigError
from node.drivers.kubernetes_access import find_access
from node.drivers.kubernetes_install import to_yaml
from node.drivers.kubernetes_yaml import read_yaml
from tests.node.kube_api.double import KubeApiDouble
from tests.node.kubernetes_rig import driving, order, phase

K3S = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: {server}
  name: default
contexts:
- context:
    cluster: default
    namespace: nodepulse
    user: default
  name: default
current-context: default
kind: Config
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"""


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def kubeconfig(double: KubeApiDouble) -> str:
    return K3S.format(
        ca=encoded(double.folder / "ca.crt"),
        server=double.url,
        certificate=encoded(double.folder / "client.crt"),
        key=encoded(double.folder / "client.key"),
    )


@pytest.mark.parametrize("as_json", [False, True], ids=["yaml", "json"])
async def test_a_kubeconfig_as_k3s_writes_it_opens_the_door(
    double: KubeApiDouble, tmp_path: Path, as_json: bool
):
    text = kubeconfig(double)
    path = tmp_path / "k3s.yaml"
    path.write_text(json.dumps(yaml.safe_load(text)) if as_json else text)
    async with driving(double, tmp_path, kubeconfig=str(path)) as driver:
        assert driver.trouble() == ""
        await driver.apply(order("a"))
        await phase(driver, "a", "running")
    assert {user for *_, user, _ in double.control("state")["requests"]} == {"system:admin"}


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("current-context: default", "current-context: other", "no context 'other'"),
        ("    client-key-data", "    exec:\n      command: x\n    client-key-data", "user.exec"),
        (
            "    server:",
            "    insecure-skip-tls-verify: true\n    server:",
            "insecure-skip-tls-verify is refused",
        ),
        ("kind: Config", "kind: &a Config", "line 14: YAML that is not read here"),
        ("kind: Config", "kind: |\n  Config", "line 14"),
        ("- name: default", "- nome: default", "not a kubeconfig"),
        ("certificate-authority-data: ", "certificate-authority-data: =", "kubeconfig"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(
    double: KubeApiDouble, tmp_path: Path, was: str, now: str, told: str
):
    text = kubeconfig(double)
    assert was in text
    path = tmp_path / "config"
    path.write_text(text.replace(was, now, 1))
    with pytest.raises(ConfigError, match=told):
        find_access({"kubeconfig": str(path)}, {})


def test_a_pod_finds_its_service_account(double: KubeApiDouble):
    access = find_access({}, double.environment())
    assert (access.server, access.namespace) == (double.url, "nodepulse")
    assert access.bearer() == "first"
    double.new_token("second")
    assert access.bearer() == "second"
    before = access.tls()
    assert access.tls() is before
    assert "second" not in repr(access)


plain = st.text("abcXYZ019-./_ ", max_size=12).map(str.strip)
texts = st.one_of(plain, st.text(max_size=8))
values = st.recursive(
    st.one_of(texts, st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner.filter(lambda one: not isinstance(one, list)), max_size=3),
        st.dictionaries(plain.filter(bool), inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(plain.filter(bool), values, min_size=1, max_size=4))
def test_what_we_write_as_yaml_is_read_by_us_as_by_everybody(value: dict[str, Any]):
    text = to_yaml(value)
    assert yaml.safe_load(text) == value
    assert read_yaml(text) == value


@settings(max_examples=150, deadline=None)
@given(text=st.text("ab:- \n\"'#{}[]&|\t", max_size=40))
def test_what_is_read_of_any_yaml_is_what_it_says_or_a_refusal(text: str):
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # no YAML at all, or a date that there is not
        return
    try:
        ours = read_yaml(text)
    except (ValueError, RecursionError):
        return
    assert ours == yaml.load(text, yaml.BaseLoader) or ours == yaml.safe_load(text)
