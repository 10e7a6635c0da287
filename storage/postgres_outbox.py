"""The outbox in PostgreSQL: channels, the notifier's lock and cursor, new deliveries.

The lock of the one notifier is a session's advisory lock, so it ends with the connection, however its holder
ends. Sending is postgres_sending.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from engine.core.news import Notice
from engine.core.outbox import Channel
from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host
from storage.ids import is_id, new_id
from storage.pool import Connection, Postgres, unavailable

_NOTIFIER_LOCK = 0x4E50_0004  # of pg_try_advisory_lock, held by the session of the one notifier


class PostgresOutbox:
    """engine.core.outbox.Outbox on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db
        self._lock: Connection | None = None  # the connection that holds the notifier's lock
        self._locking = asyncio.Lock()

    async def add_channel(
        self, project_id: str, *, kind: str, target: str, secret: str, now_ms: int
    ) -> Channel:
        channel = Channel(new_id(), project_id, kind, target, secret)
        await self._db.run(_add_channel, channel, now_ms)
        return channel

    async def channels(self, project_id: str) -> list[Channel]:
        return await self._db.run(_channels, project_id) if is_id(project_id) else []

    async def take_notifier_lock(self) -> bool:
        return await await_host(self._take_lock)

    async def notifier_cursor(self) -> int:
        return await self._db.run(_cursor)

    async def pass_over(self, cursor: int) -> None:
        await self._db.run(_pass_over, cursor)

    async def put(self, notices: Sequence[tuple[Notice, str]], *, now_ms: int) -> int:
        return await self._db.run(_put, notices, now_ms)

    async def close(self) -> None:
        """Give the notifier's lock up."""
        if self._lock is not None:
            self._lock.terminate()
            self._lock = None

    async def _take_lock(self) -> bool:
        async with self._locking:  # on the host: two callers share the one connection
            if self._lock is not None and await self._still_alive(self._lock):
                return True
            connection = await self._db.connect_alone()
            try:
                taken = await connection.fetchval("select pg_try_advisory_lock($1)", _NOTIFIER_LOCK)
            except Exception as error:
                connection.terminate()
                if reason := unavailable(error):
                    raise StoreUnavailableError(reason) from error
                raise
            if not taken:
                await connection.close()
                return False
            self._lock = connection
            return True

    async def _still_alive(self, connection: Connection) -> bool:
        """Whether the session that holds the lock exists on the server, too."""
        try:
            await connection.fetchval("select 1")
        except Exception as error:
            connection.terminate()
            self._lock = None
            if unavailable(error):
                return False
            raise
        return True


async def _add_channel(connection: Connection, channel: Channel, now_ms: int) -> None:
    await connection.execute(
        """
        insert into channel (channel_id, project_id, kind, target, secret, created_ms)
        values ($1, $2, $3, $4, $5, $6)
        """,
        channel.channel_id,
        channel.project_id,
        channel.kind,
        channel.target,
        channel.secret,
        now_ms,
    )


async def _channels(connection: Connection, project_id: str) -> list[Channel]:
    records = await connection.fetch(
        """
        select channel_id::text, project_id::text, kind, target, secret, event_kinds from channel
        where project_id = $1 and disabled_ms is null order by channel_id
        """,
        project_id,
    )
    return [Channel(**{**record, "event_kinds": tuple(record["event_kinds"])}) for record in records]


async def _cursor(connection: Connection) -> int:
    return int(await connection.fetchval("select cursor from notifier"))


async def _pass_over(connection: Connection, cursor: int) -> None:
    await connection.execute("update notifier set cursor = greatest(cursor, $1)", cursor)


async def _put(connection: Connection, notices: Sequence[tuple[Notice, str]], now_ms: int) -> int:
    async with connection.transaction():
        return await put_notices(connection, notices, now_ms)


async def put_notices(connection: Connection, notices: Sequence[tuple[Notice, str]], now_ms: int) -> int:
    """In a transaction: notices, each with a delivery to a channel's id that is due now; how many are new.

    Found twice a delivery is written once; a channel that is disabled or removed gets none.
    """
    if not notices:
        return 0
    distinct = {notice.notice_id: notice for notice, _ in notices}
    await connection.execute(
        """
        insert into notice (notice_id, form, kind, body, created_ms)
        select *, $5 from unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
        on conflict (notice_id) do nothing
        """,
        list(distinct),
        [notice.form for notice in distinct.values()],
        [notice.kind for notice in distinct.values()],
        [msgspec.json.encode(notice) for notice in distinct.values()],
        now_ms,
    )
    # The lock on the channel orders this against its being disabled: no delivery is left over for ever.
    status = await connection.execute(
        """
        insert into delivery
          (delivery_id, channel_id, notice_id, due_ms, created_ms, kind, endpoint, circuit)
        select d.delivery_id, c.channel_id, d.notice_id, $4, $4, c.kind, c.endpoint, c.circuit
        from unnest($1::uuid[], $2::uuid[], $3::text[]) as d (delivery_id, channel_id, notice_id)
        join channel c using (channel_id) where c.disabled_ms is null for share of c
        on conflict (notice_id, channel_id) do nothing
        """,
        [new_id() for _ in notices],
        [channel_id for _, channel_id in notices],
        [notice.notice_id for notice, _ in notices],
        now_ms,
    )
    return int(status.rsplit(" ", 1)[1])
