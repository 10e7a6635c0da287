"""What the memory twins share: the tables, and the functions that several ports need.

A `MemoryWorld` is one installation. Setting `postgres_away` or `redis_away` makes every call of the ports
concerned raise StoreUnavailableError, as the real ones do. Nothing here lasts longer than the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import trio

from engine.core.clones import Manager
from engine.core.news import Notice
from engine.core.newsroom import State
from engine.core.outbox import Channel
from engine.core.people import Principal
from engine.core.ports import (
    NodeRecord,
    NodeRefusedError,
    Project,
    StoreUnavailableError,
    WorkloadRecord,
)
from engine.core.records import (
    BaseInterval,
    Claim,
    Event,
    Gap,
    Lease,
    RowSpec,
    Say,
    SessionSpec,
    SlotSpec,
    Window,
)
from storage.hint import Hint

WINDOW_KEPT_MS = 3_600_000


@dataclass(slots=True)
class MemoryNode:
    """A node with all that hangs on it."""

    node_id: str
    row: int
    project_id: str
    kind: str
    name: str
    public_key: bytes | None
    interval_ms: int
    created_ms: int
    salt: bytes
    workload_ids: list[str] = field(default_factory=list)  # index = slot; retired ones too
    generation: int = 0
    capability_generation: int = 0
    revoked_ms: int | None = None
    retired_ms: int | None = None
    sessions: list[SessionSpec] = field(default_factory=list)  # living ones, oldest first
    windows: list[Window] = field(default_factory=list)
    opened: list[tuple[int, Manager]] = field(default_factory=list)  # every session, by whom
    clone_told_until_ms: int = 0


@dataclass(slots=True)
class MemoryDelivery:
    """A delivery as the outbox keeps it. `state` is due, sent or dead."""

    delivery_id: str
    channel_id: str
    notice: Notice
    due_ms: int
    state: str = "due"
    attempts: int = 0
    note: str = ""


@dataclass(slots=True)
class MemoryWorld:
    """One installation in memory."""

    now_ms: Callable[[], int] = lambda: 0  # the database's own clock; it forgets windows long over
    postgres_away: bool = False
    redis_away: bool = False
    projects: dict[str, Project] = field(default_factory=dict)  # by slug
    keys: dict[bytes, Principal] = field(default_factory=dict)  # by SHA-256; revoked ones are gone
    nodes: dict[str, MemoryNode] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)  # node id by row
    workloads: dict[str, WorkloadRecord] = field(default_factory=dict)
    changed_rows: list[int] = field(default_factory=list)  # registry change n + 1 is of row changed_rows[n]
    nonces: dict[tuple[str, str], int] = field(default_factory=dict)  # (node id, nonce) -> expires_ms
    signed_requests: list[tuple[str, int]] = field(default_factory=list)  # (node id, at_ms)
    intervals: dict[str, dict[int, BaseInterval]] = field(default_factory=dict)  # by workload, by start
    gaps: dict[tuple[int, int, str, int], Gap] = field(default_factory=dict)  # by shards, shard, cause, start
    leases: dict[str, list[Lease]] = field(default_factory=dict)
    says: dict[Say, None] = field(default_factory=dict)  # in the order in which they came
    leases_ms: dict[int, int] = field(default_factory=dict)  # by shard
    refused: dict[tuple[str, str, str, int], int] = field(default_factory=dict)  # node, day, reason, run
    claims: dict[str, list[Claim]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)  # the cursor is the index + 1
    event_ids: set[str] = field(default_factory=set)
    positions: dict[int, int] = field(default_factory=dict)  # by shard
    watermarks: dict[int, int] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    disabled_channels: set[str] = field(default_factory=set)
    deliveries: dict[str, MemoryDelivery] = field(default_factory=dict)
    # By address and owner: when mails were sent.
    mail_budget: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    newsroom: State = field(default_factory=State)
    notifier_cursor: int = 0
    notifier: object = None  # the outbox that holds the lock
    registry_hint: Hint = field(default_factory=Hint)

    async def enter(self) -> None:
        """What every call on the twins of PostgreSQL begins with."""
        await trio.lowlevel.checkpoint()
        if self.postgres_away:
            raise StoreUnavailableError("PostgreSQL is away (in memory)")

    def announce(self, node: MemoryNode) -> int:
        """A registry change of this node's row; its sequence number."""
        self.changed_rows.append(node.row)
        self.registry_hint.tell()
        return len(self.changed_rows)

    def tell_engines(self, node: MemoryNode) -> None:
        """A change that an engine need not hear of while it does not know the row."""
        if node.generation or node.capability_generation:
            self.announce(node)

    def living_node(self, node_id: str) -> MemoryNode:
        """NodeRefusedError for one that is unknown, revoked or retired."""
        node = self.nodes.get(node_id)
        if node is None or node.revoked_ms is not None or node.retired_ms is not None:
            raise NodeRefusedError(f"node {node_id} is unknown, revoked or retired")
        return node

    def update_workload(self, workload_id: str, **changes: int) -> None:
        self.workloads[workload_id] = msgspec.structs.replace(self.workloads[workload_id], **changes)

    def node_record(self, node: MemoryNode) -> NodeRecord:
        living = [item for item in node.workload_ids if self.workloads[item].retired_ms is None]
        return NodeRecord(
            node_id=node.node_id,
            row=node.row,
            project_id=node.project_id,
            kind=node.kind,
            name=node.name,
            public_key=node.public_key,
            interval_ms=node.interval_ms,
            revoked=node.revoked_ms is not None,
            created_ms=node.created_ms,
            workload_ids=tuple(living),
        )

    def spec(self, row: int) -> RowSpec:
        """The present RowSpec of a row."""
        node = self.nodes[self.rows[row]]
        workloads = [self.workloads[workload_id] for workload_id in node.workload_ids]
        windows = [window for window in node.windows if window.to_ms > self.now_ms() - WINDOW_KEPT_MS]
        return RowSpec(
            row=row,
            node_id=node.node_id,
            project_id=node.project_id,
            kind=node.kind,  # type: ignore[arg-type] # checked when the node was made
            interval_ms=node.interval_ms,
            revoked=node.revoked_ms is not None,
            retired=node.retired_ms is not None,
            capability_generation=node.capability_generation,
            slots=tuple(
                SlotSpec(item.slot, item.workload_id, item.created_ms, item.retired_ms) for item in workloads
            ),
            current=node.sessions[-1] if node.sessions else None,
            previous=node.sessions[-2] if len(node.sessions) > 1 else None,
            windows=tuple(sorted(windows, key=lambda window: (window.from_ms, window.window_id))),
        )
