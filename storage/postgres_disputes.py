"""Disputes in PostgreSQL: entries are appended, triggers refuse all else.

A row lock on the dispute puts what two say at once one after the other. What may be said when is decided by
engine/core/disputes.py.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec

from engine.core.disputes import (
    ENTRIES_MAX,
    AlreadyOpenError,
    Dispute,
    DisputeFilter,
    DisputeRefusedError,
    Entry,
    NewDispute,
    Side,
    What,
    check_correction,
    step,
)
from engine.core.fleet import Sight
from engine.core.people import Act
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_events import control_event, record_event

_NO_ID = "00000000-0000-0000-0000-000000000000"
_DISPUTE = """
select d.dispute_id::text, d.project_id::text, p.slug as project, d.node_id::text, d.workload_id::text,
  d.day::text, d.revision, d.opener_id::text, d.state, d.opened_ms, d.changed_ms
from dispute d join project p using (project_id)
"""


class PostgresDisputes:
    """engine.core.disputes.Disputes on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def open(self, new: NewDispute, *, act: Act) -> Dispute:
        return await self._db.run(_open, new, act)

    async def say(
        self,
        dispute_id: str,
        what: What,
        side: Side,
        *,
        text: str,
        evidence: tuple[str, ...],
        revision: int | None,
        act: Act,
    ) -> Dispute | None:
        if not is_id(dispute_id):
            return None
        entry = Entry(
            entry_id=act.made_id,
            what=what,
            side=side,
            actor=act.actor,
            text=text,
            evidence=evidence,
            revision=revision,
            at_ms=act.now_ms,
        )
        return await self._db.run(_say, dispute_id, entry, act)

    async def dispute(self, dispute_id: str) -> Dispute | None:
        return await self._db.run(_dispute, dispute_id) if is_id(dispute_id) else None

    async def disputes(
        self, sight: Sight, which: DisputeFilter, *, after: str | None, limit: int
    ) -> list[Dispute]:
        return await self._db.run(_disputes, sight, which, after or _NO_ID, limit)


async def _dispute(connection: Connection, dispute_id: str) -> Dispute | None:
    record = await connection.fetchrow(f"{_DISPUTE} where dispute_id = $1", dispute_id)
    if record is None:
        return None
    entries = await connection.fetch(
        """
        select entry_id::text, what, side, actor, text, evidence, revision, at_ms from dispute_entry
        where dispute_id = $1 order by number
        """,
        dispute_id,
    )
    return Dispute(**record, entries=tuple(_entry(each) for each in entries))


def _entry(record: Any) -> Entry:
    return Entry(**{**record, "evidence": tuple(record["evidence"])})


async def _disputes(
    connection: Connection, sight: Sight, which: DisputeFilter, after: str, limit: int
) -> list[Dispute]:
    conditions = ["d.dispute_id > $1"]
    values: list[object] = [after]

    def where(condition: str, *given: object) -> None:
        places = (f"${len(values) + number}" for number in range(1, len(given) + 1))
        conditions.append(condition.format(*places))
        values.extend(given)

    if not sight.everything:
        where("(d.project_id = any({}::uuid[]) or d.opener_id = {})", list(sight.projects), sight.operator_id)
    for name, value in msgspec.structs.asdict(which).items():
        if value is not None:
            where(f"d.{name} = {{}}", date.fromisoformat(value) if name == "day" else value)
    records = await connection.fetch(
        f"{_DISPUTE} where {' and '.join(conditions)} order by d.dispute_id limit ${len(values) + 1}",
        *values,
        limit,
    )
    return [Dispute(**record) for record in records]


async def _open(connection: Connection, new: NewDispute, act: Act) -> Dispute:
    async with connection.transaction():
        made = await connection.fetchval(
            """
            insert into dispute (dispute_id, project_id, node_id, workload_id, day, revision, opener_id,
              opened_ms, changed_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
            on conflict do nothing returning true
            """,
            act.made_id,
            new.project_id,
            new.node_id,
            new.workload_id,
            date.fromisoformat(new.day),
            new.revision,
            new.opener_id,
            act.now_ms,
        )
        found = await _dispute(connection, act.made_id)
        if found is None:
            raise AlreadyOpenError(await _unsettled(connection, new))
        if made:
            entry = Entry(
                entry_id=act.made_id,
                what="open",
                side="operator",
                actor=act.actor,
                text=new.text,
                evidence=new.evidence,
                at_ms=act.now_ms,
            )
            await _append(connection, found, 1, entry, act)
    opened = await _dispute(connection, act.made_id)
    assert opened is not None
    return opened


async def _unsettled(connection: Connection, new: NewDispute) -> str:
    found = await connection.fetchval(
        """
        select dispute_id::text from dispute where workload_id = $1 and day = $2 and opener_id = $3
          and state in ('open', 'answered')
        """,
        new.workload_id,
        date.fromisoformat(new.day),
        new.opener_id,
    )
    return str(found or "")  # settled this very moment


async def _say(connection: Connection, dispute_id: str, entry: Entry, act: Act) -> Dispute | None:
    async with connection.transaction():
        await connection.execute("select from dispute where dispute_id = $1 for update", dispute_id)
        found = await _dispute(connection, dispute_id)
        if found is None or any(each.entry_id == entry.entry_id for each in found.entries):
            return found  # said before, by a request that is repeated
        state = step(found.state, entry.what, entry.side)
        if len(found.entries) >= ENTRIES_MAX and entry.what in ("comment", "answer"):
            raise DisputeRefusedError(f"{ENTRIES_MAX} entries are enough: settle it")
        if entry.revision is not None:
            check_correction(
                disputed=found.revision, corrected=entry.revision, newest=await _newest(connection, found)
            )
        await connection.execute(
            "update dispute set state = $2, changed_ms = greatest(changed_ms, $3) where dispute_id = $1",
            dispute_id,
            state,
            act.now_ms,
        )
        await _append(connection, found, len(found.entries) + 1, entry, act)
        return await _dispute(connection, dispute_id)


async def _newest(connection: Connection, dispute: Dispute) -> int:
    return int(
        await connection.fetchval(
            "select max(revision) from seal where project_id = $1 and day = $2",
            dispute.project_id,
            date.fromisoformat(dispute.day),
        )
    )


async def _append(connection: Connection, dispute: Dispute, number: int, entry: Entry, act: Act) -> None:
    """The entry with its event and its trace in the audit log."""
    await connection.execute(
        """
        insert into dispute_entry (dispute_id, number, entry_id, what, side, actor, text, evidence, revision,
          at_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        dispute.dispute_id,
        number,
        entry.entry_id,
        entry.what,
        entry.side,
        entry.actor,
        entry.text,
        list(entry.evidence),
        entry.revision,
        entry.at_ms,
    )
    kind = {"open": "dispute.opened", "comment": None}.get(entry.what, "dispute.answered")
    if kind is not None:
        event = control_event(
            kind,
            project_id=dispute.project_id,
            # With its node an event is also told to whose machine that is: they opened it themselves.
            node_id=None if entry.what == "open" else dispute.node_id,
            workload_id=dispute.workload_id,
            now_ms=act.now_ms,
            # With the entry's number: each is an event of its own.
            detail=f"{entry.what} dispute={dispute.dispute_id} day={dispute.day} entry={number}",
        )
        await record_event(connection, event)
    await write_audit(
        connection,
        act,
        action=f"dispute.{entry.what}",
        subject=dispute.dispute_id,
        project_id=dispute.project_id,
        detail={"workload_id": dispute.workload_id, "day": dispute.day, "revision": entry.revision},
    )
