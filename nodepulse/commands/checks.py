"""`admin check`: things that beat alone, by a URL that they call."""

from __future__ import annotations

from typing import Any

import click

from nodepulse.checks import create_check
from nodepulse.commands.acting import Asked, Desk, admin_options
from nodepulse.commands.reading import NAME

INTERVAL_MS = 60_000


@click.group()
def check() -> None:
    """Things that beat alone, by a URL that they call."""


@check.command(name="create")
@click.option("--project", "slug", required=True)
@click.option("--name", type=NAME, required=True)
@click.option("--interval-ms", type=click.IntRange(1_000), default=INTERVAL_MS, show_default=True)
@admin_options
def check_create(*, slug: str, name: str, interval_ms: int, asked: Asked) -> None:
    """Make a stand-alone check and print its ping and push URLs. Who knows a URL can beat for it."""

    async def work(desk: Desk) -> dict[str, Any]:
        project = await desk.project(slug)
        return await create_check(
            desk.stores.directory,
            desk.config,
            project_id=project.project_id,
            name=name,
            interval_ms=interval_ms,
            now_ms=desk.act.now_ms,
            act=desk.act,
        )

    asked.show(asked.run(work))
