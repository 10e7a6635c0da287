"""The points ledger in PostgreSQL: a commit is one transaction, append-only (a trigger refuses all else).

Rows come by binary COPY into a temporary table; they are judged, split and summed by SQL over all of them at
once. How it is read stands in postgres_points.py, the split in postgres_shares.py.
"""

from __future__ import annotations

import datetime
import hashlib
from decimal import Decimal
from typing import IO

import asyncpg

from engine.core.ledger import (
    AlreadyCommittedError,
    Changed,
    Commit,
    DayTotal,
    KeyReusedError,
    LedgerRow,
    NewCommit,
    NothingToCorrectError,
    PaidRow,
    SealMovedError,
    SealRef,
    StillRunningError,
    Total,
)
from engine.core.people import Act
from storage import postgres_points as reads
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_events import control_event, record_event
from storage.postgres_shares import write_shares
from storage.postgres_staging import STATEMENT_S, judge, refuse_faults, stage

_SEAL = """
select seal_no, revision, root, "rows" from seal where project_id = $1 and day = $2
order by revision desc limit 1
"""


class PostgresLedger:
    """engine.core.ledger.Ledger on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def newest_seal(self, project_id: str, day: str) -> SealRef | None:
        return await self._db.run(_newest_seal, project_id, day)

    async def stored(self, project_id: str, idempotency_key: str, body_sha256: bytes) -> Commit | None:
        return await self._db.run(_stored, project_id, idempotency_key, body_sha256)

    async def commit(self, act: Act, new: NewCommit, rows: IO[bytes]) -> tuple[Commit, bool]:
        begins = rows.tell()
        try:
            return await self._db.run(_commit, act, new, rows)
        except asyncpg.UniqueViolationError:
            # Some workload is in the list twice. To look for that before would cost every commit seconds.
            rows.seek(begins)
            await self._db.run(_check, new, rows)
            raise

    async def check(self, new: NewCommit, rows: IO[bytes]) -> None:
        await self._db.run(_check, new, rows)

    async def commits(
        self,
        project_id: str,
        *,
        from_day: str | None,
        to_day: str | None,
        before: tuple[str, int] | None,
        limit: int,
    ) -> list[Commit]:
        return await self._db.run(reads.commits, project_id, from_day, to_day, before, limit)

    async def commit_of(self, project_id: str, commit_id: str) -> Commit | None:
        if not is_id(commit_id):
            return None
        return await self._db.run(reads.commit_of, project_id, commit_id)

    async def differences(
        self, commit: Commit, *, after: tuple[str, str] | None, limit: int
    ) -> list[Changed]:
        return await self._db.run(reads.differences, commit, after, limit)

    async def window_total(self, project_id: str, from_day: str | None, to_day: str | None) -> int:
        return await self._db.run(reads.window_total, project_id, from_day, to_day)

    async def by_beneficiary(
        self,
        project_id: str,
        from_day: str | None,
        to_day: str | None,
        *,
        after: tuple[int, str, str] | None,
        limit: int,
        people_only: bool = False,
    ) -> list[Total]:
        return await self._db.run(
            reads.by_beneficiary, project_id, from_day, to_day, after, limit, people_only
        )

    async def by_licence(
        self, project_id: str, from_day: str | None, to_day: str | None, *, after: str | None, limit: int
    ) -> list[tuple[str, int]]:
        return await self._db.run(reads.by_licence, project_id, from_day, to_day, after, limit)

    async def by_workload(
        self, project_id: str, from_day: str | None, to_day: str | None, *, after: str | None, limit: int
    ) -> list[tuple[str, int]]:
        return await self._db.run(reads.by_workload, project_id, from_day, to_day, after, limit)

    async def by_day(
        self, project_id: str, from_day: str | None, to_day: str | None, *, after: str | None, limit: int
    ) -> list[Commit]:
        return await self._db.run(reads.by_day, project_id, from_day, to_day, after, limit)

    async def earned(
        self,
        *,
        user_id: str,
        wallet: str | None,
        from_day: str | None,
        to_day: str | None,
        before: tuple[str, str] | None,
        limit: int,
    ) -> list[DayTotal]:
        return await self._db.run(reads.earned, user_id, wallet, from_day, to_day, before, limit)

    async def rows(self, commit_id: str, *, after: str | None, limit: int) -> list[LedgerRow]:
        return await self._db.run(reads.rows, commit_id, after, limit)

    async def paid(self, seal_no: int, *, after_place: int, limit: int) -> list[PaidRow]:
        return await self._db.run(reads.paid, seal_no, after_place, limit)


async def _newest_seal(connection: Connection, project_id: str, day: str) -> SealRef | None:
    record = await connection.fetchrow(_SEAL, project_id, datetime.date.fromisoformat(day))
    return None if record is None else SealRef(*record)


async def _stored(connection: Connection, project_id: str, key: str, body_sha256: bytes) -> Commit | None:
    found = await connection.fetchrow(
        "select commit_id::text, body_sha256 from points_commit"
        " where project_id = $1 and idempotency_key = $2",
        project_id,
        key,
    )
    if found is None:
        return None
    if found["body_sha256"] != body_sha256:
        raise KeyReusedError("this Idempotency-Key was used with another body")
    return await reads.commit_of(connection, project_id, found["commit_id"])


async def _check(connection: Connection, new: NewCommit, rows: IO[bytes]) -> None:
    async with connection.transaction():
        await stage(connection, rows)
        await refuse_faults(connection, new)


async def _commit(connection: Connection, act: Act, new: NewCommit, rows: IO[bytes]) -> tuple[Commit, bool]:
    async with connection.transaction():
        # When we are killed, the server must not work on for a client that is gone, its locks held.
        await connection.execute("set local client_connection_check_interval = '500ms'")
        # Some sorts and hashes of a million rows; compiling the statements takes longer than it saves.
        await connection.execute("set local work_mem = '128MB'")
        await connection.execute("set local jit = off")
        await _take_lock(connection, "key", new.project_id, new.idempotency_key)
        stored = await _stored(connection, new.project_id, new.idempotency_key, new.body_sha256)
        if stored is not None:
            return stored, False
        await _take_lock(connection, "day", new.project_id, new.day)
        before = await _must_fit(connection, new)
        await stage(connection, rows)
        if await _write_rows(connection, act, new, revision=1 if before is None else before.revision + 1):
            await refuse_faults(connection, new)
            raise AssertionError("rows were left out, and none of them has a fault")
        await write_shares(connection, act.made_id, licensed_only=new.licensed_only, timeout_s=STATEMENT_S)
        if before is not None:
            await _write_correction(connection, act.made_id, before)
        made = await reads.commit_of(connection, new.project_id, act.made_id)
        assert made is not None, "it was written above"
        await _tell(connection, act, made)
    return made, True


async def _take_lock(connection: Connection, what: str, *of: str) -> None:
    """Held to the end of the transaction, and never waited for. StillRunningError."""
    text = "\0".join(("points", what, *of))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
    if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", number):
        raise StillRunningError(f"another commit of this {what} is being worked on")


async def _must_fit(connection: Connection, new: NewCommit) -> Commit | None:
    """The commit that this one corrects, None for the first of its day."""
    found = await reads.commits(connection, new.project_id, new.day, None, (new.day, 1 << 30), 1)
    before = found[0] if found and found[0].day == new.day else None
    if before is not None and not new.reason:
        raise AlreadyCommittedError(f"the points of {new.day} are committed: a correction needs a reason")
    if before is None and new.reason:
        raise NothingToCorrectError(f"the points of {new.day} were never committed")
    seal = await _newest_seal(connection, new.project_id, new.day)
    if seal is None or seal.seal_no != new.seal.seal_no:
        raise SealMovedError(f"{new.day} has been sealed once more")
    return before


async def _write_rows(connection: Connection, act: Act, new: NewCommit, *, revision: int) -> bool:
    """The commit and its rows, judged by the seal; whether any had to be left out."""
    count, total = await connection.fetchrow("select count(*), sum(micro_points) from staged_points")
    assert (count, int(total)) == (new.rows, new.total_micro_points), "not the rows that were counted"
    await connection.execute(
        """
        insert into points_commit (commit_id, project_id, day, idempotency_key, body_sha256, rows,
          total_micro_points, committed_ms, revision, seal_no, reason, actor)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        """,
        act.made_id,
        new.project_id,
        datetime.date.fromisoformat(new.day),
        new.idempotency_key,
        new.body_sha256,
        new.rows,
        Decimal(new.total_micro_points),
        act.now_ms,
        revision,
        new.seal.seal_no,
        new.reason,
        act.actor,
    )
    await judge(connection, new.seal.seal_no)
    written = await connection.execute(
        """
        insert into points (commit_id, workload_id, micro_points)
        select $1, workload_id, micro_points from judged_points
        """,
        act.made_id,
        timeout=STATEMENT_S,
    )
    return int(written.rpartition(" ")[2]) != new.rows


async def _write_correction(connection: Connection, commit_id: str, before: Commit) -> None:
    await connection.execute(
        """
        insert into points_correction (commit_id, replaces, rows_changed, rows_added, rows_removed,
          total_before)
        select $1, $2, count(*) filter (where old.micro_points <> new.micro_points),
          count(*) filter (where old.workload_id is null), count(*) filter (where new.workload_id is null), $3
        from (select * from points where commit_id = $2) old
          full join (select * from points where commit_id = $1) new using (workload_id)
        """,
        commit_id,
        before.commit_id,
        Decimal(before.total_micro_points),
        timeout=STATEMENT_S,
    )


async def _tell(connection: Connection, act: Act, made: Commit) -> None:
    """The event and the entry of the audit log: their locks are taken last."""
    detail = f"{made.day} revision {made.revision}"
    event = control_event("points.committed", project_id=made.project_id, now_ms=act.now_ms, detail=detail)
    await record_event(connection, event)
    await write_audit(
        connection,
        act,
        action="points.commit",
        subject=made.commit_id,
        project_id=made.project_id,
        detail={
            "day": made.day,
            "revision": made.revision,
            "seal_revision": made.seal_revision,
            "seal_root": made.seal_root.hex(),
            "rows": made.rows,
            "total_micro_points": made.total_micro_points,
            "reason": made.reason,
        },
    )
