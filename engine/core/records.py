"""The records that cross a port: what the engine, the stores, web and worker say to each other.

All are frozen. Times are integer unix milliseconds (`*_ms`), ids are UUIDs in their canonical text form.
What lives only inside the engine (table columns, journal blocks) is not here.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
import numpy as np

NodeState = Literal["new", "up", "suspect", "down", "lost", "stopped", "maintenance"]
NODE_STATES: tuple[NodeState, ...] = ("new", "up", "suspect", "down", "lost", "stopped", "maintenance")

# What an instant counts as, in the order in which the first that applies wins (LIVENESS.md 2).
KINDS: tuple[str, ...] = (
    "standby",
    "up",
    "claimed_up",
    "maintenance",
    "updating",
    "claimed_updating",
    "claimed_unhealthy",
    "unhealthy",
    "stopped",
    "unobserved",
    "maintenance_own",
    "silent",
)
PAID_KINDS: frozenset[str] = frozenset({"up", "maintenance", "claimed_up"})

# Codes of a base interval's kind, in the table, the journal, the live view and Postgres.
BASE_NONE, BASE_UP, BASE_UNHEALTHY, BASE_UPDATING, BASE_STOPPED = range(5)
BASE_KINDS: tuple[str, ...] = ("silent", "up", "unhealthy", "updating", "stopped")

# Base interval rows as the engine writes them: (workload, kind, started_at, ended_at, ttl_ms); the
# workload's UUID as two big-endian halves.
INTERVAL_DTYPE = np.dtype(
    [
        ("hi", ">u8"),
        ("lo", ">u8"),
        ("kind", "u1"),
        ("started_ms", "<i8"),
        ("ended_ms", "<i8"),
        ("ttl_ms", "<u4"),
    ]
)


class BaseInterval(msgspec.Struct, frozen=True):
    """One base row of one workload; half-open ``[started_ms, ended_ms)``. `kind` is a BASE_* code."""

    kind: int
    started_ms: int
    ended_ms: int
    ttl_ms: int


class Gap(msgspec.Struct, frozen=True):
    """A time in which a shard did not listen: our fault (LIVENESS.md 3). Half-open.

    `shards` is the shard count of that time: the gap is of the rows with row mod shards == shard.
    """

    shard: int
    from_ms: int
    to_ms: int
    cause: str  # crash | restart | stall | disk_full | lost_shard | drops | degraded
    shards: int = 1


class Window(msgspec.Struct, frozen=True):
    """A maintenance window of a node (`workload_id` None) or of one workload."""

    window_id: str
    workload_id: str | None
    from_ms: int
    to_ms: int
    own: bool  # the operator's own: `maintenance_own`, unpaid


class Lease(msgspec.Struct, frozen=True):
    """Another run held the workload's licence in [from_ms, to_ms); to_ms None = still does."""

    from_ms: int
    to_ms: int | None


class Claim(msgspec.Struct, frozen=True):
    """A backfilled beat's say on one workload: `kind` a BASE_* code, valid for ttl_ms from at_ms."""

    at_ms: int
    kind: int
    ttl_ms: int


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What history has of one workload in a range (`History.recorded`)."""

    watermark_ms: int
    gaps: list[Gap]
    intervals: list[BaseInterval]
    leases: list[Lease]
    windows: list[Window]
    claims: list[Claim]


class FirstReport(msgspec.Struct, frozen=True):
    """When a workload was first reported in a non-absent state."""

    workload_id: str
    at_ms: int


class Event(msgspec.Struct, frozen=True):
    """Something people may want to hear of. `event_id` makes a repetition recognisable."""

    event_id: str
    kind: str  # node.down | node.up | node.stopped | workload.down | workload.up | clock.stepped | ...
    shard: int
    project_id: str | None
    node_id: str | None
    workload_id: str | None
    since_ms: int
    at_ms: int
    workloads: tuple[str, ...] = ()
    detail: str = ""


def event_id(kind: str, subject: str, since_ms: int) -> str:
    """BLAKE2b-128 over ``kind NUL subject NUL since_ms``, hex (LIVENESS.md 4)."""
    return hashlib.blake2b(f"{kind}\0{subject}\0{since_ms}".encode(), digest_size=16).hexdigest()


# What shards say of licensed workloads: it beat and reported a state, or it no longer runs.
SHARD_SAYS: tuple[str, ...] = ("claim", "stopped", "lost", "absent")
SAY_CLAIM, SAY_STOPPED, SAY_LOST, SAY_ABSENT = range(4)


class Say(msgspec.Struct, frozen=True):
    """One say on a workload's licence, to be settled in order of time (engine/core/settle.py)."""

    workload_id: str
    at_ms: int
    what: str  # SHARD_SAYS


