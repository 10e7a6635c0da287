"""Letters in PostgreSQL: claimed with a lease, like deliveries; emptied once they are settled."""

from __future__ import annotations

from engine.core.letters import KEPT_MS, LETTER_LIFE_MS, Letter
from storage.pool import Connection, Postgres


class PostgresLetters:
    """engine.core.letters.Letters on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def claim(self, *, limit: int, now_ms: int, lease_ms: int) -> list[Letter]:
        return await self._db.run(_claim, limit, now_ms, lease_ms)

    async def settle(self, letter_id: str, *, sent: bool, now_ms: int, note: str) -> None:
        await self._db.run(_settle, letter_id, "sent" if sent else "dead", now_ms, note)

    async def retry(self, letter_id: str, *, retry_at_ms: int, note: str) -> None:
        await self._db.run(_retry, letter_id, retry_at_ms, note)

    async def prune(self, *, now_ms: int, limit: int, kept_ms: int = KEPT_MS) -> int:
        return await self._db.run(_prune, now_ms, limit, kept_ms)


async def _claim(connection: Connection, limit: int, now_ms: int, lease_ms: int) -> list[Letter]:
    records = await connection.fetch(
        """
        with due as (
          select letter_id, due_ms from letter where state = 'due' and due_ms <= $2
          order by due_ms, letter_id limit $1 for update skip locked),
        claimed as (
          update letter l set due_ms = $3, attempts = l.attempts + 1
          from due where l.letter_id = due.letter_id
          returning l.*, due.due_ms as was_due_ms)
        select letter_id::text, address, subject, body, attempts, due_ms, created_ms
        from claimed order by was_due_ms, letter_id
        """,
        limit,
        now_ms,
        now_ms + lease_ms,
    )
    return [Letter(*record) for record in records]


async def _settle(connection: Connection, letter_id: str, state: str, now_ms: int, note: str) -> None:
    await connection.execute(
        """
        update letter set state = $2, settled_ms = $3, note = $4, body = ''
        where letter_id = $1 and state = 'due'
        """,
        letter_id,
        state,
        now_ms,
        note,
    )


async def _retry(connection: Connection, letter_id: str, retry_at_ms: int, note: str) -> None:
    await connection.execute(
        "update letter set due_ms = $2, note = $3 where letter_id = $1 and state = 'due'",
        letter_id,
        retry_at_ms,
        note,
    )


async def _prune(connection: Connection, now_ms: int, limit: int, kept_ms: int) -> int:
    given_up = await connection.fetchval(
        """
        with late as (
          update letter set state = 'dead', settled_ms = $2, body = '', note = 'nobody sent it in time'
          where letter_id = any(array(
            select letter_id from letter where state = 'due' and created_ms < $1 and due_ms < $2 limit $3))
            and state = 'due' and due_ms < $2 returning 1)
        select count(*) from late
        """,
        now_ms - LETTER_LIFE_MS,
        now_ms,
        limit,
    )
    gone = await connection.fetchval(
        """
        with gone as (delete from letter where ctid = any(array(
          select ctid from letter where settled_ms < $1 limit $2)) returning 1)
        select count(*) from gone
        """,
        now_ms - kept_ms,
        limit,
    )
    return int(given_up) + int(gone)
