"""Licence leases as records and as ports (LIVENESS.md 5): who held a licence when, and who stood by.

How says become leases is settle.py's, where they come from engine/standing.py's, how they are kept
storage/postgres_leases.py's. Times are unix ms, spans half-open; `to_ms` None: still so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class LeaseSpan(msgspec.Struct, frozen=True, kw_only=True):
    """`holder_id` ran under the licence in this time, and nobody else was paid for it.

    `ended`: why it ended: stopped | lost | absent | retired | unbound | sold; empty while it lasts.
    """

    licence_id: str
    epoch: int  # from 1, rising
    holder_id: str  # workload
    from_ms: int
    to_ms: int | None
    ended: str = ""


class StandbySpan(msgspec.Struct, frozen=True, kw_only=True):
    """The workload stood by in this time: `holder_id` held its licence, under this epoch.

    `claimed_ms`: its first beat in that epoch, of which the event licence.conflict tells; None: it had none.
    """

    workload_id: str
    licence_id: str
    epoch: int
    holder_id: str
    from_ms: int
    to_ms: int | None
    claimed_ms: int | None = None


class Binding(msgspec.Struct, frozen=True):
    """The workload was to run under this licence in this time."""

    workload_id: str
    licence_id: str
    from_ms: int
    to_ms: int | None


class Leases(Protocol):
    """Leases as they are read. Spans are whole, not cut to what was asked for; by time."""

    async def history(
        self, licence_id: str, *, after_epoch: int, limit: int, newest: bool = False
    ) -> list[LeaseSpan]:
        """The licence's leases with an epoch above `after_epoch` (0: all), by epoch. `newest`: those below it
        (0: all), the newest first."""
        ...

    async def holders_during(
        self, licence_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[LeaseSpan]]:
        """Per licence who held it within [from_ms, to_ms); licences that nobody held are left out."""
        ...

    async def standbys_during(
        self, workload_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[StandbySpan]]:
        """Per workload when it stood by within [from_ms, to_ms); those that did not are left out."""
        ...

    async def bindings_during(
        self, workload_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[Binding]]:
        """Per workload under which licences it was to run within [from_ms, to_ms); those without left out.

        One statement, however many workloads.
        """
        ...

    async def decided_ms(self, *, shards: int) -> int:
        """Every lease and every standby up to here is settled; later ones may still change. 0: none.

        It stands still while a shard is away, in a gap or the grace after one, or DEGRADED.
        """
        ...


class Settling(msgspec.Struct, frozen=True):
    """What one step of settling did."""

    says: int  # settled and done with
    changes: int  # leases that began or ended
    waiting: bool  # says wait until every shard has told of their time


class LeaseSettling(Protocol):
    """Deciding who holds what. Any number of processes may try: one at a time does it."""

    async def settle(self, *, shards: int, now_ms: int) -> Settling:
        """Decide all that every one of the `shards` has told of (WIRE: code 8 lags at most 2 s)."""
        ...
