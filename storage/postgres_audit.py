"""The audit log in PostgreSQL: append-only (a trigger refuses all else), hash-chained.

`write_audit` is called inside the transaction of the change itself: no change without its entry, no entry
without its change. An advisory lock, held to the commit, keeps the chain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.audit import GENESIS, AuditEntry, audit_hash
from engine.core.people import Act
from storage.pool import Connection, Postgres

_CHAIN_LOCK = 0x4E50_0005  # of pg_advisory_xact_lock, held while the newest entry is not committed
_CHECK_PAGE = 5_000
_ENTRY = """
select seq, at_ms, actor, action, subject, project_id::text, request_id, detail, previous, hash from audit
"""


class PostgresAuditLog:
    """engine.core.audit.AuditLog on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def entries(
        self, *, project_id: str | None, after: int, limit: int, newest_first: bool = False
    ) -> list[AuditEntry]:
        return await self._db.run(_entries, project_id, after, limit, newest_first)

    async def first_broken(self) -> int | None:
        previous, seq = GENESIS, 0
        while page := await self._db.run(_entries, None, seq, _CHECK_PAGE, False):
            for entry in page:
                fields = msgspec.structs.asdict(entry)
                told, before = fields.pop("hash"), fields.pop("previous")
                if entry.seq != seq + 1 or before != previous or audit_hash(previous, **fields) != told:
                    return entry.seq
                previous, seq = told, entry.seq
        return None


async def write_audit(
    connection: Connection,
    act: Act,
    *,
    action: str,
    subject: str,
    project_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an entry; inside a transaction, as its last statements: the lock is held to the commit.

    `detail` must hold no secrets: public keys and digests, never private ones.
    """
    await connection.execute("select pg_advisory_xact_lock($1)", _CHAIN_LOCK)
    newest = await connection.fetchrow("select seq, hash from audit order by seq desc limit 1")
    seq, previous = (newest["seq"] + 1, newest["hash"]) if newest else (1, GENESIS)
    text = msgspec.json.encode(dict(detail or {}), order="sorted").decode()
    digest = audit_hash(
        previous,
        seq=seq,
        at_ms=act.now_ms,
        actor=act.actor,
        action=action,
        subject=subject,
        project_id=project_id,
        request_id=act.request_id,
        detail=text,
    )
    await connection.execute(
        """
        insert into audit (seq, at_ms, actor, action, subject, project_id, request_id, detail, previous, hash)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        seq,
        act.now_ms,
        act.actor,
        action,
        subject,
        project_id,
        act.request_id,
        text,
        previous,
        digest,
    )


async def _entries(
    connection: Connection, project_id: str | None, after: int, limit: int, newest_first: bool
) -> list[AuditEntry]:
    if newest_first:
        bound, order = "seq < $1", "desc"
        after = after or (1 << 63) - 1
    else:
        bound, order = "seq > $1", "asc"
    of_project = "and project_id = $3" if project_id else ""
    records = await connection.fetch(
        f"{_ENTRY} where {bound} {of_project} order by seq {order} limit $2",
        after,
        limit,
        *([project_id] if project_id else []),
    )
    return [AuditEntry(*record) for record in records]
