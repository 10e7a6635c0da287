"""Evidence in PostgreSQL: refused beats per node, day and reason, written with a shard's batches and read.

Counts are added up, so each must be added once: a count goes in only if it lies behind the position that the
shard has stored already, compared under the lock of that row, in the transaction that moves it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from engine.core.evidence import Refused
from storage.pool import Connection, Postgres

NODES_PER_STATEMENT = 50_000  # so that no statement comes near its timeout


class PostgresEvidence:
    """engine.core.evidence.Evidence on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        return await self._db.run(refused_during, node_ids, day)


async def refused_during(
    connection: Connection, node_ids: Sequence[str], day: str
) -> dict[str, dict[str, int]]:
    """See `Evidence.refused_during`; also inside somebody's transaction."""
    found: dict[str, dict[str, int]] = {}
    for first in range(0, len(node_ids), NODES_PER_STATEMENT):
        records = await connection.fetch(
            """
            select node_id::text, reason, count from refused_beat
            where day = $1 and node_id = any($2::uuid[]) order by node_id, reason
            """,
            date.fromisoformat(day),
            node_ids[first : first + NODES_PER_STATEMENT],
        )
        for node_id, reason, count in records:
            found.setdefault(node_id, {})[reason] = count
    return found


async def write_refused(connection: Connection, shard: int, refused: Sequence[Refused]) -> None:
    """Add the counts of a batch, inside its transaction, before that moves the shard's position on."""
    stored = await connection.fetchval("select position from shard_state where shard = $1 for update", shard)
    new = [each for each in refused if each.position > (stored or 0)]
    if not new:
        return
    # In order of the key, so that two shards that write the same rows cannot lock each other out.
    await connection.execute(
        """
        insert into refused_beat as r (day, node_id, reason, count)
        select day, node_id, reason, sum(count) from unnest($1::date[], $2::uuid[], $3::text[], $4::bigint[])
          as n (day, node_id, reason, count)
        group by day, node_id, reason order by day, node_id, reason
        on conflict (day, node_id, reason) do update set count = r.count + excluded.count
        """,
        [date.fromisoformat(each.day) for each in new],
        [each.node_id for each in new],
        [each.reason for each in new],
        [each.count for each in new],
    )
