"""The points ledger in PostgreSQL: append-only (a trigger refuses all else), once per project and day."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from engine.core.ledger import AlreadyCommittedError, Commit, KeyReusedError, PointsRow
from storage.ids import is_id, new_id
from storage.pool import Connection, Postgres

_COMMIT = """
select commit_id::text, project_id::text, day::text, rows, total_micro_points, committed_ms, body_sha256
from points_commit where project_id = $1 and idempotency_key = $2
"""


class PostgresLedger:
    """engine.core.ports.Ledger on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def commit(
        self,
        project_id: str,
        day: str,
        rows: Sequence[PointsRow],
        *,
        idempotency_key: str,
        body_sha256: bytes,
        now_ms: int,
    ) -> tuple[Commit, bool]:
        """ValueError when a workload stands in `rows` twice."""
        if len({row.workload_id for row in rows}) != len(rows):
            raise ValueError("a workload stands in the rows twice")
        total = sum(row.micro_points for row in rows)
        commit = Commit(new_id(), project_id, day, len(rows), total, now_ms)
        return await self._db.run(_commit, commit, rows, idempotency_key, body_sha256)

    async def totals(self, project_id: str, *, day: str | None) -> list[tuple[str, int]]:
        return await self._db.run(_totals, project_id, day) if is_id(project_id) else []


async def _commit(
    connection: Connection, commit: Commit, rows: Sequence[PointsRow], key: str, body_sha256: bytes
) -> tuple[Commit, bool]:
    async with connection.transaction():
        # Waits for a commit of the same key or day that is under way, and so sees how it ended.
        made = await connection.fetchval(
            """
            insert into points_commit (commit_id, project_id, day, idempotency_key, body_sha256, rows,
              total_micro_points, committed_ms)
            values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing returning true
            """,
            commit.commit_id,
            commit.project_id,
            datetime.date.fromisoformat(commit.day),
            key,
            body_sha256,
            commit.rows,
            Decimal(commit.total_micro_points),
            commit.committed_ms,
        )
        if made:
            await connection.copy_records_to_table(
                "points",
                columns=("commit_id", "workload_id", "micro_points"),
                records=[(commit.commit_id, row.workload_id, row.micro_points) for row in rows],
            )
            return commit, True
    stored = await connection.fetchrow(_COMMIT, commit.project_id, key)
    if stored is None:
        raise AlreadyCommittedError(f"the points of {commit.day} were committed before")
    if stored["body_sha256"] != body_sha256:
        raise KeyReusedError("this Idempotency-Key was used with another body")
    return _stored_commit(stored), False


def _stored_commit(record: Any) -> Commit:
    commit_id, project_id, day, rows, total, committed_ms, _body = record
    return Commit(commit_id, project_id, day, rows, int(total), committed_ms)


async def _totals(connection: Connection, project_id: str, day: str | None) -> list[tuple[str, int]]:
    records = await connection.fetch(
        f"""
        select w.node_id::text, sum(p.micro_points) as total
        from points_commit c join points p using (commit_id) join workload w using (workload_id)
        where c.project_id = $1 {"and c.day = $2" if day else ""}
        group by w.node_id order by total desc, w.node_id
        """,
        project_id,
        *([datetime.date.fromisoformat(day)] if day else []),
    )
    return [(node_id, int(total)) for node_id, total in records]
