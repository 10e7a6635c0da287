"""Forgetting what was told long ago, in PostgreSQL. Who prunes their own table stands with that table."""

from __future__ import annotations

from storage.pool import Connection, Postgres


class PostgresRetention:
    """engine.core.retention.Retention on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def prune_deliveries(self, *, now_ms: int, kept_ms: int, limit: int) -> int:
        return await self._db.run(_prune_deliveries, now_ms - kept_ms, limit)


async def _prune_deliveries(connection: Connection, before_ms: int, limit: int) -> int:
    told = await connection.fetchval(
        """
        with gone as (delete from delivery where ctid = any(array(
          select ctid from delivery where settled_ms < $1 limit $2)) returning 1)
        select count(*) from gone
        """,
        before_ms,
        limit,
    )
    # A notice is written in one transaction with its deliveries, so one without any has lost them above.
    # `created_ms` is when the notice was written: one that waits for its delivery is never so old alone.
    notices = await connection.fetchval(
        """
        with gone as (delete from notice where notice_id = any(array(
          select n.notice_id from notice n
          where n.created_ms < $1 and not exists (select from delivery d where d.notice_id = n.notice_id)
          limit $2)) returning 1)
        select count(*) from gone
        """,
        before_ms,
        limit,
    )
    return int(told) + int(notices)
