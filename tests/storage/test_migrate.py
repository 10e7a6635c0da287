"""Migrations: applied once, in order, whole or not at all, and understood by dbmate as well."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import asyncpg
import pytest
import trio

from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host
from storage.migrate import FOLDER, BadMigrationError, migrate, read_migrations
from tests.conftest import administer, owner_url_of

OURS = [migration.name for migration in read_migrations()]


@pytest.fixture
def empty_url(postgres_server, request):
    name = f"m_{abs(hash(request.node.name))}"
    administer(postgres_server, f"create database {name}")
    yield owner_url_of(postgres_server, name)
    administer(postgres_server, f"drop database {name} with (force)")


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path, "0001_a.sql", "create table a (n integer); insert into a values (1);")
    write(tmp_path, "0002_b.sql", "create table b (n integer);")
    return tmp_path


def write(folder: Path, name: str, up: str, options: str = "") -> None:
    (folder / name).write_text(f"-- migrate:up{options}\n{up}\n-- migrate:down\ndrop table everything;\n")


async def fetch(url: str, statement: str):
    async def on_host():
        connection = await asyncpg.connect(url)
        try:
            return [tuple(record) for record in await connection.fetch(statement)]
        finally:
            await connection.close()

    return await await_host(on_host)


async def test_the_second_run_finds_nothing_to_do(on_uvloop, empty_url):
    assert await migrate(empty_url) == OURS
    assert await migrate(empty_url) == []
    assert await fetch(empty_url, "select next_row from row_counter") == [(0,)]


async def test_files_are_applied_in_order_and_only_their_up_part(on_uvloop, empty_url, folder):
    assert await migrate(empty_url, folder=folder) == ["0001_a.sql", "0002_b.sql"]
    assert await fetch(empty_url, "select n from a") == [(1,)]
    assert await fetch(empty_url, "select version from schema_migrations order by 1") == [
        ("0001",),
        ("0002",),
    ]


async def test_many_at_once_apply_each_file_once(on_uvloop, empty_url, folder):
    applied: list[str] = []

    async def run() -> None:
        applied.extend(await migrate(empty_url, folder=folder))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(run)
    assert sorted(applied) == ["0001_a.sql", "0002_b.sql"]
    assert await fetch(empty_url, "select n from a") == [(1,)]


async def test_a_file_that_fails_leaves_nothing_of_itself_and_all_before_it(on_uvloop, empty_url, folder):
    write(folder, "0003_c.sql", "create table c (n integer); select nonsense;")
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(empty_url, folder=folder)
    assert await fetch(empty_url, "select to_regclass('b')::text, to_regclass('c')::text") == [("b", None)]
    write(folder, "0003_c.sql", "create table c (n integer);")
    assert await migrate(empty_url, folder=folder) == ["0003_c.sql"]


async def test_what_cannot_be_in_a_transaction_may_be_outside(on_uvloop, empty_url, folder):
    write(folder, "0003_i.sql", "create index concurrently a_n on a (n);", " transaction:false")
    await migrate(empty_url, folder=folder)
    assert await migrate(empty_url, folder=folder) == []


async def test_without_a_database_the_store_is_unavailable(on_uvloop, tmp_path):
    with pytest.raises(StoreUnavailableError):
        await migrate(f"postgresql://nodepulse@/postgres?host={tmp_path}")


def test_a_file_in_another_format_is_refused(tmp_path):
    (tmp_path / "0001_a.sql").write_text("create table a ();")
    with pytest.raises(BadMigrationError, match=r"0001_a\.sql"):
        read_migrations(tmp_path)


async def test_dbmate_sees_our_migrations_as_its_own(on_uvloop, empty_url):
    dbmate = Path(sysconfig.get_path("scripts")) / "dbmate"
    command = [str(dbmate), "--url", empty_url, "--migrations-dir", str(FOLDER), "--no-dump-schema"]
    await migrate(empty_url)
    done = await trio.run_process([*command, "status", "--exit-code"], capture_stdout=True)
    assert b"Pending: 0" in done.stdout
    # And the other way round: down and up by dbmate, then nothing is left for us to do.
    for verb in [["rollback"]] * len(OURS) + [["migrate"]]:
        await trio.run_process([*command, *verb], capture_stdout=True)
    assert await migrate(empty_url) == []
