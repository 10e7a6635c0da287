"""Events on their way into PostgreSQL: the one place that gives out their cursors.

Engines' events come with their batches (postgres_history.py), the control plane's own by `record_event`.
Reading them is postgres_history.py's.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.records import Event, event_id
from storage.pool import Connection

CONTROL_PLANE = -1  # the shard of events that no engine made
_SAME_MS = 3_600_000  # in each such time the same event of the control plane is told once
_CURSOR_LOCK = 0x4E50_0003  # of pg_advisory_xact_lock, held while an event's cursor is not committed
_EVENT_COLUMNS = (
    "number",
    "event_id",
    "kind",
    "shard",
    "project_id",
    "node_id",
    "workload_id",
    "since_ms",
    "at_ms",
    "workloads",
    "detail",
)


def control_event(
    kind: str,
    *,
    project_id: str | None,
    node_id: str | None = None,
    workload_id: str | None = None,
    now_ms: int,
    detail: str = "",
) -> Event:
    """An event of the control plane that begins and is noticed now.

    Its id is that of the first such event, with the same detail, of the hour: a machine that falls and rises
    without end is told of once an hour, and fills nobody's history.
    """
    subject = workload_id or node_id or project_id or ""
    return Event(
        event_id=event_id(kind, f"{subject}\0{detail}", now_ms - now_ms % _SAME_MS),
        kind=kind,
        shard=CONTROL_PLANE,
        project_id=project_id,
        node_id=node_id,
        workload_id=workload_id,
        since_ms=now_ms,
        at_ms=now_ms,
        detail=detail,
    )


async def record_event(connection: Connection, event: Event) -> None:
    """Write one event of the control plane, inside a transaction; found twice it is written once.

    Locks are taken in this order, everywhere: nodes, this one, that of `announce`, that of `write_audit`.
    """
    await write_events(connection, (event,))


async def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """As one of the last things of a transaction: the lock is held from here to the commit."""
    await connection.execute(
        """
        create temp table if not exists staged_event (
          number integer, event_id text, kind text, shard integer, project_id uuid, node_id uuid,
          workload_id uuid, since_ms bigint, at_ms bigint, workloads uuid[], detail text
        ) on commit delete rows
        """
    )
    await connection.copy_records_to_table(
        "staged_event",
        columns=_EVENT_COLUMNS,
        records=[
            (
                number,
                event.event_id,
                event.kind,
                event.shard,
                event.project_id,
                event.node_id,
                event.workload_id,
                event.since_ms,
                event.at_ms,
                event.workloads,
                event.detail,
            )
            for number, event in enumerate(events)
        ],
    )
    names = ", ".join(_EVENT_COLUMNS[1:])
    await connection.execute("select pg_advisory_xact_lock($1)", _CURSOR_LOCK)
    await connection.execute(
        f"insert into event ({names}) select {names} from staged_event order by number"
        " on conflict (event_id) do nothing"
    )
