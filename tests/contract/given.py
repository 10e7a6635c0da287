"""What the contract tests start from."""

from __future__ import annotations

import itertools
import time

import numpy as np

from engine.core.ports import NewNode, NodeRecord
from engine.core.records import INTERVAL_DTYPE, Event, FlushBatch, event_id
from storage.ids import new_id
from storage.open import Stores

# Windows are told by the database's clock, so these tests live in the present; nothing waits for it.
NOW = time.time_ns() // 1_000_000

_numbers = itertools.count(1)


async def given_project(stores: Stores, slug: str = "alpha") -> str:
    return (await stores.directory.create_project(slug, now_ms=NOW)).project_id


async def given_node(
    stores: Stores, project_id: str | None = None, *, workloads: int = 1, kind: str = "node"
) -> NodeRecord:
    project_id = project_id or await given_project(stores)
    names = tuple(f"w{number}" for number in range(workloads))
    new = NewNode(project_id, f"node {next(_numbers)}", kind, b"k" * 32, 60_000, names)
    return (await stores.directory.create_nodes([new], now_ms=NOW))[0]


async def open_session(stores: Stores, node_id: str, **options):
    given = {
        "nonce": f"nonce-{next(_numbers)}",
        "nonce_expires_ms": NOW + 300_000,
        "rate_per_min": 10,
        "now_ms": NOW,
        "life_ms": 86_400_000,
        "secret_id": 1,
    }
    return await stores.directory.open_session(node_id, **{**given, **options})


def make_event(number: int = 0, *, kind: str = "node.down", project_id: str | None = None, **more) -> Event:
    since_ms = NOW + number
    return Event(
        event_id=event_id(kind, str(number), since_ms),
        kind=kind,
        shard=more.pop("shard", 0),
        project_id=project_id,
        node_id=more.pop("node_id", new_id()),
        workload_id=more.pop("workload_id", None),
        since_ms=since_ms,
        at_ms=since_ms + 90_000,
        **more,
    )


def intervals(*rows: tuple[str, int, int, int]) -> np.ndarray:
    """Rows of (workload id, kind, start, end), ttl 90 s."""
    array = np.zeros(len(rows), INTERVAL_DTYPE)
    for at, (workload_id, kind, started_ms, ended_ms) in enumerate(rows):
        number = int(workload_id.replace("-", ""), 16)
        array[at] = (number >> 64, number & 2**64 - 1, kind, started_ms, ended_ms, 90_000)
    return array


def batch(*rows: tuple[str, int, int, int], **more) -> FlushBatch:
    given = {"shard": 0, "position": 1, "watermark_ms": NOW, "intervals": intervals(*rows)}
    return FlushBatch(**{**given, **more})
