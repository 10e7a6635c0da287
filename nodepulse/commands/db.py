"""`db`: the schema, and a small believable network to look at."""

from __future__ import annotations

from typing import Any

import click

from nodepulse.commands.options import Sources, config_options, slug_option
from nodepulse.commands.output import json_option, show
from nodepulse.commands.stores import now_ms, on_stores, reachable
from nodepulse.config import Config
from nodepulse.seed import seed
from storage.bridge import run_on_uvloop
from storage.migrate import migrate
from storage.open import Stores


@click.group()
def db() -> None:
    """Bring the database up to date, or fill it with a small network."""


@db.command(name="migrate")
@json_option
@config_options
def migrate_command(*, as_json: bool, sources: Sources) -> None:
    """Apply what is missing of the schema. `serve` does this by itself at each start."""
    config = reachable(sources.configured())
    applied: list[str] = []

    async def main() -> int:
        applied.extend(await migrate(config.database.url))
        return 0

    code = run_on_uvloop(main)
    if code:
        raise SystemExit(code)
    if as_json:
        show({"applied": applied}, as_json=True)
    else:
        click.echo("\n".join(applied) or "up to date")


@db.command(name="seed")
@click.option("--project", default="edge-ai", show_default=True, callback=slug_option)
@json_option
@config_options
def seed_command(*, project: str, as_json: bool, sources: Sources) -> None:
    """Make a small network: nodes in a few places, stand-alone checks, a maintenance window tonight."""

    async def work(stores: Stores, config: Config) -> dict[str, Any]:
        return await seed(stores.directory, config, project=project, now_ms=now_ms())

    show(on_stores(sources, work), as_json=as_json)
