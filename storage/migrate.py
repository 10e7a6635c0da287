"""Brings the database's schema up to date: applies `storage/migrations/*.sql` (dbmate's format) in order.

dbmate's files and its table `schema_migrations`, so dbmate can be used on the same database; but our own
runner, for reasons given in docs/decisions/0002-migrations.md. Going down is for dbmate.
"""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import msgspec

from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host
from storage.pool import CONNECT_TIMEOUT_S, unavailable

FOLDER = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x4E50_0001  # of pg_advisory_lock: one migration run at a time
_UP = re.compile(r"^--\s*migrate:up(?P<options>[^\n]*)\n(?P<sql>.*?)(?=^--\s*migrate:down|\Z)", re.S | re.M)


class BadMigrationError(Exception):
    """A file in the migrations folder is not in dbmate's format."""


class Migration(msgspec.Struct, frozen=True):
    version: str
    name: str
    sql: str
    transaction: bool


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The migrations of a folder in order of their versions (the digits each file name begins with)."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        version, up = re.match(r"\d+", path.name), _UP.search(path.read_text())
        if version is None or up is None:
            raise BadMigrationError(f"{path.name}: no version in its name or no `-- migrate:up` in it")
        transaction = "transaction:false" not in up["options"]
        found.append(Migration(version[0], path.name, up["sql"], transaction))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(url: str, *, folder: Path = FOLDER) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; the names of the files applied.

    Several may call at once: they wait for one another. StoreUnavailableError when there is no database.
    """
    return await await_host(_migrate, url, read_migrations(folder))


async def _migrate(url: str, migrations: list[Migration]) -> list[str]:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except Exception as error:
        if reason := unavailable(error):
            raise StoreUnavailableError(reason) from error
        raise
    try:
        # Lock and migrations on one connection: if it breaks, both end together.
        await connection.execute("select pg_advisory_lock($1)", _LOCK_KEY)
        await connection.execute(
            "create table if not exists schema_migrations (version varchar(128) primary key)"
        )
        done = {row["version"] for row in await connection.fetch("select version from schema_migrations")}
        missing = [migration for migration in migrations if migration.version not in done]
        for migration in missing:
            await _apply(connection, migration)
        return [migration.name for migration in missing]
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    record = "insert into schema_migrations (version) values ($1)"
    if not migration.transaction:
        await connection.execute(migration.sql)
        await connection.execute(record, migration.version)
        return
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(record, migration.version)
