"""Brings the database's schema up to date: applies `storage/migrations/*.sql` (dbmate's format) in order.

dbmate's files and its table `schema_migrations`, so dbmate can be used on the same database; but our own
runner, for reasons given in docs/decisions/0002-migrations.md. Going down is for dbmate. Afterwards the
application's role gets its grants (storage/roles.py), on new tables as well.
"""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import msgspec

from storage.bridge import await_host
from storage.embedded import PostgresServer
from storage.pool import CONNECT_TIMEOUT_S
from storage.roles import connected, grant_application, make_application_role

FOLDER = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x4E50_0001  # of pg_advisory_lock: one migration run at a time
_UP = re.compile(r"^--\s*migrate:up(?P<options>[^\n]*)\n(?P<sql>.*?)(?=^--\s*migrate:down|\Z)", re.S | re.M)


class BadMigrationError(Exception):
    """A file in the migrations folder is not in dbmate's format."""


class NotTheOwnerError(Exception):
    """The role may not change the schema, and something is missing there."""


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


async def migrate(url: str, *, application_url: str = "", folder: Path = FOLDER) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; the names of the files applied.

    `url` is the owner's; the role of `application_url`, if that is another's, then gets its grants. Several
    may call at once: they wait for one another. StoreUnavailableError when there is no database,
    NotTheOwnerError, OtherDatabaseError.
    """
    return await await_host(_migrate, url, application_url, read_migrations(folder))


async def migrate_embedded(server: PostgresServer) -> list[str]:
    """The same for a running embedded server, whose application's role is made first when it is not there."""
    await make_application_role(server.owner_url)
    return await migrate(server.owner_url, application_url=server.url)


async def _migrate(url: str, application_url: str, migrations: list[Migration]) -> list[str]:
    connection = await connected(url)
    try:
        # Lock and migrations on one connection: if it breaks, both end together.
        await connection.execute("select pg_advisory_lock($1)", _LOCK_KEY)
        missing = await _missing(connection, migrations)
        for migration in missing:
            await _apply(connection, migration)
        if application_url and application_url != url:
            await grant_application(connection, application_url)
        return [migration.name for migration in missing]
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotTheOwnerError(
            f"{error}: the schema is its owner's to change, see database.owner_url"
        ) from error
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _missing(connection: asyncpg.Connection, migrations: list[Migration]) -> list[Migration]:
    # Asked first: where nothing is missing the application's role, which may create nothing, finds so, too.
    if await connection.fetchval("select to_regclass('schema_migrations') is null"):
        await connection.execute(
            "create table if not exists schema_migrations (version varchar(128) primary key)"
        )
    done = {row["version"] for row in await connection.fetch("select version from schema_migrations")}
    return [migration for migration in migrations if migration.version not in done]


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    record = "insert into schema_migrations (version) values ($1)"
    if not migration.transaction:
        await connection.execute(migration.sql)
        await connection.execute(record, migration.version)
        return
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(record, migration.version)
