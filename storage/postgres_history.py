"""History in PostgreSQL: batches of intervals, events and gaps in, answers for web out.

A batch is one transaction. Intervals travel by binary COPY made from the array itself; the first try goes
straight into the table, and only a batch that was (partly) written before is tried again by way of a staging
table. Nothing here judges what an interval means: that is `engine/core/compose.py`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import asyncpg
import numpy as np

from engine.core.ports import HistoryWentBackError
from engine.core.records import (
    INTERVAL_DTYPE,
    BaseInterval,
    Claim,
    Event,
    FirstReport,
    FlushBatch,
    Gap,
    Lease,
    Recorded,
    Say,
    Window,
)
from storage.failpoint import reached
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_events import write_events
from storage.postgres_recorded import INTERVALS, intervals_of, recorded
from storage.postgres_refused import refused_during, write_refused

REPORTS_PER_STATEMENT = 20_000  # so that no statement comes near its timeout
EVENT_FIELDS = """cursor, event_id, kind, shard, project_id::text, node_id::text, workload_id::text,
  since_ms, at_ms, workloads::text[], detail"""
_COLUMNS = ("workload_id", "started_ms", "ended_ms", "ttl_ms", "kind")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
# One row of the binary COPY format: the number of fields, then each field after its length.
_COPY_DTYPE = np.dtype(
    [
        ("fields", ">i2"),
        ("workload_bytes", ">i4"),
        ("hi", ">u8"),
        ("lo", ">u8"),
        ("started_bytes", ">i4"),
        ("started_ms", ">i8"),
        ("ended_bytes", ">i4"),
        ("ended_ms", ">i8"),
        ("ttl_bytes", ">i4"),
        ("ttl_ms", ">i8"),
        ("kind_bytes", ">i4"),
        ("kind", ">i2"),
    ]
)


class PostgresHistory:
    """engine.core.ports.History on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def flushed_position(self, shard: int) -> int:
        return await self._db.run(_shard_state, "position", shard)

    async def watermark(self, shard: int) -> int:
        return await self._db.run(_shard_state, "watermark_ms", shard)

    async def flush(self, batch: FlushBatch) -> None:
        assert batch.intervals.dtype == INTERVAL_DTYPE
        await self._db.run(_flush, batch, copy_rows(batch.intervals))
        if batch.events:
            reached("flush.after_commit")

    async def intervals(self, workload_id: str, from_ms: int, to_ms: int) -> list[BaseInterval]:
        return await self._db.run(_intervals, workload_id, from_ms, to_ms) if is_id(workload_id) else []

    async def gaps(self, row: int, from_ms: int, to_ms: int) -> list[Gap]:
        return await self._db.run(_gaps, row, from_ms, to_ms)

    async def leases(self, workload_id: str, from_ms: int, to_ms: int) -> list[Lease]:
        return await self._db.run(_leases, workload_id, from_ms, to_ms) if is_id(workload_id) else []

    async def windows(self, workload_id: str, from_ms: int, to_ms: int) -> list[Window]:
        return await self._db.run(_windows, workload_id, from_ms, to_ms) if is_id(workload_id) else []

    async def claims(self, workload_id: str, from_ms: int, to_ms: int) -> list[Claim]:
        return await self._db.run(_claims, workload_id, from_ms, to_ms) if is_id(workload_id) else []

    async def recorded(
        self,
        workload_id: str,
        row: int,
        *,
        shard: int,
        window: tuple[int, int],
        around: tuple[int, int],
    ) -> Recorded:
        return await self._db.run(recorded, workload_id, row, shard, window, around)

    async def refused_during(self, node_ids: Sequence[str], day: str) -> dict[str, dict[str, int]]:
        return await self._db.run(refused_during, node_ids, day)

    async def events(self, *, project_id: str | None, after: int, limit: int) -> list[tuple[int, Event]]:
        if project_id is not None and not is_id(project_id):
            return []
        return await self._db.run(_events, project_id, after, limit)


def copy_rows(intervals: np.ndarray) -> bytes:
    """The rows of a binary COPY for an array of INTERVAL_DTYPE; zero lengths are dropped (LIVENESS.md 1)."""
    kept = intervals[intervals["ended_ms"] > intervals["started_ms"]]
    rows = np.empty(len(kept), _COPY_DTYPE)
    rows["fields"] = len(_COLUMNS)
    rows["workload_bytes"] = 16
    rows["started_bytes"] = rows["ended_bytes"] = rows["ttl_bytes"] = 8
    rows["kind_bytes"] = 2
    for name in ("hi", "lo", "started_ms", "ended_ms", "ttl_ms", "kind"):
        rows[name] = kept[name]
    return rows.tobytes()