class Refused(msgspec.Struct, frozen=True):
    """Beats of one node refused on one day for one reason, so far, in one run of its shard.

    Of one run the highest count holds, and the runs add up: so written twice, or late, it changes nothing.
    """

    node_id: str
    day: str  # YYYY-MM-DD, UTC, of the receive time
    reason: str
    run_ms: int  # when that run of the shard began
    count: int


class SlotSpec(msgspec.Struct, frozen=True):
    """One workload's place in its node's row. A slot number is never used again in that row.

    `licensed`: it runs under a licence. `held_from_ms`: since when it holds the licence's lease; 0: it does
    not. `standby`: another run does.
    """

    slot: int
    workload_id: str
    created_ms: int
    retired_ms: int | None
    licensed: bool = False
    held_from_ms: int = 0
    standby: bool = False


class SessionSpec(msgspec.Struct, frozen=True):
    """One generation of a row: everything that its key, its token and its slot map come from."""

    generation: int
    secret_id: int
    salt: bytes  # 8 bytes
    opened_ms: int
    expires_ms: int
    interval_ms: int
    ttl_ms: int
    slots: int  # u64 mask of the slots in this generation's frozen map


class RowSpec(msgspec.Struct, frozen=True):
    """A row as the registry has it now. Applying the newest spec of a row is all a registry change is."""

    row: int
    node_id: str
    project_id: str
    kind: Literal["node", "check", "canary"]
    interval_ms: int
    revoked: bool
    retired: bool
    capability_generation: int  # of ping and push capabilities; 0 = none given out
    slots: tuple[SlotSpec, ...]  # all slots ever, retired ones too
    current: SessionSpec | None
    previous: SessionSpec | None
    windows: tuple[Window, ...] = ()
    resync: bool = False  # its manager shall fetch the desired state: told by code RESYNC


class FlushBatch(msgspec.Struct, frozen=True):
    """What a shard brings to Postgres in one transaction. Writing it twice changes nothing."""

    shard: int
    position: int  # journal position up to which everything is contained
    watermark_ms: int  # everything received up to here is contained
    intervals: np.ndarray  # shape (n,), INTERVAL_DTYPE
    events: tuple[Event, ...] = ()
    gaps: tuple[Gap, ...] = ()
    first_reports: tuple[FirstReport, ...] = ()
    says: tuple[Say, ...] = ()
    refused: tuple[Refused, ...] = ()
    leases_ms: int = 0  # everything said of licences up to here is contained; 0: nothing new is known
    after: int = 0  # the position that history has told before; it must not have gone back behind it


class ShardHead(msgspec.Struct, frozen=True):
    """A shard's header in the live view, written every 100 ms."""

    shard: int
    shards: int
    epoch: str  # changes with each start of the shard; a live view of another epoch is rebuilt
    watermark_ms: int  # everything received up to here can be read
    registry_position: int  # registry changes applied
    rows: int
    degraded: bool
    provisional_from_ms: int | None = None  # an undecided gap of this shard began here
    wall_ms: int = 0


class LiveSlot(msgspec.Struct, frozen=True):
    """One workload's open base interval as the live view has it."""

    kind: int  # BASE_*
    ttl_ms: int
    started_ms: int
    last_t_ms: int  # of the last beat that spoke of it; 0 = none
    first_report_ms: int  # 0 = none


class LiveNode(msgspec.Struct, frozen=True):
    """One row as the live view has it."""

    state: NodeState
    generation: int
    ttl_ms: int
    last_t_ms: int
    since_ms: int
    slots: dict[int, LiveSlot]
