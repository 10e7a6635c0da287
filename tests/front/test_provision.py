"""What the commands make, on the memory twin of the directory."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from engine.core.keys import load_secrets
from node.identity import NodeIdentity
from nodepulse import provision as provisioning
from nodepulse.canary import PROJECT, ensure_canaries, read_keys
from nodepulse.provision import provision
from nodepulse.stores import ensure_secrets
from storage.tokens import new_api_key

NOW_MS = 1_800_000_000_000


async def test_a_key_is_stored_as_its_sha256_and_speaks_for_its_project_only(memory_stores):
    directory = memory_stores.directory
    made = await provision(directory, project="p", nodes=1, workloads=1, interval_ms=1_000, now_ms=NOW_MS)
    principal = await directory.principal(hashlib.sha256(made["api_key"].encode()).digest(), now_ms=1)
    project = await directory.project("p")
    assert (principal.scope, principal.project_id) == ("project", project.project_id)


async def test_more_nodes_than_one_transaction_takes_are_made_in_order(memory_stores, monkeypatch):
    monkeypatch.setattr(provisioning, "NODES_PER_TRANSACTION_MAX", 3)
    made = await provision(
        memory_stores.directory, project="p", nodes=8, workloads=2, interval_ms=1_000, now_ms=NOW_MS
    )
    rows = [(await memory_stores.directory.node(node["node_id"])).row for node in made["nodes"]]
    assert rows == list(range(8))


async def test_a_private_key_belongs_to_the_public_key_that_is_stored(memory_stores):
    made = await provision(
        memory_stores.directory, project="p", nodes=1, workloads=0, interval_ms=1_000, now_ms=NOW_MS
    )
    node = made["nodes"][0]
    stored = (await memory_stores.directory.node(node["node_id"])).public_key
    identity = NodeIdentity(node["node_id"], node["private_key"])
    assert identity._key.public_key().public_bytes_raw() == stored


def test_two_keys_are_never_alike():
    one, other = new_api_key()[0], new_api_key()[0]
    assert one != other
    assert len(one) == len("np_") + 43  # 256 bits in base64


def test_secrets_are_made_once_and_read_by_the_engine(tmp_path):
    file = tmp_path / "secrets.json"
    assert ensure_secrets(file)
    first = load_secrets(file)
    assert not ensure_secrets(file)
    assert load_secrets(file) == first
    assert file.stat().st_mode & 0o777 == 0o600


async def test_canaries_are_made_once_and_only_what_is_missing_is_added(memory_stores, tmp_path):
    file = tmp_path / "canary.json"

    async def ensure(count: int, interval_ms: int = 10_000):
        return await ensure_canaries(
            memory_stores.directory, file, count=count, interval_ms=interval_ms, now_ms=NOW_MS
        )

    two = await ensure(2)
    assert await ensure(2) == two
    three = await ensure(3)
    assert three[:2] == two
    assert await ensure(1) == two[:1]
    slower = await ensure(1, interval_ms=20_000)
    assert slower[0] not in three
    assert len(read_keys(file)) == 4
    assert file.stat().st_mode & 0o777 == 0o600
    project = await memory_stores.directory.project(PROJECT)
    nodes = await memory_stores.directory.list_nodes(project.project_id, after=None, limit=10)
    assert {node.kind for node in nodes} == {"canary"}


def test_a_file_of_canaries_that_is_something_else_is_refused(tmp_path):
    file = tmp_path / "canary.json"
    file.write_text('{"a": 1}')
    with pytest.raises(msgspec.ValidationError):
        read_keys(file)
