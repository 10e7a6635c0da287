"""Corrections of sealed days (PostgreSQL): asked for, carried out by the worker, told with effect.

What a correction grants is on record from the moment it is asked for: maintenance of the project, or a gap of
ours. A sealed row is never touched: the next revision is composed from the records afresh.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.people import Act
from engine.core.records import Gap
from engine.core.sealed import Seal
from engine.core.sealing import (
    CHANGED_TOLD_MAX,
    CORRECTIONS_PER_DAY_MAX,
    ChangedRow,
    Correction,
    CorrectionRefusedError,
    Grant,
)
from storage.ids import is_id, new_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_seals import newest_seal

_COMPARED_S_MAX = 300.0  # a million rows against a million are compared in seconds
_CORRECTION = """
select c.correction_id::text, c.project_id::text, c.day::text, c.reason, c.actor,
  json_array_length(c.granted::json), c.asked_ms, s.revision, c.done_ms, c.rows_changed, c.paid_before_ms,
  c.paid_after_ms
from seal_correction c left join seal s using (seal_no)
where c.project_id = $1 and c.day = $2
"""
_CHANGED = """
create temp table changed_row on commit drop as
select coalesce(a.workload_id, b.workload_id) as workload_id, a.paid_ms as before_ms, b.paid_ms as after_ms
from (select * from sealed_row where seal_no = $1) a
  full join (select * from sealed_row where seal_no = $2) b using (workload_id)
where (a.from_ms, a.to_ms, a.ms, a.paid_ms, a.held, a.refused, a.kind, a.operator_id, a.source)
  is distinct from (b.from_ms, b.to_ms, b.ms, b.paid_ms, b.held, b.refused, b.kind, b.operator_id, b.source)
"""


class PostgresCorrections:
    """engine.core.sealing.Corrections on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def correct(
        self,
        project_id: str,
        day: str,
        *,
        reason: str,
        grants: Sequence[Grant],
        gap: Gap | None,
        act: Act,
    ) -> Correction:
        return await self._db.run(_correct, project_id, day, reason, grants, gap, act)

    async def corrections(self, project_id: str, day: str) -> list[Correction]:
        return await self._db.run(_corrections, project_id, day)

    async def correction(self, project_id: str, day: str, correction_id: str) -> Correction | None:
        if not is_id(correction_id):
            return None
        return await self._db.run(_correction, project_id, day, correction_id)


async def _correct(
    connection: Connection,
    project_id: str,
    day: str,
    reason: str,
    grants: Sequence[Grant],
    gap: Gap | None,
    act: Act,
) -> Correction:
    async with connection.transaction():
        # Two of one project come one after the other, so that both are counted.
        await connection.execute("select from project where project_id = $1 for no key update", project_id)
        made = await _correction(connection, project_id, day, act.made_id)
        if made is not None:
            return made
        await _check(connection, project_id, day)
        await connection.execute(
            """
            insert into seal_correction (correction_id, project_id, day, reason, actor, granted, asked_ms)
            values ($1, $2, $3, $4, $5, $6, $7)
            """,
            act.made_id,
            project_id,
            datetime.date.fromisoformat(day),
            reason,
            act.actor,
            msgspec.json.encode(grants).decode(),
            act.now_ms,
        )
        await _grant(connection, project_id, grants, act.now_ms)
        if gap is not None:
            await _record_gap(connection, gap)
        await write_audit(
            connection,
            act,
            action="seal.correct",
            subject=act.made_id,
            project_id=project_id,
            detail={"day": day, "reason": reason, "maintenances": len(grants), "gap": gap},
        )
    found = await _correction(connection, project_id, day, act.made_id)
    assert found is not None
    return found


