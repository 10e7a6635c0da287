"""What is sealed and what is in the ledger is not added to either, not even with the application's role."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from storage.bridge import await_host
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


async def as_application(control: Control, *statements: str, arguments: tuple[Any, ...] = ()) -> None:
    """Run them in one session of the application's role, the last one with the arguments."""

    async def run() -> None:
        connection = await asyncpg.connect(control.postgres_url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            await connection.execute(statements[-1], *arguments)
        finally:
            await connection.close()

    await await_host(run)


@pytest.mark.parametrize("table", SMUGGLED)
async def test_no_table_of_a_session_hides_what_is_sealed_or_committed(control: Control, table: str) -> None:
    """The functions of the triggers look for `seal` and `points_commit` where ours are."""
    late = await paid(control)
    hiding = (
        "create temp table seal as select * from public.seal where false",
        "create temp table points_commit as select * from public.points_commit",
        "update pg_temp.points_commit set commit_id = commit_id",  # its xmin is ours now
    )
    smuggled = SMUGGLED[table].replace("from seal", "from public.seal")
    smuggled = smuggled.replace("from points_commit", "from public.points_commit")
    with pytest.raises(asyncpg.RaiseError, match="a correction is a new revision"):
        await as_application(control, "begin", *hiding, smuggled, arguments=(late.workload_id, late.node_id))
    await sums_match(control)


@pytest.mark.parametrize("table", ["seal", "sealed_row", "points", "points_commit"])
async def test_what_was_written_is_not_changed_by_the_applications_role(control: Control, table: str) -> None:
    await paid(control)
    before = await control.sql(f"select {table}::text from {table} order by 1")
    assert before
    column = "seal_no" if table.startswith("seal") else "commit_id"
    for statements in (
        (f"update {table} set {column} = {column}",),
        (f"delete from {table}",),
        (f"alter table {table} disable trigger all", f"delete from {table}"),
        ("set session_replication_role = replica", f"delete from {table}"),
        ("set role nodepulse", f"delete from {table}"),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await as_application(control, *statements)
    assert await control.sql(f"select {table}::text from {table} order by 1") == before


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
