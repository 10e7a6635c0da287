"""The audit log: written with the change itself, chained, and refused to whoever would rewrite it."""

from __future__ import annotations

import asyncpg
import pytest
import trio

from engine.core.audit import GENESIS, audit_hash
from engine.core.people import Act
from storage.bridge import await_host
from storage.ids import new_id
from storage.open import AllStores
from storage.postgres_audit import write_audit
from tests.conftest import as_owner

NOW = 1_790_000_000_000
PROJECT = new_id()


def act(number: int = 0) -> Act:
    return Act(actor="key:k", now_ms=NOW + number, request_id=f"r{number}", made_id=new_id())


async def on_connection(url: str, work):
    """`await work(connection)` beside the stores, as the owner."""

    async def run():
        connection = await asyncpg.connect(as_owner(url))
        try:
            return await work(connection)
        finally:
            await connection.close()

    return await await_host(run)


async def write(url: str, count: int, *, project_id: str | None = None) -> None:
    async def work(connection):
        for number in range(count):
            async with connection.transaction():
                await write_audit(
                    connection,
                    act(number),
                    action="thing.change",
                    subject=f"s{number}",
                    project_id=project_id,
                    detail={"number": number, "name": "Ünïcode"},
                )

    await on_connection(url, work)


async def test_entries_are_numbered_and_chained_from_the_first(stores: AllStores, postgres_url: str):
    await write(postgres_url, 3)
    entries = await stores.audit.entries(project_id=None, after=0, limit=10)
    assert [entry.seq for entry in entries] == [1, 2, 3]
    previous = GENESIS
    for entry in entries:
        assert entry.previous == previous
        assert entry.hash == audit_hash(
            previous,
            seq=entry.seq,
            at_ms=entry.at_ms,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            project_id=entry.project_id,
            request_id=entry.request_id,
            detail=entry.detail,
        )
        previous = entry.hash
    assert entries[1].detail == '{"name":"Ünïcode","number":1}'
    assert await stores.audit.first_broken() is None


async def test_an_empty_log_is_whole(stores: AllStores):
    assert await stores.audit.first_broken() is None
    assert await stores.audit.entries(project_id=None, after=0, limit=10, newest_first=True) == []


async def test_pages_go_both_ways_and_by_project(stores: AllStores, postgres_url: str):
    await write(postgres_url, 3, project_id=PROJECT)
    await write(postgres_url, 2)

    async def seqs(**asked) -> list[int]:
        return [entry.seq for entry in await stores.audit.entries(**asked)]

    assert await seqs(project_id=None, after=0, limit=3) == [1, 2, 3]
    assert await seqs(project_id=None, after=3, limit=3) == [4, 5]
    assert await seqs(project_id=None, after=0, limit=3, newest_first=True) == [5, 4, 3]
    assert await seqs(project_id=None, after=3, limit=3, newest_first=True) == [2, 1]
    assert await seqs(project_id=PROJECT, after=0, limit=2, newest_first=True) == [3, 2]
    assert await seqs(project_id=new_id(), after=0, limit=2) == []


async def test_those_who_write_at_once_wait_for_each_other(stores: AllStores, postgres_url: str):
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(write, postgres_url, 5)
    entries = await stores.audit.entries(project_id=None, after=0, limit=100)
    assert [entry.seq for entry in entries] == list(range(1, 31))
    assert await stores.audit.first_broken() is None


async def test_what_is_rolled_back_leaves_no_entry_and_no_hole(stores: AllStores, postgres_url: str):
    async def fail(connection):
        transaction = connection.transaction()
        await transaction.start()
        await write_audit(connection, act(), action="thing.change", subject="gone")
        await transaction.rollback()

    await write(postgres_url, 1)
    await on_connection(postgres_url, fail)
    await write(postgres_url, 1)
    entries = await stores.audit.entries(project_id=None, after=0, limit=10)
    assert [(entry.seq, entry.subject) for entry in entries] == [(1, "s0"), (2, "s0")]
    assert await stores.audit.first_broken() is None


@pytest.mark.parametrize(
    "statement",
    [
        "update audit set actor = 'nobody' where seq = 1",
        "delete from audit where seq = 2",
        "truncate audit",
        "insert into audit select * from audit on conflict (seq) do update set actor = 'nobody'",
    ],
)
async def test_the_database_refuses_to_change_what_was_written(
    stores: AllStores, postgres_url: str, statement: str
):
    await write(postgres_url, 3)

    async def tamper(connection):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute(statement)

    await on_connection(postgres_url, tamper)
    assert await stores.audit.first_broken() is None
    assert len(await stores.audit.entries(project_id=None, after=0, limit=10)) == 3


async def test_who_gets_round_the_trigger_is_found_out(stores: AllStores, postgres_url: str):
    await write(postgres_url, 6)
    fields = ("at_ms = 1", "actor = ''", "action = 'x.y'", "subject = 's9'", "request_id = 'r9'")
    fields = (*fields, "detail = '{}'", f"project_id = '{PROJECT}'", "hash = '\\x00'", "previous = '\\x00'")
    for field in fields:
        assert await broken_by(stores, postgres_url, f"update audit set {field} where seq = 4") == 4, field
    assert await broken_by(stores, postgres_url, "delete from audit where seq = 3") == 4
    assert await broken_by(stores, postgres_url, "delete from audit where seq = 1") == 2
    swapped = "update audit set seq = -seq where seq in (2, 3); update audit set seq = 5 + seq where seq < 0"
    assert await broken_by(stores, postgres_url, swapped) == 2


async def broken_by(stores: AllStores, url: str, change: str) -> int | None:
    """Where the chain breaks when somebody who owns the table makes a change; it is put back after."""

    async def tamper(connection):
        await connection.execute("create table kept as select * from audit")
        await connection.execute(f"alter table audit disable trigger all; {change}")

    async def restore(connection):
        await connection.execute("delete from audit; insert into audit select * from kept; drop table kept")
        await connection.execute("alter table audit enable trigger all")

    await on_connection(url, tamper)
    found = await stores.audit.first_broken()
    await on_connection(url, restore)
    assert await stores.audit.first_broken() is None
    return found
