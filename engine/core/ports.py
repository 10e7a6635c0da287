"""What the product asks of its stores. Adapters and a memory twin of each stand side by side in `storage/`;
one contract suite (`tests/contract/`) runs on both.

All calls are trio-async and safe to cancel. `StoreUnavailableError` is the one operating error they raise
besides those named; whatever else escapes is a bug.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from engine.core.liveview import LivePage
from engine.core.people import Act, Principal, Scope
from engine.core.records import (
    BaseInterval,
    Claim,
    Event,
    FlushBatch,
    Gap,
    Lease,
    LiveNode,
    Recorded,
    RowSpec,
    SessionSpec,
    ShardHead,
    Window,
)


class StoreUnavailableError(Exception):
    """The store could not be reached or did not answer in time. Nothing is known to have happened."""


class HistoryWentBackError(Exception):
    """History no longer holds what it held: it was restored to an earlier time. Nothing was written."""


class RegistryFeed(Protocol):
    """The registry as an engine shard follows it."""

    async def position(self) -> int:
        """The sequence number of the newest committed registry change."""
        ...

    def load(self, *, shard: int, shards: int) -> AsyncIterator[list[RowSpec]]:
        """All rows of one shard (row mod shards == shard) that ever had a session or capability, in pages."""
        ...

    async def changes(
        self, after: int, *, shard: int, shards: int, limit: int = 1000
    ) -> tuple[int, list[RowSpec]]:
        """The present specs of this shard's rows changed after a position, and the position this brings to.

        At most `limit` changes are looked at; call again until the position no longer moves. One below
        `after`: the registry was restored to an earlier time.
        """
        ...

    async def wait_hint(self, timeout_s: float) -> None:
        """Return when a change was announced, or after the timeout: only a hint, polling is the rule."""
        ...


class History(Protocol):
    """Intervals, gaps and events: what the engine writes by batches and web reads."""

    async def flushed_position(self, shard: int) -> int:
        """The journal position of the last batch of this shard; 0 when there is none."""
        ...

    async def flush(self, batch: FlushBatch) -> None:
        """Write a batch in one transaction, with its position and watermark. Idempotent.

        HistoryWentBackError when its position lies before the batch's `after`.
        """
        ...

    async def intervals(self, workload_id: str, from_ms: int, to_ms: int) -> list[BaseInterval]:
        """Base rows that touch [from_ms, to_ms), the last one before and the first one after, by start."""
        ...

    async def gaps(self, row: int, from_ms: int, to_ms: int) -> list[Gap]:
        """Gaps of the shard that had the row at the time, that touch [from_ms, to_ms), by start."""
        ...

    async def leases(self, workload_id: str, from_ms: int, to_ms: int) -> list[Lease]: ...

    async def windows(self, workload_id: str, from_ms: int, to_ms: int) -> list[Window]:
        """Maintenance windows of the workload and of its node that touch the range."""
        ...

    async def claims(self, workload_id: str, from_ms: int, to_ms: int) -> list[Claim]: ...

    async def recorded(
        self, workload_id: str, row: int, *, shard: int, window: tuple[int, int], around: tuple[int, int]
    ) -> Recorded:
        """All of the above at once, as of one moment: gaps, intervals and claims of the range `around`,
        leases and windows of `window`, and the watermark of the shard."""
        ...

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        """Refused beats of that UTC day (YYYY-MM-DD) by node and reason; nodes without any are left out.

        Whole a minute after the shard's watermark in history has passed the day's end. What a crash took
        from the last second is not in it (of evidence.UNTRUSTED reasons: from the last minute).
        """
        ...

    async def watermark(self, shard: int) -> int:
        """Everything of this shard up to this unix millisecond is in history; 0 when nothing is."""
        ...

    async def events(self, *, project_id: str | None, after: int, limit: int) -> list[tuple[int, Event]]:
        """(cursor, event) with cursor > after, in cursor order; no late commit is skipped."""
        ...


Page = tuple[int, bytes | memoryview]  # byte offset in an array of the live view, whole records
LiveRow = tuple[ShardHead, LiveNode | None]  # None: never heard of


class LiveView(Protocol):
    """The packed live view (engine/core/liveview.py) and the hint that new events are there."""

    async def write(
        self,
        head: ShardHead,
        *,
        rows: Sequence[Page],
        slots: Sequence[Page],
    ) -> bool:
        """Write pages (byte offset, bytes) and the header at once, atomically.

        False, with nothing written, when what is stored is of another epoch and this is not a first write
        of this epoch: the caller then calls `reset` and writes everything again.
        """
        ...

    async def reset(self, head: ShardHead) -> None:
        """Empty the shard's view and start the epoch of `head` (whose watermark is not yet told)."""
        ...

    async def heads(self) -> dict[int, ShardHead]:
        """The headers of all shards."""
        ...

    async def read(self, row: int, *, shards: int) -> LiveRow | None:
        """One row together with the header it was written under, atomically. None: no header."""
        ...

    async def read_rows(self, rows: Sequence[int], *, shards: int) -> dict[int, LiveRow]:
        """Many rows in one read, atomic per shard, without slots; those without a header are left out."""
        ...

    async def read_page(self, shard: int, indices: Sequence[int], *, shards: int) -> LivePage | None:
        """Many rows of one shard with their slots, as arrays, in one atomic read. None: no header.

        `indices`: places in the shard (row // shards), rising, each once.
        """
        ...

    async def announce_events(self, events: Iterable[Event]) -> None:
        """Append to the bounded event stream (fan-out only; history is the record)."""
        ...

    async def wait_events(self, timeout_s: float) -> None:
        """Return when something was announced, or after the timeout."""
        ...


class Project(msgspec.Struct, frozen=True):
    project_id: str
    slug: str


