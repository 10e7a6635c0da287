"""Publishing the roots of seals: where to, how far that is, and the port. Pure.

Each seal goes to each target that is configured at least once. What is sent where is the worker's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.core.sealed import Seal

TARGETS = ("file", "webhook", "s3", "evm")
RETRY_MS_MIN, RETRY_MS_MAX = 5_000, 3_600_000


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One seal on its way to one target. `state`: due | done. `note`: what came of the last attempt.

    `prepared`: with target evm the transaction for its signer (evm.Transaction as JSON).
    """

    seal_no: int
    target: str
    state: str
    attempts: int
    due_ms: int
    note: str
    prepared: str | None
    changed_ms: int


class Publications(Protocol):
    """Which seals are published where."""

    async def fill(self, targets: Sequence[str], *, now_ms: int) -> int:
        """Enter every seal that a target has not heard of, also those of before it was set; how many."""
        ...

    async def claim(self, target: str, *, now_ms: int, lease_ms: int) -> tuple[Seal, Publication] | None:
        """The oldest seal that is due there, leased: for `lease_ms` no other worker gets it."""
        ...

    async def done(self, claimed: Publication, *, note: str, prepared: str | None, now_ms: int) -> None: ...

    async def failed(self, claimed: Publication, *, note: str, due_ms: int, now_ms: int) -> None:
        """To be tried again, unless another worker has it in hand by now or was done with it."""
        ...

    async def of_seal(self, seal_no: int) -> list[Publication]:
        """By target."""
        ...


def retry_ms(attempts: int) -> int:
    """The wait after so many attempts that failed: doubled each time, for ever once an hour."""
    return min(RETRY_MS_MAX, RETRY_MS_MIN << min(attempts - 1, 20))
