"""What the worker that follows the chain writes into PostgreSQL: a pass at a time, whole or not at all.

Here are what a pass is held against, the lock by which one worker at a time looks, and the transaction of a
pass; its statements are in inventory_passes.py. What people read is in postgres_inventory.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import trio

from engine.core.inventory import Applied, Collection, Key, Pass, PassOvertakenError
from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host
from storage.inventory_passes import apply_balances, apply_owners
from storage.pool import Connection, Postgres, unavailable
from storage.postgres_inventory import COLLECTIONS, collection_of

_SYNC_LOCKS = 0x4E50_0007  # of pg_try_advisory_lock with two keys; the other is the collection's hash
_CLOSE_S = 2.0  # a lock's connection that does not end in this time is cut
ERROR_CHARS_MAX = 500


class PostgresInventorySync:
    """engine.core.inventory.InventorySync on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def living(self) -> list[Collection]:
        return await self._db.run(_living)

    @asynccontextmanager
    async def holding(self, collection_id: str) -> AsyncIterator[bool]:
        connection = await await_host(self._take, collection_id)
        try:
            yield connection is not None
        finally:
            if connection is not None:
                with trio.CancelScope(shield=True):
                    await await_host(_let_go, connection)

    async def known(self, collection: Collection) -> list[Key]:
        return await self._db.run(_known, collection)

    async def young(self, collection: Collection, after_block: int) -> list[Key]:
        return await self._db.run(_young, collection, after_block)

    async def apply(self, collection: Collection, found: Pass, *, now_ms: int) -> Applied:
        return await self._db.run(_apply, collection, found, now_ms)

    async def failed(self, collection_id: str, error: str) -> None:
        await self._db.run(_failed, collection_id, error)

    async def _take(self, collection_id: str) -> Connection | None:
        """On the host: a connection of its own, because the lock is its session's and ends with it."""
        connection = await self._db.connect_alone()
        try:
            taken = await connection.fetchval(
                "select pg_try_advisory_lock($1, hashtext($2))", _SYNC_LOCKS, collection_id
            )
        except BaseException as error:
            connection.terminate()
            if reason := unavailable(error):
                raise StoreUnavailableError(reason) from error
            raise
        if taken:
            return connection
        await _let_go(connection)
        return None


async def _let_go(connection: Connection) -> None:
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await connection.close()
    connection.terminate()


async def _living(connection: Connection) -> list[Collection]:
    records = await connection.fetch(f"{COLLECTIONS} where retired_ms is null order by collection_id")
    return [collection_of(record) for record in records]


async def _failed(connection: Connection, collection_id: str, error: str) -> None:
    await connection.execute(
        "update collection set sync_error = $2 where collection_id = $1",
        collection_id,
        error.replace("\0", "")[:ERROR_CHARS_MAX],
    )


async def _known(connection: Connection, collection: Collection) -> list[Key]:
    if collection.standard == "erc20":
        records = await connection.fetch(
            "select owner from balance where collection_id = $1 and amount > 0", collection.collection_id
        )
        return [record[0] for record in records]
    records = await connection.fetch(
        "select token_id::text from licence where collection_id = $1 and owner is not null",
        collection.collection_id,
    )
    return [int(record[0]) for record in records]


async def _young(connection: Connection, collection: Collection, after_block: int) -> list[Key]:
    if collection.standard == "erc20":
        records = await connection.fetch(
            "select owner from balance where collection_id = $1 and block > $2",
            collection.collection_id,
            after_block,
        )
        return [record[0] for record in records]
    records = await connection.fetch(
        "select token_id::text from licence where collection_id = $1 and turned_block > $2",
        collection.collection_id,
        after_block,
    )
    return [int(record[0]) for record in records]


async def _apply(connection: Connection, collection: Collection, found: Pass, now_ms: int) -> Applied:
    async with connection.transaction():
        before = await connection.fetchrow(
            "select synced_hash, block_ms from collection where collection_id = $1 for update",
            collection.collection_id,
        )
        if before is None or before["synced_hash"] != collection.synced_hash:
            raise PassOvertakenError("another worker's look came first")
        apply = apply_balances if collection.standard == "erc20" else apply_owners
        applied = await apply(connection, collection, found, now_ms)
        await connection.execute(
            """
            update collection set synced_block = $2, synced_hash = $3, block_ms = $4, checked_ms = $5,
              swept_ms = case when $6 then $5 else swept_ms end, sync_error = '' where collection_id = $1
            """,
            collection.collection_id,
            found.block.number,
            found.block.hash,
            found.block.ms,
            now_ms,
            found.whole,
        )
    return applied
