"""Rows of points on their way into PostgreSQL: packed, copied into a temporary table, judged by a seal.

Inside a transaction, at whose end the temporary tables are gone. What becomes of the rows is
postgres_ledger.py's and postgres_preview.py's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO

import numpy as np

from engine.core.ledger import FAULTS_MAX, ROW_DTYPE, NewCommit, RowFault, RowsRefusedError
from storage.pool import Connection

STATEMENT_S = (
    600.0  # one statement over a million rows on a busy machine; the pool's bound is for single rows
)
PIECE_ROWS = 50_000  # packed at once
_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_DTYPE = np.dtype(
    [
        ("fields", ">i2"),
        ("place_bytes", ">i4"),
        ("place", ">i4"),
        ("workload_bytes", ">i4"),
        ("hi", ">u8"),
        ("lo", ">u8"),
        ("points_bytes", ">i4"),
        ("micro_points", ">i8"),
    ]
)
_FAULTS = """
with fault as (
  select s.place, case when w.project_id = $1 then 'not_sealed' else 'unknown' end as kind
  from staged_points s left join sealed_row r on r.seal_no = $2 and r.workload_id = s.workload_id
    left join workload w on w.workload_id = s.workload_id
  where r.workload_id is null
  union all
  select place, 'twice' from (
    select place, row_number() over (partition by workload_id order by place) as nth from staged_points
  ) numbered where nth > 1
)
select place, kind, count(*) over () from fault order by place, kind desc limit $3
"""


async def stage(connection: Connection, rows: IO[bytes], *, table: str = "staged_points") -> None:
    """Into a temporary table of this name."""
    await connection.execute(
        f"create temp table {table} (place integer, workload_id uuid, micro_points bigint) on commit drop"
    )
    await connection.copy_to_table(
        table,
        source=_pieces(rows),
        columns=("place", "workload_id", "micro_points"),
        format="binary",
        timeout=STATEMENT_S,
    )
    await connection.execute(f"analyze {table}", timeout=STATEMENT_S)


async def _pieces(rows: IO[bytes]) -> AsyncIterator[bytes]:
    """The rows as a binary COPY."""
    yield _COPY_HEADER
    while packed := rows.read(PIECE_ROWS * ROW_DTYPE.itemsize):
        given = np.frombuffer(packed, ROW_DTYPE)
        copied = np.empty(len(given), _COPY_DTYPE)
        copied["fields"], copied["place_bytes"] = 3, 4
        copied["workload_bytes"], copied["points_bytes"] = 16, 8
        for name in ("place", "hi", "lo", "micro_points"):
            copied[name] = given[name]
        yield copied.tobytes()
    yield _COPY_TRAILER


async def refuse_faults(connection: Connection, new: NewCommit) -> None:
    """RowsRefusedError for staged rows that may not be committed."""
    found = await connection.fetch(_FAULTS, new.project_id, new.seal.seal_no, FAULTS_MAX, timeout=STATEMENT_S)
    if found:
        raise RowsRefusedError([RowFault(place, kind) for place, kind, _ in found], found[0][2])


async def judge(connection: Connection, seal_no: int) -> None:
    """`judged_points`: the staged rows that the seal names, beside what it says of them."""
    # The seal's number is an integer of ours; a statement that makes a table takes no parameters.
    await connection.execute(
        f"""
        create temp table judged_points on commit drop as
        select s.workload_id, s.micro_points, r.node_id, r.operator_id, r.to_ms - r.from_ms as span_ms,
          r.paid_ms, nullif(r.held, '[]')::jsonb as held
        from staged_points s join sealed_row r
          on r.seal_no = {seal_no:d} and r.workload_id = s.workload_id
        order by s.workload_id
        """,
        timeout=STATEMENT_S,
    )
