"""A small believable network, the same at each call but for its ids and keys."""

from __future__ import annotations

from typing import Any

from engine.core.ports import Directory, NewNode
from nodepulse.checks import create_check
from nodepulse.config import Config
from nodepulse.provision import new_node_key
from storage.tokens import new_api_key

PLACES = ("Lisbon", "Toronto", "Nairobi", "Osaka", "Quito")
NODES_PER_PLACE = 4
WORKLOADS = ("gateway", "inference", "storage", "relay", "indexer")
CHECKS = (("nightly-backup", 86_400_000), ("certificate-renewal", 3_600_000), ("landing-page", 60_000))
INTERVAL_MS = 60_000
HOUR_MS = 3_600_000


async def seed(directory: Directory, config: Config, *, project: str, now_ms: int) -> dict[str, Any]:
    """Twenty nodes in five places with one to five workloads, three checks, one maintenance window."""
    owner = await directory.create_project(project, now_ms=now_ms)
    key, key_sha256 = new_api_key()
    await directory.create_key(
        scope="project", project_id=owner.project_id, key_sha256=key_sha256, name="seed", now_ms=now_ms
    )
    seeds: list[str] = []
    new: list[NewNode] = []
    for place in PLACES:
        for number in range(NODES_PER_PLACE):
            private, public = new_node_key()
            seeds.append(private)
            name = f"{place.lower()}-{number + 1}"
            count = 1 + (len(new) * 3) % len(WORKLOADS)
            new.append(NewNode(owner.project_id, name, "node", public, INTERVAL_MS, WORKLOADS[:count]))
    made = await directory.create_nodes(new, now_ms=now_ms)
    checks = [
        await create_check(
            directory, config, project_id=owner.project_id, name=name, interval_ms=interval_ms, now_ms=now_ms
        )
        for name, interval_ms in CHECKS
    ]
    begins_ms = (now_ms // HOUR_MS + 2) * HOUR_MS
    await directory.open_window(
        made[0].node_id, None, from_ms=begins_ms, to_ms=begins_ms + HOUR_MS // 2, own=False, now_ms=now_ms
    )
    nodes = [
        {
            "node_id": one.node_id,
            "name": one.name,
            "private_key": private,
            "workloads": list(one.workload_ids),
        }
        for one, private in zip(made, seeds, strict=True)
    ]
    return {"project": owner.slug, "api_key": key, "nodes": nodes, "checks": checks}
