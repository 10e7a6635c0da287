"""What reached one shard, in journal order: the only thing the oracle is given.

Plain frozen dataclasses, standard library only, nothing of the product. An adapter fills them from what a
run of the real engine was fed (see `script.py`) and from the few facts that the engine itself settles: the
receive time, the ttl that was journaled, what was durable, gaps, ticks, DEGRADED. What the engine *answered*
does not belong here; that is `observed.py`.

All times are integer milliseconds of the shard's recorded time (LIVENESS.md 1). Spans are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Via = Literal["udp", "http", "json", "ping"]
GapCause = Literal["crash", "restart", "stall", "disk_full", "lost_shard", "drops", "degraded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One workload's place in a row. `created_ms` and `retired_ms` are its life, by the registry's clock.

    `created_known_ms` and `retired_known_ms`: when the shard applied that, in its recorded time; it decides
    from when RESYNC is told. None = at the very time, by both clocks.
    """

    slot: int
    workload_id: str
    created_ms: int
    retired_ms: int | None = None
    created_known_ms: int | None = None
    retired_known_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One generation of a row. Frames of it are heard from `opened_ms` on, and it is the time by which the
    engine judges the 60 s overlap of the previous generation. `mask` is the frozen slot map, bit i = slot i.
    """

    generation: int
    opened_ms: int
    expires_ms: int
    interval_ms: int
    ttl_ms: int
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A maintenance window; of the whole node when `workload_id` is None. `own` = the operator's."""

    from_ms: int
    to_ms: int
    own: bool
    workload_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Another run held this workload's licence in [from_ms, to_ms); None = it still does."""

    workload_id: str
    from_ms: int
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One backfilled beat of a row, taken before the seal; in `Row.claims` they stand in the order stored."""

    at_ms: int
    generation: int
    plane0: int
    plane1: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Everything the registry ever said of one row.

    `interval_ms` is the row's configured interval. `revoked_ms`: each time at which the shard applied a
    revocation; sessions opened up to then are dead from then on. `retired_ms`: when it applied that the node
    itself is gone.
    """

    row: int
    node_id: str
    project_id: str
    interval_ms: int
    slots: tuple[Slot, ...]
    sessions: tuple[Session, ...] = ()
    revoked_ms: tuple[int, ...] = ()
    retired_ms: int | None = None
    windows: tuple[Window, ...] = ()
    leases: tuple[Lease, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame that was offered and whose tag (or token, or capability) is right.

    `t_ms` receive time, raw or already lifted to the row's last accepted one: the oracle lifts it itself.
    `generation` is None for a ping, whose map is slot 0; `seq` is None for JSON and ping.
    `ttl_ms` what the engine journaled with the beat, STOPPING included; ignored for a refused frame.
    `durable` False: in flight when the shard died, or in a batch whose write failed (answered BUSY). As if it
    had never come. True says nothing of acceptance: a refused frame that was dealt with is durable, too.
    `unknown_ids` (JSON): the body named workloads that are not in the map.
    """

    frame_id: int
    row: int
    t_ms: int
    via: Via
    generation: int | None
    seq: int | None
    plane0: int
    plane1: int
    ttl_ms: int
    stopping: bool = False
    no_ack: bool = False
    durable: bool = True
    unknown_ids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The shard did not listen in [from_ms, to_ms), as its journal has it."""

    from_ms: int
    to_ms: int
    cause: GapCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The shard listens again at `at_ms`. Its gap record belongs right after it. `seqs_lost`: the last
    sequence numbers did not survive (WIRE.md, server rule 2)."""

    at_ms: int
    seqs_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A committed tick. Only the last one before each Restart is needed; the others may be left out."""

    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """Mass silence: the shard was DEGRADED in [from_ms, to_ms); None = it still is."""

    from_ms: int
    to_ms: int | None = None


Record = Frame | Gap | Restart | Tick | Degraded


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What the world really did, not what the engine wrote: nobody listened in [from_ms, to_ms).

    With these given, the checker refuses gap records that nothing explains, and outages without a gap.
    """

    kind: Literal["crash", "stall", "disk_full", "drops", "degraded"]
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAway:
    """Postgres was out of reach: expired sessions are honoured on."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One shard's whole past up to `as_of_ms`. `records` stand in journal order, frames that were not durable
    at the place where they would have stood. `outages` None = not known, gap records are believed."""

    shard: int
    rows: tuple[Row, ...]
    records: tuple[Record, ...]
    as_of_ms: int
    store_away: tuple[StoreAway, ...] = ()
    outages: tuple[Outage, ...] | None = None
