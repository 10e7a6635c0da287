"""`admin kind|version|release|node|workload|check|window|provision`: what runs where."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.keys import load_secrets
from tests.front.administered import NOWHERE, Administered

OF_GATEWAY = ("--project", "alpha", "--kind", "gateway")
MANIFEST = '{"image": "gateway:1"}'


@pytest.fixture(scope="module")
def gateway(cli: Administered) -> str:
    """The id of a kind of project alpha, with the version 1.0.0 for everybody."""
    cli.admin("project", "create", "alpha")
    made = cli.admin("kind", "create", "gateway", "--project", "alpha", "--name", "Gateway")
    assert cli.audited("kind.create")["subject"] == made["kind_id"]
    cli.admin("version", "publish", "1.0.0", "-", "--rollout", 100, *OF_GATEWAY, stdin=MANIFEST)
    cli.audited("version.create")
    return made["kind_id"]


@pytest.fixture
def node(cli: Administered, gateway: str) -> dict[str, Any]:
    return cli.admin("node", "create", "--project", "alpha", "--workload", "gateway:gw")


def public_key() -> str:
    return Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()


def test_kinds_are_listed_and_changed(cli, gateway):
    [listed] = cli.admin("kind", "list", "--project", "alpha")["kinds"]
    assert (listed["kind"], listed["kind_id"]) == ("gateway", gateway)
    changed = cli.admin("kind", "change", "gateway", "--project", "alpha", "--minimum-version", "1.0.0")
    assert changed["minimum_version"] == "1.0.0"
    assert cli.audited("kind.change")["subject"] == gateway
    cleared = cli.admin("kind", "change", "gateway", "--project", "alpha", "--no-minimum-version")
    assert cleared["minimum_version"] is None
    assert "already" in cli.refused("kind", "create", "gateway", "--project", "alpha")
    assert "is no slug" in cli.misused("kind", "create", "Gate way", "--project", "alpha")
    assert "cannot be the minimum" in cli.refused(
        "kind", "change", "gateway", "--project", "alpha", "--minimum-version", "9.9.9"
    )
    assert "there is no kind relay in alpha" in cli.refused(
        "version", "list", "--project", "alpha", "--kind", "relay"
    )


def test_a_version_is_published_from_a_file_rolled_out_and_withdrawn(cli, gateway, tmp_path):
    file = tmp_path / "manifest.json"
    file.write_text(MANIFEST)
    made = cli.admin("version", "publish", "1.1.0", file, "--rollout", 10, *OF_GATEWAY)
    assert made["digest"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert made["rollout_percent"] == 10
    assert cli.admin("version", "rollout", "1.1.0", 50, *OF_GATEWAY)["rollout_percent"] == 50
    assert cli.audited("version.change")["subject"] == made["version_id"]
    assert cli.admin("version", "show", "1.1.0", *OF_GATEWAY)["manifest"] == MANIFEST
    assert cli.admin("version", "withdraw", "1.1.0", *OF_GATEWAY)["withdrawn_at"] is not None
    assert cli.admin("version", "withdraw", "1.1.0", "--undo", *OF_GATEWAY)["withdrawn_at"] is None
    versions = cli.admin("version", "list", *OF_GATEWAY)["versions"]
    assert [one["version"] for one in versions] == ["1.0.0", "1.1.0"]


def test_what_is_no_manifest_and_no_version_is_said(cli, gateway, tmp_path):
    file = tmp_path / "manifest.json"
    for content, why in (
        (b"[1]", "not a JSON object"),
        (b"\xff{}", "is no UTF-8 text"),
        (b'"' + b"x" * 300_000 + b'"', "more than 262144 bytes"),
    ):
        file.write_bytes(content)
        assert why in cli.refused("version", "publish", "2.0.0", file, *OF_GATEWAY)
    assert "No such file" in cli.refused("version", "publish", "2.0.0", tmp_path / "none", *OF_GATEWAY)
    assert "SemVer" in cli.misused("version", "publish", "v2", file, *OF_GATEWAY)
    assert "already" in cli.refused("version", "publish", "1.0.0", "-", *OF_GATEWAY, stdin="{}")
    assert "there is no version 7.0.0" in cli.refused("version", "rollout", "7.0.0", 1, *OF_GATEWAY)
    assert "is not in the range" in cli.misused("version", "rollout", "1.0.0", 101, *OF_GATEWAY)


def test_a_release_is_published_rolled_out_and_withdrawn(cli):
    what = ("--url", "https://example.org/m", "--sha256", "ab" * 32, "--signature", "sig")
    assert cli.admin("release", "publish", "3.0.0", *what)["rollout_percent"] == 0
    assert cli.audited("release.create")["subject"] == "3.0.0"
    assert cli.admin("release", "rollout", "3.0.0", 20)["rollout_percent"] == 20
    assert cli.admin("release", "withdraw", "3.0.0")["withdrawn_at"] is not None
    assert [one["version"] for one in cli.admin("release", "list")["releases"]] == ["3.0.0"]
    assert "there is no release 4.0.0; see: admin release list" in cli.refused(
        "release", "rollout", "4.0.0", 1
    )
    assert "SHA-256" in cli.misused("release", "publish", "4.0.0", *what[:2], "--sha256", "x", *what[4:])
    assert "no http" in cli.misused("release", "publish", "4.0.0", "--url", "ftp://x", *what[2:])


def test_a_node_is_made_with_its_workloads_for_somebody(cli, gateway):
    olga = cli.admin("user", "create", "--email", "olga@example.org")["user_id"]
    key = public_key()
    made = cli.admin(
        *("node", "create", "--project", "alpha", "--name", "lisbon-1", "--region", "eu-west"),
        *("--owner", "olga@example.org", "--public-key", key),
        *("--workload", "gateway:gw", "--workload", "gateway", "--workloads", 1),
    )
    assert cli.audited("node.register")["subject"] == made["node_id"]
    assert (made["private_key"], len(made["workloads"])) == (None, 3)
    shown = cli.admin("node", "show", made["node_id"])
    assert (shown["owner_id"], shown["region"], shown["public_key"]) == (olga, "eu-west", key)
    [found] = cli.admin("node", "list", "--owner", olga, "--prefix", "lisbon")["nodes"]
    assert (found["node_id"], found["workloads"]) == (made["node_id"], made["workloads"])
    kinds = [one["kind"] for one in cli.admin("workload", "list", "--node", made["node_id"])["workloads"]]
    assert kinds == [None, "gateway", "gateway"]
    assert "a node has this public key; each node needs one of its own" in cli.refused(
        "node", "create", "--project", "alpha", "--public-key", key
    )
    assert "no such kind" in cli.refused("node", "create", "--project", "alpha", "--workload", "relay")
    assert "64 workloads at most" in cli.misused(
        "node", "create", "--project", "alpha", "--workloads", 64, "--workload", "gateway"
    )
    assert "is no Ed25519" in cli.misused("node", "create", "--project", "alpha", "--public-key", "02" * 32)


def test_a_node_made_without_more_has_one_workload_and_a_key_of_its_own(cli, gateway):
    made = cli.admin("node", "create", "--project", "alpha")
    assert set(made) == {"node_id", "private_key", "workloads"}
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(made["private_key"]))
    told = cli.admin("node", "show", made["node_id"])
    assert (told["public_key"], told["name"]) == (private.public_key().public_bytes_raw().hex(), "node")
    assert made["private_key"] not in str(cli.audited("node.register"))


def test_a_node_is_renamed_moved_rekeyed_revoked_and_retired(cli, node):
    node_id = node["node_id"]
    assert cli.admin("node", "rename", node_id, "osaka 1")["name"] == "osaka 1"
    assert cli.admin("node", "change", node_id, "--region", "ap")["region"] == "ap"
    assert cli.audited("node.change")["detail"] == {"region": "ap"}
    rekeyed = cli.admin("node", "rekey", node_id)
    assert cli.admin("node", "show", node_id)["public_key"] == rekeyed["public_key"]
    assert cli.audited("node.rekey")["subject"] == node_id
    assert cli.admin("node", "revoke", node_id) == {"node_id": node_id, "revoked": True}
    assert cli.audited("node.revoke")["subject"] == node_id
    assert "revoked for good" in cli.refused("node", "rekey", node_id)
    assert cli.admin("node", "retire", node_id)["retired"] is True
    assert cli.audited("node.retire")["subject"] == node_id
    assert "this node is retired" in cli.refused("node", "rename", node_id, "x")
    assert f"there is no node {NOWHERE}; see: admin node list" in cli.refused("node", "revoke", NOWHERE)
    assert "is no id" in cli.misused("node", "revoke", "n")


def test_a_workload_is_added_changed_restarted_and_retired(cli, node):
    made = cli.admin("workload", "add", node["node_id"], "--name", "second", "--kind", "gateway")
    workload_id = made["workload_id"]
    assert (made["slot"], made["name"], made["kind"]) == (1, "second", "gateway")
    assert cli.audited("workload.add")["subject"] == workload_id
    assert cli.admin("workload", "change", workload_id, "--name", "third")["name"] == "third"
    assert cli.audited("workload.change")["detail"] == {"name": "third"}
    assert cli.admin("workload", "restart", workload_id)["restarts"] == 1
    assert cli.audited("workload.restart")["subject"] == workload_id
    assert workload_id in {
        one["workload_id"] for one in cli.admin("workload", "list", "--kind", "gateway")["workloads"]
    }
    assert cli.admin("workload", "retire", workload_id) == {"workload_id": workload_id, "retired": True}
    assert cli.audited("workload.retire")["subject"] == workload_id
    assert cli.admin("workload", "show", workload_id)["retired_at"] is not None
    assert "no living workload" in cli.refused("workload", "retire", workload_id)
    assert "retired" in cli.refused("workload", "restart", workload_id)
    assert "there is no node" in cli.refused("workload", "add", NOWHERE)


def test_a_check_is_made_and_its_url_speaks_for_it(cli, gateway):
    made = cli.admin("check", "create", "--project", "alpha", "--name", "backup")
    assert set(made) == {"node_id", "workload_id", "ping_url", "push_url"}
    assert cli.audited("node.capability")["subject"] == made["node_id"]
    token = made["ping_url"].rpartition("/")[2]
    row = cli.admin("node", "show", made["node_id"])["row"]
    assert load_secrets(cli.folder / "secrets.json").read_capability(token).row == row
    [listed] = cli.admin("node", "list", "--kind", "check")["nodes"]
    assert listed["node_id"] == made["node_id"]


def test_windows_are_opened_within_their_bounds_and_listed(cli, node):
    node_id, workload_id = node["node_id"], node["workloads"][0]
    day = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    soon = ("--from", f"{day}T00:00:00Z")
    made = cli.admin("window", "open", node_id, *soon, "--minutes", 30, "--workload", workload_id)
    assert made["to_ms"] - made["from_ms"] == 30 * 60_000
    assert cli.audited("window.open")["subject"] == made["window_id"]
    [listed] = cli.admin("window", "list", node_id, "--to", f"{day}T12:00:00Z")["windows"]
    assert (listed["window_id"], listed["from"]) == (made["window_id"], f"{day}T00:00:00.000Z")
    assert "60 at most per workload and day" in cli.refused(
        "window", "open", node_id, "--from", f"{day}T01:00:00Z", "--minutes", 60, "--own"
    )
    assert "choose a later beginning" in cli.refused(
        "window", "open", node_id, "--from", "2020-01-01T00:00:00Z", "--minutes", 1
    )


def test_a_whole_network_is_provisioned_and_audited_once(cli):
    before = cli.admin("audit", "list", "--limit", 1)["entries"]
    made = cli.admin("provision", "--project", "wide", "--nodes", 5, "--workloads", 2)
    assert set(made) == {"project", "api_key", "nodes"}
    assert [set(one) for one in made["nodes"]] == [{"node_id", "private_key", "workloads"}] * 5
    entry = cli.audited("node.create")
    assert (entry["detail"]["nodes"], entry["detail"]["workloads"]) == (5, 10)
    since = entry["seq"] - (before[0]["seq"] if before else 0)
    assert since == 3, "the project, its key, its nodes"
    ids = cli.type("admin", "provision", "--project", "wide", "--nodes", 2, "--workloads", 0, "--ids").out
    assert all(cli.admin("node", "show", one)["workloads"] == [] for one in ids.split())
