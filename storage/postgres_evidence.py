"""Evidence in PostgreSQL: refused beats per node, day and reason, written with a shard's batches and read.

Counts are added up, so each must be added once: a count goes in only if it lies behind the position that the
shard has stored already, compared under the lock of that row, in the transaction that moves it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from engine.core.evidence import EVENTS_MAX, SESSIONS_MAX, Owned, Refused, SealMark, Surroundings
from engine.core.leases import StandbySpan
from engine.core.ports import WorkloadRecord
from engine.core.records import Event
from engine.core.sealed import DAY_MS
from engine.core.why import Session
from storage.pool import Connection, Postgres
from storage.postgres_history import EVENT_FIELDS, events_of

# What a cause can be told by (engine/core/why.py).
EVENT_KINDS = ("node.down", "node.up", "node.stopped", "workload.down", "workload.up")
_EPOCH = date(1970, 1, 1)
NODES_PER_STATEMENT = 50_000  # so that no statement comes near its timeout


class PostgresEvidence:
    """engine.core.evidence.Evidence on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        return await self._db.run(refused_during, node_ids, day)

    async def surroundings(self, workload: WorkloadRecord, day: str) -> Surroundings:
        return await self._db.run(surroundings, workload, day)


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


async def surroundings(connection: Connection, workload: WorkloadRecord, day: str) -> Surroundings:
    """See `Evidence.surroundings`."""
    which = date.fromisoformat(day)
    from_ms = (which - _EPOCH).days * DAY_MS
    to_ms = from_ms + DAY_MS
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        refused = await refused_during(connection, [workload.node_id], day)
        seal = await connection.fetchrow(
            """
            select revision, reason, sealed_ms from seal where project_id = $1 and day = $2
            order by revision desc limit 1
            """,
            workload.project_id,
            which,
        )
        return Surroundings(
            events=await _events(connection, workload, to_ms),
            sessions=await _sessions(connection, workload, from_ms, to_ms),
            standbys=await _standbys(connection, workload, from_ms, to_ms),
            owned=await _owned(connection, workload, from_ms, to_ms),
            refused=refused.get(workload.node_id, {}),
            sealed=None if seal is None else SealMark(*seal),
        )


async def _events(connection: Connection, workload: WorkloadRecord, to_ms: int) -> list[Event]:
    records = await connection.fetch(
        f"""
        select {EVENT_FIELDS} from event
        where node_id = $1 and (workload_id is null or workload_id = $2) and since_ms < $3 and kind = any($4)
        order by since_ms desc limit {EVENTS_MAX}
        """,
        workload.node_id,
        workload.workload_id,
        to_ms,
        EVENT_KINDS,
    )
    return [event for _, event in reversed(events_of(records))]


async def _sessions(
    connection: Connection, workload: WorkloadRecord, from_ms: int, to_ms: int
) -> list[Session]:
    records = await connection.fetch(
        f"""
        (select opened_ms, slots from session where "row" = $1 and opened_ms < $2
          order by opened_ms desc limit 1)
        union all
        (select opened_ms, slots from session where "row" = $1 and opened_ms >= $2 and opened_ms < $3
          order by opened_ms desc limit {SESSIONS_MAX})
        order by opened_ms
        """,
        workload.row,
        from_ms,
        to_ms,
    )
    return [
        Session(opened_ms, bool(int.from_bytes(slots, "big") >> workload.slot & 1))
        for opened_ms, slots in records
    ]


async def _standbys(
    connection: Connection, workload: WorkloadRecord, from_ms: int, to_ms: int
) -> list[StandbySpan]:
    records = await connection.fetch(
        """
        select s.workload_id::text, s.licence_id::text, s.epoch, l.holder::text as holder_id, s.from_ms,
          s.to_ms, s.claimed_ms
        from lease s join licence_lease l using (licence_id, epoch)
        where s.workload_id = $1 and s.from_ms < $3 and (s.to_ms is null or s.to_ms > $2) order by s.from_ms
        """,
        workload.workload_id,
        from_ms,
        to_ms,
    )
    return [StandbySpan(**record) for record in records]


async def _owned(connection: Connection, workload: WorkloadRecord, from_ms: int, to_ms: int) -> list[Owned]:
    """Cut to the time in which the workload was to run under the licence."""
    records = await connection.fetch(
        """
        select licence_id::text, owner, greatest(o.from_ms, b.from_ms, $2) as began,
          least(o.to_ms, b.to_ms, $3) as ended
        from licence_binding b join ownership o using (licence_id)
        where b.workload_id = $1 and greatest(o.from_ms, b.from_ms, $2) < least(o.to_ms, b.to_ms, $3)
        order by began
        """,
        workload.workload_id,
        from_ms,
        to_ms,
    )
    return [Owned(*record) for record in records]
