"""Canaries: beats that the installation sends itself from outside, through the same door as everybody.

When many nodes fall silent at once, the canaries tell whose fault it is (LIVENESS.md 3). They are rows of
their own kind in a project of their own; their keys lie in `canary.json`, so that they can be carried to the
machine that is to look from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio

from engine.core.ports import Directory, NewNode
from node.client import NodeClient, NodeEvent, SessionOpened, SessionRefused
from nodepulse.process import write_private
from nodepulse.provision import new_node_key

log = structlog.get_logger()
PROJECT = "nodepulse-canaries"
STOP_S = 2.0  # for the last beat of each, which says that it stops


class CanaryKey(msgspec.Struct, frozen=True):
    """One canary as `canary.json` has it."""

    node_id: str
    private_key: str
    workload_id: str
    interval_ms: int


def read_keys(file: Path) -> list[CanaryKey]:
    """The canaries of a file; none when it is not there. ValueError when it is something else."""
    if not file.exists():
        return []
    return msgspec.json.decode(file.read_bytes(), type=list[CanaryKey])


async def ensure_canaries(
    directory: Directory, file: Path, *, count: int, interval_ms: int, now_ms: int
) -> list[CanaryKey]:
    """`count` canaries with this interval: those of the file, and new ones for what is missing."""
    known = read_keys(file)
    usable = [key for key in known if key.interval_ms == interval_ms][:count]
    missing = count - len(usable)
    if missing == 0:
        return usable
    project = await directory.create_project(PROJECT, now_ms=now_ms)
    pairs = [new_node_key() for _ in range(missing)]
    made = await directory.create_nodes(
        [
            NewNode(project.project_id, f"canary-{i}", "canary", public, interval_ms, ("door",))
            for i, (_, public) in enumerate(pairs, len(known))
        ],
        now_ms=now_ms,
    )
    new = [
        CanaryKey(record.node_id, private, record.workload_ids[0], interval_ms)
        for record, (private, _) in zip(made, pairs, strict=True)
    ]
    write_private(file, msgspec.json.encode([*known, *new]))
    return [*usable, *new]


async def run_canaries(
    url: str, keys: list[CanaryKey], *, listening: Callable[[str], None], stop: trio.Event
) -> None:
    """Beat as all of them until `stop`, then say that it is a planned stop."""
    clients = []
    async with trio.open_nursery() as nursery:
        for key in keys:
            client = NodeClient(
                url,
                node_id=key.node_id,
                private_key=key.private_key,
                manager_version="nodepulse-canary/1",
                first_within_ms=min(1_000, key.interval_ms),
                on_event=_Watch(key.node_id).tell,
            )
            client.set_states({key.workload_id: "healthy"})
            clients.append(client)
            nursery.start_soon(client.run)
        listening(f"{len(keys)} canaries to {url}")
        await stop.wait()
        async with trio.open_nursery() as stopping:
            for client in clients:
                stopping.start_soon(_stop, client)
        nursery.cancel_scope.cancel()


class _Watch:
    """Says once when a canary's session is refused, and once when that is over."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._refused = ""

    def tell(self, event: NodeEvent) -> None:
        if isinstance(event, SessionRefused) and event.detail != self._refused:
            self._refused = event.detail
            log.warning("canary.refused", canary=self._node_id, why=event.detail)
        elif isinstance(event, SessionOpened) and self._refused:
            self._refused = ""
            log.info("canary.back", canary=self._node_id)


async def _stop(client: NodeClient) -> None:
    await client.stop(timeout_s=STOP_S)