async def _flush(connection: Connection, batch: FlushBatch, intervals: bytes) -> None:
    try:
        await _write(connection, batch, intervals, merge=False)
    except asyncpg.UniqueViolationError:
        # Some of it is there already. A second transaction, and not a savepoint in the first: that would cost
        # every batch two round trips, and this is rare (a replay after a crash).
        await _write(connection, batch, intervals, merge=True)


async def _write(connection: Connection, batch: FlushBatch, intervals: bytes, *, merge: bool) -> None:
    async with connection.transaction():
        if intervals:
            source = _COPY_HEADER + intervals + _COPY_TRAILER
            await (_merge_intervals if merge else _copy_intervals)(connection, source)
        if batch.gaps:
            await _write_gaps(connection, batch.gaps)
        for first in range(0, len(batch.first_reports), REPORTS_PER_STATEMENT):
            reports = batch.first_reports[first : first + REPORTS_PER_STATEMENT]
            await _write_first_reports(connection, reports)
        for first in range(0, len(batch.says), REPORTS_PER_STATEMENT):
            await _write_says(connection, batch.says[first : first + REPORTS_PER_STATEMENT])
        for first in range(0, len(batch.refused), REPORTS_PER_STATEMENT):
            await write_refused(connection, batch.refused[first : first + REPORTS_PER_STATEMENT])
        told = await connection.execute(
            """
            insert into shard_state (shard, position, watermark_ms, leases_ms)
            select $1, $2, $3, $4 where coalesce((select position from shard_state where shard = $1), 0) >= $5
            on conflict (shard) do update set position = excluded.position,
              watermark_ms = greatest(shard_state.watermark_ms, excluded.watermark_ms),
              leases_ms = greatest(shard_state.leases_ms, excluded.leases_ms)
            """,
            batch.shard,
            batch.position,
            batch.watermark_ms,
            batch.leases_ms,
            batch.after,
        )
        if told == "INSERT 0 0":  # the transaction goes with it
            raise HistoryWentBackError(f"shard {batch.shard} lies before {batch.after}")
        if batch.events:
            await write_events(connection, batch.events)  # last: the lock is held from here to the commit
            reached("flush.before_commit")


async def _copy_intervals(connection: Connection, source: bytes) -> None:
    await connection.copy_to_table(
        "base_interval", source=io.BytesIO(source), columns=_COLUMNS, format="binary"
    )


async def _merge_intervals(connection: Connection, source: bytes) -> None:
    """A row that is there keeps its later end: an older copy of a journal knows of fewer beats."""
    await connection.execute(
        """
        create temp table if not exists staged_interval (
          number bigint generated always as identity, workload_id uuid, started_ms bigint, ended_ms bigint,
          ttl_ms bigint, kind smallint) on commit delete rows
        """
    )
    await connection.copy_to_table(
        "staged_interval", source=io.BytesIO(source), columns=_COLUMNS, format="binary"
    )
    # In order of the key, so that two shards that write the same rows cannot lock each other out.
    await connection.execute(
        """
        insert into base_interval as b (workload_id, started_ms, ended_ms, ttl_ms, kind)
        select distinct on (workload_id, started_ms) workload_id, started_ms, ended_ms, ttl_ms, kind
        from staged_interval order by workload_id, started_ms, number desc
        on conflict (workload_id, started_ms) do update
          set ttl_ms = excluded.ttl_ms, kind = excluded.kind,
            ended_ms = case b.kind when excluded.kind then greatest(b.ended_ms, excluded.ended_ms)
              else excluded.ended_ms end
          where (b.ended_ms, b.ttl_ms, b.kind) is distinct from
            (excluded.ended_ms, excluded.ttl_ms, excluded.kind)
        """
    )


async def _write_gaps(connection: Connection, gaps: tuple[Gap, ...]) -> None:
    await connection.executemany(
        """
        insert into gap (shards, shard, from_ms, to_ms, cause) values ($1, $2, $3, $4, $5)
        on conflict (shards, shard, cause, from_ms) do update set to_ms = excluded.to_ms
          where gap.to_ms <> excluded.to_ms
        """,
        [
            (gap.shards, gap.shard, gap.from_ms, gap.to_ms, gap.cause)
            for gap in gaps
            if gap.to_ms > gap.from_ms
        ],
    )


