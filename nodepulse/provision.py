"""Making projects, keys, nodes and workloads: what the commands and the demo have in common.

Works on the `Directory` port, so a test runs it on the memory twin. What is printed and how stands in
commands/provisioning.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.core.people import Act
from engine.core.ports import Directory, NewNode, NodeRecord
from storage.tokens import new_api_key

NODES_PER_TRANSACTION_MAX = 1_000


def new_node_key() -> tuple[str, bytes]:
    """An Ed25519 key pair: the seed in hex, which is the node's, and the public key, which is stored."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw().hex(), key.public_key().public_bytes_raw()


async def provision(
    directory: Directory, *, project: str, nodes: int, workloads: int, interval_ms: int, now_ms: int
) -> dict[str, Any]:
    """A project (made when absent), a key for it, and nodes of so many workloads each, ready to beat.

    The object that `admin provision` prints: ``{"project", "api_key", "nodes": [{"node_id", "private_key",
    "workloads": [ids]}]}``. Private keys and the API key are in it and nowhere else.
    """
    made = await directory.create_project(project, now_ms=now_ms)
    key, key_sha256 = new_api_key()
    await directory.create_key(
        scope="project", project_id=made.project_id, key_sha256=key_sha256, name="provision", now_ms=now_ms
    )
    described = await provision_nodes(
        directory,
        project_id=made.project_id,
        nodes=nodes,
        workloads=workloads,
        interval_ms=interval_ms,
        now_ms=now_ms,
    )
    return {"project": made.slug, "api_key": key, "nodes": described}


async def provision_nodes(
    directory: Directory,
    *,
    project_id: str,
    nodes: int,
    workloads: int,
    interval_ms: int,
    now_ms: int,
    act: Act | None = None,
) -> list[dict[str, Any]]:
    """Nodes of a project with so many workloads each: ``{"node_id", "private_key", "workloads": [ids]}``.

    `act`: of the person who wants them, for the audit log; an entry for each NODES_PER_TRANSACTION_MAX.
    """
    described: list[dict[str, Any]] = []
    for first, count in _batches(nodes):
        seeds, records = await _create(
            directory,
            project_id,
            first=first,
            count=count,
            workloads=workloads,
            interval_ms=interval_ms,
            now_ms=now_ms,
            act=act,
        )
        described += [
            {"node_id": record.node_id, "private_key": seed, "workloads": list(record.workload_ids)}
            for seed, record in zip(seeds, records, strict=True)
        ]
    return described


async def _create(
    directory: Directory,
    project_id: str,
    *,
    first: int,
    count: int,
    workloads: int,
    interval_ms: int,
    now_ms: int,
    act: Act | None,
) -> tuple[list[str], list[NodeRecord]]:
    pairs = [new_node_key() for _ in range(count)]
    names = tuple(f"workload-{slot}" for slot in range(workloads))
    wanted = [
        NewNode(
            project_id=project_id,
            name=f"node-{first + i}",
            kind="node",
            public_key=public,
            interval_ms=interval_ms,
            workloads=names,
        )
        for i, (_, public) in enumerate(pairs)
    ]
    return [seed for seed, _ in pairs], await directory.create_nodes(wanted, now_ms=now_ms, act=act)


def _batches(total: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, NODES_PER_TRANSACTION_MAX):
        yield first, min(NODES_PER_TRANSACTION_MAX, total - first)
