"""Public keys of receipts in PostgreSQL: entered once, never changed or removed (triggers refuse it)."""

from __future__ import annotations

from typing import Any

from engine.core.receipts import ReceiptKey
from storage.pool import Connection, Postgres

_LOCK = 0x4E50_0008  # of pg_advisory_xact_lock, held while a key is entered
# A key signs until the next one is entered.
_KEYS = """
select secret_id, counter, public_key, from_ms, lead(from_ms) over (order by from_ms, secret_id, counter)
from receipt_key order by from_ms, secret_id, counter
"""
_SETTLED = "select secret_id, counter from receipt_seal where seal_no = $1"


class PostgresReceiptKeys:
    """engine.core.receipts.ReceiptKeys on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def keys(self) -> list[ReceiptKey]:
        return await self._db.run(_keys)

    async def register(self, secret_id: int, public_key: bytes, *, now_ms: int) -> ReceiptKey:
        return await self._db.run(_register, secret_id, public_key, now_ms)

    async def key_of_seal(self, seal_no: int, key_id: str) -> ReceiptKey:
        return await self._db.run(_key_of_seal, seal_no, key_id)


def _key(record: Any) -> ReceiptKey:
    secret_id, counter, public_key, from_ms, until_ms = record
    return ReceiptKey(
        key_id=f"{secret_id}-{counter}", public_key=public_key, from_ms=from_ms, until_ms=until_ms
    )


async def _keys(connection: Connection) -> list[ReceiptKey]:
    return [_key(record) for record in await connection.fetch(_KEYS)]


async def _register(connection: Connection, secret_id: int, public_key: bytes, now_ms: int) -> ReceiptKey:
    if found := await _found(connection, public_key):
        return found
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            """
            insert into receipt_key (secret_id, counter, public_key, from_ms)
            select $1, coalesce(max(counter), 0) + 1, $2, $3 from receipt_key where secret_id = $1
            on conflict (public_key) do nothing
            """,
            secret_id,
            public_key,
            now_ms,
        )
    entered = await _found(connection, public_key)
    assert entered is not None, "keys are never removed"
    return entered


async def _found(connection: Connection, public_key: bytes) -> ReceiptKey | None:
    return next((key for key in await _keys(connection) if key.public_key == public_key), None)


async def _key_of_seal(connection: Connection, seal_no: int, key_id: str) -> ReceiptKey:
    settled = await connection.fetchrow(_SETTLED, seal_no)
    if settled is None:
        await connection.execute(
            """
            insert into receipt_seal (seal_no, secret_id, counter) values ($1, $2, $3) on conflict do nothing
            """,
            seal_no,
            *map(int, key_id.split("-")),
        )
        settled = await connection.fetchrow(_SETTLED, seal_no)  # ours, or of whoever was quicker
    wanted = f"{settled['secret_id']}-{settled['counter']}"
    (found,) = [key for key in await _keys(connection) if key.key_id == wanted]
    return found