class NodeRecord(msgspec.Struct, frozen=True):
    node_id: str
    row: int
    project_id: str
    kind: str
    name: str
    public_key: bytes | None
    interval_ms: int
    revoked: bool
    created_ms: int
    workload_ids: tuple[str, ...]
    owner_id: str | None = None  # the user whose machine it is
    region: str = ""
    retired_ms: int | None = None
    manager_version: str = ""  # of the newest session
    partner_node_id: str | None = None  # how another source of uptime calls it (uptime_source.py)


class WorkloadRecord(msgspec.Struct, frozen=True):
    workload_id: str
    node_id: str
    project_id: str
    row: int
    slot: int
    name: str
    created_ms: int
    retired_ms: int | None
    first_report_ms: int | None
    owner_id: str | None = None  # of its node
    kind_id: str | None = None
    licence_id: str | None = None
    running_version: str | None = None  # as its manager reported it
    kind: str | None = None  # the slug of kind_id
    leased: bool = False  # there are lease records of it


class NonceSeenError(Exception):
    """This nonce was used before."""


class RateLimitedError(Exception):
    """More signed requests of this node in the last minute than allowed."""


class NodeRefusedError(Exception):
    """The node is unknown, revoked or retired."""


class Directory(Protocol):
    """Projects, keys, nodes, workloads and sessions, as web and the command line use them."""

    async def principal(self, key_sha256: bytes, *, now_ms: int) -> Principal | None:
        """Whom an API key or a login speaks for now: not revoked, not expired, of a living account."""
        ...

    async def manager(self, row: int, generation: int, *, now_ms: int) -> Principal | None:
        """The node of a session that is honoured now (the newest, or the one before it for 60 s more)."""
        ...

    async def project(self, slug: str) -> Project | None: ...
    async def node(self, node_id: str) -> NodeRecord | None: ...
    async def workload(self, workload_id: str) -> WorkloadRecord | None: ...
    async def workloads_of_project(self, project_id: str, ids: Sequence[str]) -> dict[str, WorkloadRecord]:
        """Those of `ids` that belong to the project."""
        ...

    async def open_session(
        self,
        node_id: str,
        *,
        nonce: str,
        nonce_expires_ms: int,
        rate_per_min: int,
        now_ms: int,
        life_ms: int,
        secret_id: int,
        manager_version: str = "",
        client_address: str = "",
    ) -> tuple[RowSpec, SessionSpec, int]:
        """Raise the node's generation in one transaction: (row spec, the new session, registry position).

        Two managers that take turns at it raise the event node.clone (engine/core/clones.py).

        RateLimitedError before NonceSeenError before nothing; NodeRefusedError for a node that is gone.
        Refusals count against the rate.
        """
        ...

    async def create_project(self, slug: str, *, now_ms: int) -> Project:
        """The project of this slug, made when absent."""
        ...

    async def create_key(
        self, *, scope: Scope, project_id: str | None, key_sha256: bytes, name: str, now_ms: int
    ) -> str: ...
    async def revoke_key(self, key_id: str, *, now_ms: int) -> bool: ...
    async def create_nodes(
        self, nodes: Sequence[NewNode], *, now_ms: int, act: Act | None = None
    ) -> list[NodeRecord]:
        """Many at once, in one transaction; rows are given out densely.

        `act`: of the person who makes them, for one entry of the audit log; here and in what follows None is
        for what the system does by itself.
        """
        ...

    async def add_workload(self, node_id: str, *, name: str, now_ms: int) -> WorkloadRecord:
        """NodeRefusedError; RowFullError for the 65th slot."""
        ...

    async def retire_workload(self, workload_id: str, *, now_ms: int) -> bool: ...
    async def revoke_node(self, node_id: str, *, now_ms: int) -> int | None:
        """Kill its sessions (new salt); the registry position, or None when there is no such node."""
        ...

    async def rotate_capability(
        self, node_id: str, *, now_ms: int, act: Act | None = None
    ) -> tuple[NodeRecord, int]:
        """Raise the row's capability generation (from 0 for the first): (node, generation)."""
        ...

    async def open_window(
        self,
        node_id: str,
        workload_id: str | None,
        *,
        from_ms: int,
        to_ms: int,
        own: bool,
        now_ms: int,
        update: bool = False,
        act: Act | None = None,
    ) -> Window:
        """Open maintenance of a whole node or of one workload on it; `update`: for an ordered update.

        With an act its id is `act.made_id`; if that is there already it is returned as it is.

        WindowRefusedError as engine.core.maintenance says, of which two at once cannot both pass;
        NodeRefusedError for a node that is gone or a workload that is not on it.
        """
        ...

    async def list_nodes(
        self, project_id: str | None, *, after: str | None, limit: int
    ) -> list[NodeRecord]: ...

    async def prune(self, *, now_ms: int, limit: int) -> int:
        """Delete expired nonces, and signed requests that no longer count for the rate; how many went.

        At most `limit` rows of each: call again until it returns 0.
        """
        ...


class WindowRefusedError(Exception):
    """The maintenance window may not be opened; the text says why and what may."""


class RowFullError(Exception):
    """All 64 slots of the row were given out: a further node key is needed."""


class NewNode(msgspec.Struct, frozen=True):
    project_id: str
    name: str
    kind: str
    public_key: bytes | None
    interval_ms: int
    workloads: tuple[str, ...]  # names, one slot each in this order
    kind_ids: tuple[str | None, ...] = ()  # of the workloads; empty: of none a kind is known
    owner_id: str | None = None
    region: str = ""
    licence_ids: tuple[str | None, ...] = ()  # of the workloads; empty: of none
    node_id: str = ""  # empty: a new one
