"""What those who run the installation look at, as records and as a port: outbox, dead letters, gaps, roots.

How the shards are is theirs to tell (figures.py); the schedule and the audit log have ports of their own.
Nothing here is bounded by the size of a table: what is counted is counted up to COUNTED_MAX.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.core.records import Gap

COUNTED_MAX = 10_000  # messages of one kind that are counted; there may be more
ATTEMPTS_LOOKED_AT = 1_000  # of the newest deliveries: how late they were


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one kind (of channel, or `letter`) that were not sent, each number up to COUNTED_MAX.

    `due`: now. `later`: being sent, or to be tried again. `oldest_due_ms`: of those that are due now.
    `dead`: given up.
    """

    kind: str
    due: int
    later: int
    oldest_due_ms: int | None
    dead: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was given up. `owner`: a project's slug or a person's name. `off`: nothing is sent
    there any more, so that it cannot be sent again."""

    delivery_id: str
    channel_id: str
    project_id: str | None
    user_id: str | None
    owner: str
    channel_kind: str
    channel_name: str
    target: str
    off: bool
    notice_kind: str
    attempts: int
    replays: int
    note: str
    created_ms: int
    settled_ms: int | None


class PublishedRoot(msgspec.Struct, frozen=True, kw_only=True):
    """The root of a seal on its way to a target, or there."""

    seal_no: int
    project: str
    day: str
    revision: int
    target: str
    state: str  # due | done
    attempts: int
    due_ms: int
    note: str
    changed_ms: int


class InstallationBooks(Protocol):
    """StoreUnavailableError of each."""

    async def outgoing(self, *, now_ms: int) -> list[Outgoing]:
        """By kind; those without any are left out."""
        ...

    async def lags_ms(self) -> list[int]:
        """From event to first attempt, of the newest deliveries that tell of events; at most
        ATTEMPTS_LOOKED_AT."""
        ...

    async def dead_letters(self, *, before: str | None, limit: int) -> list[DeadLetter]:
        """The newest first."""
        ...

    async def dead_letter(self, delivery_id: str) -> DeadLetter | None: ...

    async def gaps(self, *, before: Gap | None, limit: int) -> list[Gap]:
        """Of all shards, those that ended last first."""
        ...

    async def roots(
        self, *, due_only: bool, before: tuple[int, str] | None, limit: int
    ) -> list[PublishedRoot]:
        """The newest seals first, then by target; `before`: seal number and target of the last one told."""
        ...
