"""What PostgreSQL says of how far each shard has been flushed, and an operator's word on where it goes on.

Engines judge whether it fits their journals (engine/rejoin.py) and wait where it does not.
"""

from __future__ import annotations

import msgspec

from engine.core.people import Act
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit


class ShardState(msgspec.Struct, frozen=True):
    """`position`: of the journal; `watermark_ms`: everything received up to here is in the database."""

    position: int
    watermark_ms: int


class PostgresRejoin:
    """Positions of shards, read and set by an operator."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def states(self) -> dict[int, ShardState]:
        return await self._db.run(_states)

    async def go_on_at(
        self, act: Act, *, shard: int, shards: int, position: int, lost: tuple[int, int] | None
    ) -> None:
        """Let a shard flush from `position` on. `lost`: the time that neither side holds, a gap of ours."""
        await self._db.run(_go_on_at, act, shard, shards, position, lost)


async def _states(connection: Connection) -> dict[int, ShardState]:
    records = await connection.fetch("select shard, position, watermark_ms from shard_state order by shard")
    return {record["shard"]: ShardState(record["position"], record["watermark_ms"]) for record in records}


async def _go_on_at(
    connection: Connection, act: Act, shard: int, shards: int, position: int, lost: tuple[int, int] | None
) -> None:
    async with connection.transaction():
        await connection.execute(
            """
            insert into shard_state (shard, position, watermark_ms) values ($1, $2, 0)
            on conflict (shard) do update set position = excluded.position
            """,
            shard,
            position,
        )
        if lost is not None and lost[0] < lost[1]:
            await connection.execute(
                """
                insert into gap (shards, shard, from_ms, to_ms, cause) values ($1, $2, $3, $4, 'lost_shard')
                on conflict (shards, shard, cause, from_ms) do update set to_ms = excluded.to_ms
                """,
                shards,
                shard,
                *lost,
            )
        detail = {"position": str(position), "lost": list(lost or ())}
        await write_audit(connection, act, action="shard.rejoin", subject=f"shard-{shard}", detail=detail)
