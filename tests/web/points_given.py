"""Sealed days for tests of points, written as rows: what a seal says, without the day that led to it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from engine.core.merkle import EMPTY_ROOT
from engine.core.ports import NewNode
from engine.core.records import KINDS
from engine.core.sealed import DAY_MS, Held
from tests.web.control import Control
from web.times import parse_day

DAY = "2026-01-31"
PATH = "/v1/projects/alpha/points"


class Row(NamedTuple):
    """A workload's sealed day. `held`: (licence id, owner, paid ms) one after the other in the day."""

    workload_id: str
    node_id: str
    operator_id: str | None = None
    kind: str | None = None
    paid_ms: int = DAY_MS
    held: tuple[tuple[str, str, int], ...] = ()


async def seal(
    control: Control, rows: list[Row], *, day: str = DAY, project_id: str = "", revision: int = 1
) -> str:
    """Seal a day of alpha; its root in hex."""
    project_id = project_id or control.alpha.project_id
    return await seal_rows(control.sql, rows, project_id=project_id, day=day, revision=revision)


async def seal_rows(
    sql: Callable[..., Awaitable[Any]], rows: list[Row], *, project_id: str, day: str, revision: int = 1
) -> str:
    """The same through a function that runs a statement."""
    root = hashlib.sha256(msgspec.json.encode([day, revision, rows])).digest()
    start_ms = parse_day(day)
    [[number]] = await sql("select coalesce(max(seal_no), 0) + 1 from seal")
    for place, row in enumerate(rows):
        await sql(
            """
            insert into sealed_row (seal_no, place, workload_id, node_id, operator_id, kind, source, from_ms,
              to_ms, ms, paid_ms, held, hours)
            values ($1, $2, $3, $4, $5, $6, 'native', $7, $8, $9, $10, $11, '')
            """,
            number,
            place,
            row.workload_id,
            row.node_id,
            row.operator_id,
            row.kind,
            start_ms,
            start_ms + DAY_MS,
            bytes(4 * len(KINDS)),
            row.paid_ms,
            _held(row, start_ms),
        )
    await sql(
        """
        insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots,
          node_blocks, sealed_ms)
        values ($1, $2, $3::text::date, $4, $5, $5, $6, $7, $8, '', $9)
        """,
        number,
        project_id,
        day,
        revision,
        len(rows),
        sum(row.paid_ms for row in rows),
        root,
        EMPTY_ROOT * 24,
        start_ms + DAY_MS + 600_000,
    )
    return root.hex()


def _held(row: Row, start_ms: int) -> str | None:
    if not row.held:
        return None
    span = DAY_MS // len(row.held)
    return msgspec.json.encode(
        [
            Held(licence_id, owner, start_ms + nth * span, start_ms + (nth + 1) * span, paid_ms)
            for nth, (licence_id, owner, paid_ms) in enumerate(row.held)
        ]
    ).decode()


async def nodes(control: Control, count: int, *, owner: str | None = None, project_id: str = "") -> list[Row]:
    """Nodes of one workload each, as rows to be sealed."""
    owner_id = None if owner is None else control.users[owner]
    made = await control.stores.directory.create_nodes(
        [
            NewNode(
                project_id or control.alpha.project_id,
                f"n{number}",
                "check",
                None,
                60_000,
                ("w",),
                (),
                owner_id,
            )
            for number in range(count)
        ],
        now_ms=1,
    )
    return [Row(node.workload_ids[0], node.node_id, owner_id) for node in made]


def body(*rows: tuple[Row, str], day: str = DAY, **more: Any) -> dict[str, Any]:
    """A JSON body."""
    listed = [{"workload_id": row.workload_id, "points": points} for row, points in rows]
    return {"day": day, **more, "rows": listed}


async def sums_match(control: Control) -> None:
    """Of every commit: rows = shares = totals = what the commit says."""
    [found] = await control.sql(
        """
        select count(*) from points_commit c where c.total_micro_points <> all (array[
          (select coalesce(sum(micro_points), 0) from points p where p.commit_id = c.commit_id),
          (select coalesce(sum(micro_points), 0) from points_share p where p.commit_id = c.commit_id),
          (select coalesce(sum(micro_points), 0) from points_total p where p.commit_id = c.commit_id)])
          or exists (
            select 1 from points p full join (
              select commit_id, workload_id, sum(micro_points) as shared from points_share group by 1, 2
            ) s using (commit_id, workload_id)
            where commit_id = c.commit_id and coalesce(p.micro_points, 0) <> coalesce(s.shared, 0)
          )
        """
    )
    assert found[0] == 0
