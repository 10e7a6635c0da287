"""A sealed day of a running system, written as rows: for what needs a day that nobody can wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from tests.conftest import as_owner
from tests.web.points_given import Row, seal_rows


def seal_workloads(database_url: str, slug: str, day: str, workload_ids: list[str]) -> None:
    """These workloads of a project, up all of the day."""

    async def seal() -> None:
        connection = await asyncpg.connect(as_owner(database_url))

        async def sql(statement: str, *arguments: object) -> list[Any]:
            found: list[Any] = await connection.fetch(statement, *arguments)
            return found

        project_id = await connection.fetchval("select project_id from project where slug = $1", slug)
        found = await connection.fetch(
            "select workload_id::text, node_id::text from workload where workload_id = any($1::uuid[])",
            workload_ids,
        )
        await seal_rows(sql, [Row(*each) for each in found], project_id=str(project_id), day=day)
        await connection.close()

    asyncio.run(seal())
