"""Mail of our own, such as a link to sign in, as records and as a port.

Notices of events are deliveries (ports.py, Outbox): they hang on channels and on events; a letter is a text
for an address. Who writes one does so in its own transaction (storage/postgres_sign_in.py).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

# A letter that could not be sent for this long is of no use any more: what it says has expired.
LETTER_LIFE_MS = 15 * 60_000
KEPT_MS = 30 * 86_400_000  # after a letter was settled


class Letter(msgspec.Struct, frozen=True):
    """A text for an address, waiting to be sent. As claimed, `due_ms` is the end of the lease."""

    letter_id: str
    address: str
    subject: str
    body: str
    attempts: int
    due_ms: int
    created_ms: int


class Letters(Protocol):
    """The letters that wait."""

    async def claim(self, *, limit: int, now_ms: int, lease_ms: int) -> list[Letter]:
        """Take due letters (skip locked), oldest due first; they fall due again after the lease.

        The claim itself counts the attempt, so that one that kills its worker is not tried for ever.
        """
        ...

    async def settle(self, letter_id: str, *, sent: bool, now_ms: int, note: str) -> None:
        """It was sent, or is given up. Its text goes either way: it may hold a secret."""
        ...

    async def retry(self, letter_id: str, *, retry_at_ms: int, note: str) -> None: ...

    async def prune(self, *, now_ms: int, limit: int, kept_ms: int = KEPT_MS) -> int:
        """Give up what nobody sent in LETTER_LIFE_MS and delete what was settled longer ago than `kept_ms`;
        how many."""
        ...
