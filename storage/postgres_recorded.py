"""Everything that history has of one workload in a range, in one statement: what a read of uptime asks for.

One crossing to the host and one trip to the server instead of six, and all of it as of one moment. The single
questions stand in postgres_history.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.core.records import BaseInterval, Claim, Gap, Lease, Recorded, Window
from storage.pool import Connection

# Rows of one workload do not overlap, so of those that began before the range only the last can touch it; the
# one before that is wanted only if it does, and the first one after.
INTERVALS = """
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = $1 and started_ms < $2 order by started_ms desc limit 2)
  union all
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = $1 and started_ms >= $2 and started_ms < $3)
  union all
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = $1 and started_ms >= greatest($2::bigint, $3::bigint) order by started_ms limit 1)
  order by started_ms
"""
_RECORDED = f"""
select coalesce((select watermark_ms from shard_state where shard = $7), 0) as watermark_ms,
  array(select row(shard, from_ms, to_ms, cause, shards) from gap
    where $4::bigint % shards = shard and from_ms < $3 and to_ms > $2
    order by from_ms, cause, shards) as gaps,
  array(select row(kind, started_ms, ended_ms, ttl_ms) from ({INTERVALS}) as base) as intervals,
  array(select row(from_ms, to_ms) from lease
    where workload_id = $1 and from_ms < $6 and (to_ms is null or to_ms > $5) order by from_ms) as leases,
  array(select row(m.window_id::text, m.workload_id::text, m.from_ms, m.to_ms, m.own)
    from workload w join maintenance_window m using (node_id)
    where w.workload_id = $1 and (m.workload_id is null or m.workload_id = w.workload_id)
      and m.from_ms < $6 and m.to_ms > $5
    order by m.from_ms, m.window_id) as windows,
  array(select row(at_ms, kind, ttl_ms) from claim
    where workload_id = $1 and at_ms < $3 and at_ms + ttl_ms > $2 order by at_ms) as claims
"""


async def recorded(
    connection: Connection,
    workload_id: str,
    row: int,
    shard: int,
    window: tuple[int, int],
    around: tuple[int, int],
) -> Recorded:
    """See `History.recorded`."""
    found = await connection.fetchrow(_RECORDED, workload_id, *around, row, *window, shard)
    return Recorded(
        watermark_ms=found["watermark_ms"],
        gaps=[Gap(*gap) for gap in found["gaps"]],
        intervals=intervals_of(found["intervals"], around[0]),
        leases=[Lease(*lease) for lease in found["leases"]],
        windows=[Window(*each) for each in found["windows"]],
        claims=[Claim(*claim) for claim in found["claims"]],
    )


def intervals_of(records: Iterable[Any], from_ms: int) -> list[BaseInterval]:
    """Base rows of a range that begins there, without the one that cannot touch it."""
    found = [BaseInterval(*record) for record in records]
    before = [interval for interval in found if interval.started_ms < from_ms]
    if len(before) == 2 and before[1].ended_ms <= from_ms:
        found.remove(before[0])
    return found
