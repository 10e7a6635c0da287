"""The audit log in PostgreSQL: append-only (a trigger refuses all else), hash-chained.

`write_audit` is called inside the transaction of the change itself: no change without its entry, no entry
without its change. An advisory lock, held to the commit, keeps the chain one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from engine.core.audit import GENESIS, AuditEntry, AuditFilter, ChainPart, audit_hash
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
        self,
        *,
        project_id: str | None,
        after: int,
        limit: int,
        newest_first: bool = False,
        only: AuditFilter | None = None,
    ) -> list[AuditEntry]:
        return await self._db.run(_entries, project_id, after, limit, newest_first, only or AuditFilter())

    async def first_broken(self) -> int | None:
        part = ChainPart(upto=0, hash=GENESIS, broken=None, more=True)
        while part.more and part.broken is None:
            part = await self.check(after=part.upto, limit=_CHECK_PAGE)
        return part.broken

    async def check(self, *, after: int, limit: int) -> ChainPart:
        previous = GENESIS
        if after:
            before = await self.entries(project_id=None, after=after - 1, limit=1)
            if not before or before[0].seq != after:
                return ChainPart(upto=after, hash=GENESIS, broken=after, more=False)
            previous = before[0].hash
        page = await self.entries(project_id=None, after=after, limit=limit + 1)
        return await trio.to_thread.run_sync(_check, page[:limit], after, previous, len(page) > limit)


def _check(page: Sequence[AuditEntry], seq: int, previous: bytes, more: bool) -> ChainPart:
    for entry in page:
        fields = msgspec.structs.asdict(entry)
        told, before = fields.pop("hash"), fields.pop("previous")
        if entry.seq != seq + 1 or before != previous or audit_hash(previous, **fields) != told:
            return ChainPart(upto=entry.seq, hash=previous, broken=entry.seq, more=more)
        previous, seq = told, entry.seq
    return ChainPart(upto=seq, hash=previous, broken=None, more=more)


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
    connection: Connection,
    project_id: str | None,
    after: int,
    limit: int,
    newest_first: bool,
    only: AuditFilter,
) -> list[AuditEntry]:
    if newest_first:
        bound, order = "seq < $1", "desc"
        after = after or (1 << 63) - 1
    else:
        bound, order = "seq > $1", "asc"
    wanted = {"project_id": project_id, **msgspec.structs.asdict(only)}
    asked = {column: value for column, value in wanted.items() if value is not None}
    narrowed = "".join(f" and {column} = ${number}" for number, column in enumerate(asked, 3))
    records = await connection.fetch(
        f"{_ENTRY} where {bound} {narrowed} order by seq {order} limit $2", after, limit, *asked.values()
    )
    return [AuditEntry(*record) for record in records]
