"""Our faults and planned maintenance for status pages, out of PostgreSQL: by the index over ends."""

from __future__ import annotations

from engine.core.records import Gap
from engine.core.status import GapTotals, PlannedWork
from storage.pool import Connection, Postgres


class PostgresStatusBooks:
    """engine.core.status.StatusBooks on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def gaps(self, *, since_ms: int, length_ms_min: int, limit: int) -> tuple[list[Gap], GapTotals]:
        return await self._db.run(_gaps, since_ms, length_ms_min, limit)

    async def planned(self, project_id: str, *, now_ms: int, until_ms: int, limit: int) -> list[PlannedWork]:
        return await self._db.run(_planned, project_id, now_ms, until_ms, limit)


async def _gaps(
    connection: Connection, since_ms: int, length_ms_min: int, limit: int
) -> tuple[list[Gap], GapTotals]:
    records = await connection.fetch(
        """
        select shard, from_ms, to_ms, cause, shards from gap
        where to_ms > $1 and to_ms - from_ms >= $2 order by to_ms desc limit $3
        """,
        since_ms,
        length_ms_min,
        limit,
    )
    count, length_ms = await connection.fetchrow(
        "select count(*), coalesce(sum(to_ms - from_ms), 0)::bigint from gap where to_ms > $1", since_ms
    )
    return [Gap(*record) for record in records], GapTotals(count, length_ms)


async def _planned(
    connection: Connection, project_id: str, now_ms: int, until_ms: int, limit: int
) -> list[PlannedWork]:
    records = await connection.fetch(
        """
        select w.from_ms, w.to_ms, count(distinct w.node_id)
        from maintenance_window w join node n using (node_id)
        where w.to_ms > $2 and w.from_ms < $3 and not w.own and not w.ordered
          and n.project_id = $1 and n.retired_ms is null
        group by w.from_ms, w.to_ms order by w.from_ms, w.to_ms limit $4
        """,
        project_id,
        now_ms,
        until_ms,
        limit,
    )
    return [PlannedWork(*record) for record in records]
