"""Refused beats per node, day and reason in PostgreSQL, written with a shard's batches and read.

A shard tells how many there were so far in its run, so what is written twice changes nothing; the runs of a
day add up when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from engine.core.records import Refused
from storage.pool import Connection

NODES_PER_STATEMENT = 50_000  # so that no statement comes near its timeout


async def refused_during(
    connection: Connection, node_ids: Sequence[str], day: str
) -> dict[str, dict[str, int]]:
    """See `History.refused_during`; also inside somebody's transaction."""
    found: dict[str, dict[str, int]] = {}
    for first in range(0, len(node_ids), NODES_PER_STATEMENT):
        records = await connection.fetch(
            """
            select node_id::text, reason, sum(count)::bigint from refused_beat
            where day = $1 and node_id = any($2::uuid[]) group by node_id, reason order by node_id, reason
            """,
            date.fromisoformat(day),
            node_ids[first : first + NODES_PER_STATEMENT],
        )
        for node_id, reason, count in records:
            found.setdefault(node_id, {})[reason] = count
    return found


async def write_refused(connection: Connection, refused: Sequence[Refused]) -> None:
    """Write the counts of a batch, inside its transaction."""
    # In order of the key, so that two that write the same rows cannot lock each other out.
    await connection.execute(
        """
        insert into refused_beat as r (day, node_id, reason, run_ms, count)
        select day, node_id, reason, run_ms, max(count)
        from unnest($1::date[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[])
          as n (day, node_id, reason, run_ms, count)
        group by day, node_id, reason, run_ms order by day, node_id, reason, run_ms
        on conflict (day, node_id, reason, run_ms) do update set count = excluded.count
          where r.count < excluded.count
        """,
        [date.fromisoformat(each.day) for each in refused],
        [each.node_id for each in refused],
        [each.reason for each in refused],
        [each.run_ms for each in refused],
        [each.count for each in refused],
    )
