"""What bears on a workload's day in PostgreSQL: events, sessions, owners, refused beats, the seal.

Intervals, gaps and windows are read by postgres_recorded.py; refused beats are kept by postgres_refused.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from engine.core.evidence import EVENTS_MAX, SESSIONS_MAX, Owned, SealMark, Surroundings
from engine.core.ports import WorkloadRecord
from engine.core.records import Event
from engine.core.sealed import DAY_MS
from engine.core.why import Session
from storage.pool import Connection, Postgres
from storage.postgres_history import EVENT_FIELDS, events_of
from storage.postgres_refused import refused_during

# What a cause can be told by (engine/core/why.py).
EVENT_KINDS = ("node.down", "node.up", "node.stopped", "workload.down", "workload.up")
_EPOCH = date(1970, 1, 1)


class PostgresEvidence:
    """engine.core.evidence.Evidence on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        return await self._db.run(refused_during, node_ids, day)

    async def surroundings(self, workload: WorkloadRecord, day: str) -> Surroundings:
        return await self._db.run(surroundings, workload, day)


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
