"""What a commit of points would come to, in PostgreSQL: the statements of a commit, on temporary tables.

So a preview and the commit after it cannot differ. Nothing is written; at the end of the transaction all of
it is gone.
"""

from __future__ import annotations

from typing import IO

from engine.core.ledger import NewCommit
from engine.core.points_preview import Comparison, DifferingRow, Preview, Receiver
from storage.pool import Connection, Postgres
from storage.postgres_points import commits
from storage.postgres_shares import PREVIEW, write_shares
from storage.postgres_staging import STATEMENT_S, judge, refuse_faults, stage

_NO_COMMIT = "00000000-0000-0000-0000-000000000000"  # of rows that are none's
_TABLES = f"""
create temp table preview_points on commit drop as
  select '{_NO_COMMIT}'::uuid as commit_id, workload_id, micro_points from judged_points;
create temp table preview_points_share (like points_share) on commit drop;
create temp table preview_points_total (like points_total) on commit drop;
"""
_HERE = "select workload_id, micro_points from preview_points"
_SUGGESTED = "select workload_id, micro_points from suggested_points"
_OF_COMMIT = "select workload_id, micro_points from points where commit_id = $1"
_TOP = """
select t.kind, t.beneficiary, coalesce(u.name, w.name, ''), t.micro_points, t.licence_micro_points,
  coalesce(b.micro_points, 0)
from (
  select * from preview_points_total order by micro_points desc, kind, beneficiary limit $2
) t
left join points_total b on b.commit_id = $1 and b.kind = t.kind and b.beneficiary = t.beneficiary
left join account u on t.kind = 'user' and u.user_id::text = t.beneficiary
left join account w on t.kind = 'wallet' and w.wallet = t.beneficiary
order by t.micro_points desc, t.kind, t.beneficiary
"""


class PostgresPreviews:
    """engine.core.points_preview.PointsPreviews on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def preview(
        self, new: NewCommit, rows: IO[bytes], *, suggested: IO[bytes] | None, most: int
    ) -> Preview:
        return await self._db.run(_preview, new, rows, suggested, most)

    async def compare(self, commit_id: str, *, suggested: IO[bytes], most: int) -> Comparison:
        return await self._db.run(_compare_commit, commit_id, suggested, most)


async def _preview(
    connection: Connection, new: NewCommit, rows: IO[bytes], suggested: IO[bytes] | None, most: int
) -> Preview:
    async with connection.transaction():
        await _prepare(connection)
        await stage(connection, rows)
        await refuse_faults(connection, new)
        await judge(connection, new.seal.seal_no)
        await connection.execute(_TABLES, timeout=STATEMENT_S)
        await write_shares(
            connection, _NO_COMMIT, licensed_only=new.licensed_only, timeout_s=STATEMENT_S, into=PREVIEW
        )
        found = await commits(connection, new.project_id, new.day, None, (new.day, 1 << 30), 1)
        counted = found[0] if found and found[0].day == new.day else None
        counted_id = None if counted is None else counted.commit_id
        if suggested is not None:
            await stage(connection, suggested, table="suggested_points")
        return Preview(
            receivers=await connection.fetchval("select count(*) from preview_points_total"),
            top=tuple(
                Receiver(kind, who, name, int(micro), int(licensed), int(before))
                for kind, who, name, micro, licensed, before in await connection.fetch(
                    _TOP, counted_id, most, timeout=STATEMENT_S
                )
            ),
            counted=None
            if counted is None
            else await _compare(connection, _HERE, _OF_COMMIT, counted.commit_id, most=most),
            suggested=None if suggested is None else await _compare(connection, _HERE, _SUGGESTED, most=most),
        )


async def _compare_commit(
    connection: Connection, commit_id: str, suggested: IO[bytes], most: int
) -> Comparison:
    async with connection.transaction():
        await _prepare(connection)
        await stage(connection, suggested, table="suggested_points")
        return await _compare(connection, _OF_COMMIT, _SUGGESTED, commit_id, most=most)


async def _prepare(connection: Connection) -> None:
    """As a commit does."""
    await connection.execute("set local client_connection_check_interval = '500ms'")
    await connection.execute("set local work_mem = '128MB'")
    await connection.execute("set local jit = off")


async def _compare(
    connection: Connection, here: str, there: str, *arguments: object, most: int
) -> Comparison:
    """Two statements that tell workloads and their amounts, beside each other."""
    both = f"({here}) here full join ({there}) there using (workload_id)"
    changed, added, removed, total = await connection.fetchrow(
        f"""
        select count(*) filter (where here.micro_points <> there.micro_points),
          count(*) filter (where there.micro_points is null),
          count(*) filter (where here.micro_points is null), coalesce(sum(there.micro_points), 0)
        from {both}
        """,
        *arguments,
        timeout=STATEMENT_S,
    )
    rows = await connection.fetch(
        f"""
        select workload_id::text, here.micro_points, there.micro_points from {both}
        where coalesce(here.micro_points, 0) <> coalesce(there.micro_points, 0)
        order by abs(coalesce(here.micro_points, 0) - coalesce(there.micro_points, 0)) desc, workload_id
        limit {most:d}
        """,
        *arguments,
        timeout=STATEMENT_S,
    )
    return Comparison(changed, added, removed, int(total), tuple(DifferingRow(*row) for row in rows))
