"""What is sealed and what is in the ledger is not added to either, not even with the application's role."""

from __future__ import annotations

import asyncpg
import pytest

from tests.web.control import Control
from tests.web.points_given import PATH, Row, body, nodes, seal, sums_match

SMUGGLED = {
    "sealed_row": """
        insert into sealed_row (
          seal_no, place, workload_id, node_id, source, from_ms, to_ms, ms, paid_ms, hours)
        select seal_no, 99, $1, $2, source, from_ms, to_ms, ms, paid_ms, hours from sealed_row where place = 0
    """,
    "seal_tree": "insert into seal_tree select seal_no, 5, uuid_send($1) || uuid_send($2) from seal",
    "points": "insert into points select commit_id, $1, length($2::uuid::text) from points_commit",
    "points_share": """
        insert into points_share
        select commit_id, $1::uuid, null, 'node', $2::uuid::text, 5 from points_commit
    """,
    "points_total": """
        insert into points_total
        select commit_id, 'user', $1::uuid::text || $2::uuid::text, 5, 0 from points_commit
    """,
    "points_correction": """
        insert into points_correction
        select commit_id, commit_id, 0, 0, length($1::uuid::text), length($2::uuid::text) from points_commit
    """,
}


async def paid(control: Control) -> Row:
    """A day that is sealed and paid; a node that is not in it."""
    one, late = await nodes(control, 2)
    await seal(control, [one])
    made = await control.ask("POST", PATH, by="owner", json=body((one, "1")))
    assert made.status == 201, made
    return late


@pytest.mark.parametrize("table", SMUGGLED)
async def test_nothing_is_added_to_what_was_sealed_or_committed(control: Control, table: str) -> None:
    late = await paid(control)
    with pytest.raises(asyncpg.RaiseError, match="a correction is a new revision"):
        await control.sql(SMUGGLED[table], late.workload_id, late.node_id)
    await sums_match(control)


async def test_a_row_of_points_without_a_commit_is_refused(control: Control) -> None:
    late = await paid(control)
    with pytest.raises(asyncpg.RaiseError, match="a correction is a new revision"):
        await control.sql("insert into points values ($1, $2, 1)", late.node_id, late.workload_id)
