"""Everything that `serve` starts works with the application's role, and is told of no other."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from storage.roles import APPLICATION
from tests.conftest import as_owner
from tests.e2e.system import System


def test_no_child_of_serve_has_the_owners_role(system: System) -> None:
    database = system.config["database"]
    assert database["url"].startswith(f"postgresql://{APPLICATION}@")
    assert database["owner_url"] == ""
    roles = _fetch(
        as_owner(database["url"]),
        "select distinct usename from pg_stat_activity"
        " where backend_type = 'client backend' and pid <> pg_backend_pid()",
    )
    assert [row["usename"] for row in roles] == [APPLICATION]


def _fetch(url: str, statement: str) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            found: list[Any] = await connection.fetch(statement)
            return found
        finally:
            await connection.close()

    return asyncio.run(run())