async def _write_first_reports(connection: Connection, reports: Sequence[FirstReport]) -> None:
    await connection.execute(
        """
        update workload w set first_report_ms = least(w.first_report_ms, f.at_ms)
        from (select workload_id, min(at_ms) as at_ms from unnest($1::uuid[], $2::bigint[])
          as f (workload_id, at_ms) group by workload_id) f
        where w.workload_id = f.workload_id and (w.first_report_ms is null or w.first_report_ms > f.at_ms)
        """,
        [report.workload_id for report in reports],
        [report.at_ms for report in reports],
    )


async def _write_says(connection: Connection, says: Sequence[Say]) -> None:
    # In order of the key, so that two that write the same ones cannot lock each other out.
    ordered = sorted(says, key=lambda say: (say.workload_id, say.at_ms, say.what))
    await connection.execute(
        """
        insert into lease_say (workload_id, at_ms, what)
        select * from unnest($1::uuid[], $2::bigint[], $3::text[]) on conflict do nothing
        """,
        [say.workload_id for say in ordered],
        [say.at_ms for say in ordered],
        [say.what for say in ordered],
    )


async def _shard_state(connection: Connection, column: str, shard: int) -> int:
    return int(await connection.fetchval(f"select {column} from shard_state where shard = $1", shard) or 0)


async def _intervals(
    connection: Connection, workload_id: str, from_ms: int, to_ms: int
) -> list[BaseInterval]:
    return intervals_of(await connection.fetch(INTERVALS, workload_id, from_ms, to_ms), from_ms)


async def _gaps(connection: Connection, row: int, from_ms: int, to_ms: int) -> list[Gap]:
    records = await connection.fetch(
        """
        select shard, from_ms, to_ms, cause, shards from gap
        where $1::bigint % shards = shard and from_ms < $3 and to_ms > $2
        order by from_ms, cause, shards
        """,
        row,
        from_ms,
        to_ms,
    )
    return [Gap(*record) for record in records]


async def _leases(connection: Connection, workload_id: str, from_ms: int, to_ms: int) -> list[Lease]:
    records = await connection.fetch(
        """
        select from_ms, to_ms from lease
        where workload_id = $1 and from_ms < $3 and (to_ms is null or to_ms > $2) order by from_ms
        """,
        workload_id,
        from_ms,
        to_ms,
    )
    return [Lease(*record) for record in records]


async def _windows(connection: Connection, workload_id: str, from_ms: int, to_ms: int) -> list[Window]:
    records = await connection.fetch(
        """
        select m.window_id::text, m.workload_id::text, m.from_ms, m.to_ms, m.own
        from workload w join maintenance_window m using (node_id)
        where w.workload_id = $1 and (m.workload_id is null or m.workload_id = w.workload_id)
          and m.from_ms < $3 and m.to_ms > $2
        order by m.from_ms, m.window_id
        """,
        workload_id,
        from_ms,
        to_ms,
    )
    return [Window(*record) for record in records]


async def _claims(connection: Connection, workload_id: str, from_ms: int, to_ms: int) -> list[Claim]:
    records = await connection.fetch(
        """
        select at_ms, kind, ttl_ms from claim
        where workload_id = $1 and at_ms < $3 and at_ms + ttl_ms > $2 order by at_ms
        """,
        workload_id,
        from_ms,
        to_ms,
    )
    return [Claim(*record) for record in records]


async def _events(
    connection: Connection, project_id: str | None, after: int, limit: int
) -> list[tuple[int, Event]]:
    # Cursors are committed in their order (see write_events), so nothing below the last one seen can follow.
    records = await connection.fetch(
        f"""
        select {EVENT_FIELDS} from event where cursor > $1 {"and project_id = $3" if project_id else ""}
        order by cursor limit $2
        """,
        after,
        limit,
        *([project_id] if project_id else []),
    )
    return events_of(records)


def events_of(records: Sequence[Any]) -> list[tuple[int, Event]]:
    """(cursor, event) of records with EVENT_FIELDS."""
    return [
        (cursor, Event(*[*fields, tuple(workloads), detail]))
        for cursor, *fields, workloads, detail in records
    ]
