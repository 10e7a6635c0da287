"""The audit log as records and as a port: who changed what, each entry chained to the one before it by hash.

Entries are written by whoever makes the change, in its transaction (storage/postgres_audit.py); here they are
only read. Money and history have their own records; this log answers "who did that".
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import msgspec

GENESIS = bytes(32)  # what the first entry is chained to


class AuditEntry(msgspec.Struct, frozen=True):
    """One act. `detail`: JSON text, exactly as it was hashed; it holds no secrets."""

    seq: int
    at_ms: int
    actor: str
    action: str  # noun.verb, such as node.revoke
    subject: str  # the id of what was changed
    project_id: str | None
    request_id: str
    detail: str
    previous: bytes
    hash: bytes


def audit_hash(
    previous: bytes,
    *,
    seq: int,
    at_ms: int,
    actor: str,
    action: str,
    subject: str,
    project_id: str | None,
    request_id: str,
    detail: str,
) -> bytes:
    """BLAKE2b-256 over the previous hash and the fields in their order, each with its length before it."""
    digest = hashlib.blake2b(previous, digest_size=32)
    for part in (str(seq), str(at_ms), actor, action, subject, project_id or "", request_id, detail):
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.digest()


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of exactly this actor, action, subject; None: of any."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None


class ChainPart(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a part of the chain found. `upto`: the last entry that was looked at (0: there is none);
    `hash`: of the last one that holds. `broken`: the first that does not. `more`: others follow."""

    upto: int
    hash: bytes
    broken: int | None
    more: bool


class AuditLog(Protocol):
    """Reading the audit log."""

    async def entries(
        self,
        *,
        project_id: str | None,
        after: int,
        limit: int,
        newest_first: bool = False,
        only: AuditFilter | None = None,
    ) -> list[AuditEntry]:
        """Entries after (with `newest_first`: before, 0 = from the end) a seq; of one project, or of all."""
        ...

    async def check(self, *, after: int, limit: int) -> ChainPart:
        """Whether the entries that follow that seq are as they were written; 0 = from the beginning."""
        ...

    async def first_broken(self) -> int | None:
        """The seq of the first entry whose chain does not hold; None when all is as it was written."""
        ...
