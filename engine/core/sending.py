"""The sending side of the outbox: what those who deliver ask of it and tell it. The port and its records.

Any number of workers do so side by side. Who is told of what is outbox.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from engine.core.outbox import Delivery

HOUR_MS = 3_600_000


class Settled(msgspec.Struct, frozen=True):
    """What came of one attempt. `due`: to be tried again at `retry_at_ms`; `attempted` False: that one was
    none, and does not count."""

    delivery_id: str
    state: Literal["sent", "dead", "due"]
    note: str
    retry_at_ms: int = 0
    attempted: bool = True


class Sending(Protocol):
    """Deliveries as their senders see them. StoreUnavailableError of each."""

    async def claim(
        self,
        *,
        kind: str,
        limit: int,
        now_ms: int,
        lease_ms: int,
        in_flight: Mapping[str, int] | None = None,
        in_flight_max: int = 0,
        without: Sequence[str] = (),
    ) -> list[Delivery]:
        """Take due deliveries to channels of one kind (skip locked), oldest due first.

        They fall due again after the lease unless settled. The claim itself counts the attempt (`attempts`
        of what is returned includes this one), so that one that kills its worker is not tried for ever.
        `in_flight`: what the caller has under way by endpoint, of which none gets more than `in_flight_max`
        (0: no bound); `without`: circuits that are left alone.
        """
        ...

    async def probe(
        self, *, kind: str, circuits: Sequence[str], now_ms: int, lease_ms: int
    ) -> list[Delivery]:
        """Claim the oldest due delivery of each of these circuits."""
        ...

    async def settle(self, settled: Sequence[Settled], *, now_ms: int) -> None:
        """Write down what came of attempts. What is settled already stays as it is."""
        ...

    async def hold(self, circuit: str, *, now_ms: int, until_ms: int) -> int:
        """What is due of this circuit falls due at `until_ms` instead; how many (there may be more)."""
        ...

    async def take_budget(
        self, address: str, *, owner: str, per_hour_max: int, now_ms: int
    ) -> tuple[bool, int]:
        """One more mail of this owner (empty: of all) to this address within the hour: (True, what to give
        back if it was not sent), or (False, when there will be room, unix ms)."""
        ...

    async def give_back_budget(self, address: str, *, owner: str, taken_ms: int) -> None: ...

    async def disable_channel(self, channel_id: str, *, now_ms: int, note: str) -> int:
        """The receiver is gone for good (410): no further notices; its due deliveries become dead letters.

        `Outbox.channels` no longer returns it. How many deliveries died.
        """
        ...

    async def prune(self, *, now_ms: int, limit: int) -> int:
        """Forget budgets of hours that are over; how many."""
        ...