async def _check(connection: Connection, project_id: str, day: str) -> None:
    if await newest_seal(connection, project_id, day) is None:
        raise CorrectionRefusedError(
            "not_sealed", f"{day} is not sealed yet: what is not sealed needs no correction"
        )
    many = await connection.fetchval(
        "select count(*) from seal_correction where project_id = $1 and day = $2",
        project_id,
        datetime.date.fromisoformat(day),
    )
    if many >= CORRECTIONS_PER_DAY_MAX:
        raise CorrectionRefusedError(
            "too_many", f"{day} was corrected {many} times, and no day is more often"
        )


async def _grant(connection: Connection, project_id: str, grants: Sequence[Grant], now_ms: int) -> None:
    """Windows of the project's own maintenance, although they have passed: that is what the correction is."""
    ids = [grant.workload_id for grant in grants]
    known = dict(
        await connection.fetch(
            "select workload_id::text, node_id from workload"
            " where workload_id = any($1::uuid[]) and project_id = $2",
            ids,
            project_id,
        )
    )
    missing = [each for each in ids if each not in known]
    if missing:
        raise CorrectionRefusedError("unknown_reference", f"no workload {missing[0]} in this project")
    await connection.executemany(
        """
        insert into maintenance_window (window_id, node_id, workload_id, from_ms, to_ms, own, created_ms)
        values ($1, $2, $3, $4, $5, false, $6)
        """,
        [
            (new_id(), known[grant.workload_id], grant.workload_id, grant.from_ms, grant.to_ms, now_ms)
            for grant in grants
        ],
    )


async def _record_gap(connection: Connection, gap: Gap) -> None:
    await connection.execute(
        """
        insert into gap (shards, shard, from_ms, to_ms, cause) values ($1, $2, $3, $4, $5)
        on conflict (shards, shard, cause, from_ms) do update set to_ms = greatest(gap.to_ms, excluded.to_ms)
        """,
        gap.shards,
        gap.shard,
        gap.from_ms,
        gap.to_ms,
        gap.cause,
    )


async def settle_correction(connection: Connection, correction_id: str, seal: Seal) -> None:
    """What the new revision changed, in the transaction that writes it."""
    before = await connection.fetchrow(
        "select seal_no, paid_ms from seal where project_id = $1 and day = $2 and revision = $3",
        seal.project_id,
        datetime.date.fromisoformat(seal.day),
        seal.revision - 1,
    )
    await connection.execute(_CHANGED, before["seal_no"], seal.seal_no, timeout=_COMPARED_S_MAX)
    told = await connection.fetch(
        "select workload_id::text, before_ms, after_ms from changed_row order by workload_id limit $1",
        CHANGED_TOLD_MAX,
    )
    await connection.execute(
        """
        update seal_correction set seal_no = $2, done_ms = $3, paid_before_ms = $4, paid_after_ms = $5,
          changed = $6, rows_changed = (select count(*) from changed_row)
        where correction_id = $1
        """,
        correction_id,
        seal.seal_no,
        seal.sealed_ms,
        before["paid_ms"],
        seal.paid_ms,
        msgspec.json.encode([ChangedRow(*record) for record in told]).decode(),
    )


async def _corrections(connection: Connection, project_id: str, day: str) -> list[Correction]:
    records = await connection.fetch(
        f"{_CORRECTION} order by c.correction_id", project_id, datetime.date.fromisoformat(day)
    )
    return [_of(record) for record in records]


async def _correction(
    connection: Connection, project_id: str, day: str, correction_id: str
) -> Correction | None:
    date = datetime.date.fromisoformat(day)
    record = await connection.fetchrow(
        f"{_CORRECTION} and c.correction_id = $3", project_id, date, correction_id
    )
    if record is None:
        return None
    changed = await connection.fetchval(
        "select changed from seal_correction where correction_id = $1", correction_id
    )
    rows = msgspec.json.decode(changed or "[]", type=tuple[ChangedRow, ...])
    return msgspec.structs.replace(_of(record), changed=rows)


def _of(record: Any) -> Correction:
    names = Correction.__struct_fields__[:-1]
    return Correction(**dict(zip(names, record, strict=True)))
