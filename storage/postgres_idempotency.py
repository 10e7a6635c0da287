"""Idempotency keys in PostgreSQL: one row per credential and key."""

from __future__ import annotations

from engine.core.idempotency import KEPT_MS, Answered, Begun, BusyError, OtherRequestError
from storage.ids import new_id
from storage.pool import Connection, Postgres


class PostgresIdempotency:
    """engine.core.idempotency.Idempotency on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def begin(
        self, credential: str, key: str, *, request_sha256: bytes, now_ms: int, lease_ms: int
    ) -> Begun | Answered:
        return await self._db.run(_begin, credential, key, request_sha256, now_ms, lease_ms)

    async def finish(self, credential: str, key: str, *, lease_ms: int, status: int, answer: bytes) -> bool:
        return await self._db.run(_finish, credential, key, lease_ms, status, answer)

    async def forget(self, credential: str, key: str, *, lease_ms: int) -> None:
        await self._db.run(_forget, credential, key, lease_ms)

    async def release(self, credential: str, key: str, *, lease_ms: int) -> None:
        await self._db.run(_release, credential, key, lease_ms)

    async def prune(self, *, now_ms: int, limit: int, kept_ms: int = KEPT_MS) -> int:
        return await self._db.run(_prune, now_ms - kept_ms, limit)


async def _begin(
    connection: Connection, credential: str, key: str, request_sha256: bytes, now_ms: int, lease_ms: int
) -> Begun | Answered:
    # One statement decides: the row is new, or its lease is over, or it stays as it is.
    taken = await connection.fetchrow(
        """
        insert into idempotency as i (credential, key, request_sha256, made_id, begun_ms, lease_ms)
        values ($1, $2, $3, $4, $5, $5::bigint + $6::bigint)
        on conflict (credential, key) do update set lease_ms = $5::bigint + $6::bigint
          where i.status is null and i.lease_ms < $5 and i.request_sha256 = excluded.request_sha256
        returning made_id::text, lease_ms
        """,
        credential,
        key,
        request_sha256,
        new_id(),
        now_ms,
        lease_ms,
    )
    if taken is not None:
        return Begun(taken["made_id"], taken["lease_ms"])
    there = await connection.fetchrow(
        "select request_sha256, status, answer from idempotency where credential = $1 and key = $2",
        credential,
        key,
    )
    if there is None:
        raise BusyError("this very moment it was forgotten")
    if there["request_sha256"] != request_sha256:
        raise OtherRequestError("this Idempotency-Key was used with another request")
    if there["status"] is None:
        raise BusyError("still being worked on")
    return Answered(there["status"], there["answer"])


async def _finish(
    connection: Connection, credential: str, key: str, lease_ms: int, status: int, answer: bytes
) -> bool:
    return bool(
        await connection.fetchval(
            """
            update idempotency set status = $4, answer = $5
            where credential = $1 and key = $2 and status is null and lease_ms = $3 returning true
            """,
            credential,
            key,
            lease_ms,
            status,
            answer,
        )
    )


async def _forget(connection: Connection, credential: str, key: str, lease_ms: int) -> None:
    await connection.execute(
        "delete from idempotency where credential = $1 and key = $2 and status is null and lease_ms = $3",
        credential,
        key,
        lease_ms,
    )


async def _release(connection: Connection, credential: str, key: str, lease_ms: int) -> None:
    await connection.execute(
        """
        update idempotency set lease_ms = 0
        where credential = $1 and key = $2 and status is null and lease_ms = $3
        """,
        credential,
        key,
        lease_ms,
    )


async def _prune(connection: Connection, before_ms: int, limit: int) -> int:
    return int(
        await connection.fetchval(
            """
            with gone as (delete from idempotency where ctid = any(array(
              select ctid from idempotency where begun_ms < $1 limit $2)) returning 1)
            select count(*) from gone
            """,
            before_ms,
            limit,
        )
    )
