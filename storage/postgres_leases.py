"""Licence leases in PostgreSQL as they are read: who held a licence when, who stood by, who was bound.

How they come about is postgres_settle.py's, bindings are written by postgres_bindings.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core.leases import Binding, LeaseSpan, StandbySpan
from storage.ids import is_id
from storage.pool import Connection, Postgres

LEASE_FIELDS = "licence_id::text, epoch, holder::text, from_ms, to_ms, ended"
_EPOCHS = 2**31 - 1  # more than there are of any licence
_STANDBY_FIELDS = """w.workload_id::text, w.licence_id::text, w.epoch, l.holder::text, w.from_ms, w.to_ms,
  w.claimed_ms"""
# All that every shard has told of, and no say is left of; a shard that never told has told of nothing.
DECIDED_MS = """
select least(
  (select case when count(*) = $1 then min(leases_ms) else 0 end from shard_state
    where shard between 0 and $1 - 1),
  (select min(at_ms) - 1 from lease_say))
"""


class PostgresLeases:
    """engine.core.leases.Leases on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def history(
        self, licence_id: str, *, after_epoch: int, limit: int, newest: bool = False
    ) -> list[LeaseSpan]:
        if not is_id(licence_id):
            return []
        if newest:
            return await self._db.run(_newest, licence_id, after_epoch or _EPOCHS, limit)
        return await self._db.run(_history, licence_id, after_epoch, limit)

    async def holders_during(
        self, licence_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[LeaseSpan]]:
        return await self._db.run(_holders_during, licence_ids, from_ms, to_ms)

    async def standbys_during(
        self, workload_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[StandbySpan]]:
        return await self._db.run(_standbys_during, workload_ids, from_ms, to_ms)

    async def bindings_during(
        self, workload_ids: Sequence[str], from_ms: int, to_ms: int
    ) -> dict[str, list[Binding]]:
        return await self._db.run(_bindings_during, workload_ids, from_ms, to_ms)

    async def decided_ms(self, *, shards: int) -> int:
        return await self._db.run(_decided_ms, shards)


def lease_of(record: Any) -> LeaseSpan:
    """A record with LEASE_FIELDS."""
    licence_id, epoch, holder_id, from_ms, to_ms, ended = record
    return LeaseSpan(
        licence_id=licence_id, epoch=epoch, holder_id=holder_id, from_ms=from_ms, to_ms=to_ms, ended=ended
    )


async def _history(connection: Connection, licence_id: str, after_epoch: int, limit: int) -> list[LeaseSpan]:
    records = await connection.fetch(
        f"""
        select {LEASE_FIELDS} from licence_lease where licence_id = $1 and epoch > $2
        order by epoch limit $3
        """,
        licence_id,
        after_epoch,
        limit,
    )
    return [lease_of(record) for record in records]


async def _newest(connection: Connection, licence_id: str, before_epoch: int, limit: int) -> list[LeaseSpan]:
    records = await connection.fetch(
        f"""
        select {LEASE_FIELDS} from licence_lease where licence_id = $1 and epoch < $2
        order by epoch desc limit $3
        """,
        licence_id,
        before_epoch,
        limit,
    )
    return [lease_of(record) for record in records]


async def _holders_during(
    connection: Connection, licence_ids: Sequence[str], from_ms: int, to_ms: int
) -> dict[str, list[LeaseSpan]]:
    records = await connection.fetch(
        f"""
        select {LEASE_FIELDS} from licence_lease
        where licence_id = any($1::uuid[]) and from_ms < $3 and (to_ms is null or to_ms > $2)
        order by licence_id, epoch
        """,
        licence_ids,
        from_ms,
        to_ms,
    )
    found: dict[str, list[LeaseSpan]] = {}
    for record in records:
        found.setdefault(record[0], []).append(lease_of(record))
    return found


async def _standbys_during(
    connection: Connection, workload_ids: Sequence[str], from_ms: int, to_ms: int
) -> dict[str, list[StandbySpan]]:
    records = await connection.fetch(
        f"""
        select {_STANDBY_FIELDS} from lease w join licence_lease l using (licence_id, epoch)
        where w.workload_id = any($1::uuid[]) and w.from_ms < $3 and (w.to_ms is null or w.to_ms > $2)
        order by w.workload_id, w.from_ms
        """,
        workload_ids,
        from_ms,
        to_ms,
    )
    found: dict[str, list[StandbySpan]] = {}
    for workload_id, licence_id, epoch, holder_id, begun_ms, ended_ms, claimed_ms in records:
        span = StandbySpan(
            workload_id=workload_id,
            licence_id=licence_id,
            epoch=epoch,
            holder_id=holder_id,
            from_ms=begun_ms,
            to_ms=ended_ms,
            claimed_ms=claimed_ms,
        )
        found.setdefault(workload_id, []).append(span)
    return found


async def _bindings_during(
    connection: Connection, workload_ids: Sequence[str], from_ms: int, to_ms: int
) -> dict[str, list[Binding]]:
    records = await connection.fetch(
        """
        select workload_id::text, licence_id::text, from_ms, to_ms from licence_binding
        where workload_id = any($1::uuid[]) and from_ms < $3 and (to_ms is null or to_ms > $2)
        order by workload_id, from_ms
        """,
        workload_ids,
        from_ms,
        to_ms,
    )
    found: dict[str, list[Binding]] = {}
    for record in records:
        found.setdefault(record[0], []).append(Binding(*record))
    return found


async def _decided_ms(connection: Connection, shards: int) -> int:
    return int(await connection.fetchval(DECIDED_MS, shards) or 0)
