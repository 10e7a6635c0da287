"""`db`: the schema, and a small believable network to look at."""

from __future__ import annotations

from typing import Any

import click

from nodepulse.commands.acting import new_act
from nodepulse.commands.options import Sources, config_options, slug_option
from nodepulse.commands.output import json_option, print_json, show, show_all
from nodepulse.commands.rejoin import rejoin
from nodepulse.commands.stores import on_stores, reachable
from nodepulse.config import Config
from nodepulse.seed import seed
from storage.bridge import run_on_uvloop
from storage.migrate import NotTheOwnerError, migrate
from storage.open import AllStores
from storage.roles import OtherDatabaseError


@click.group()
def db() -> None:
    """Bring the database up to date, or fill it with a small network."""


db.add_command(rejoin)


@db.command(name="migrate")
@json_option
@config_options
def migrate_command(*, as_json: bool, sources: Sources) -> None:
    """Apply what is missing of the schema. `serve` does this by itself at each start."""
    config = sources.configured()
    # A running `serve` does not tell the owner's URL to anybody; what is embedded it has migrated itself.
    database = (config if config.database.url else reachable(config)).database
    applied: list[str] = []

    async def main() -> int:
        applied.extend(await migrate(database.migration_url, application_url=database.url))
        return 0

    try:
        code = run_on_uvloop(main)
    except (NotTheOwnerError, OtherDatabaseError) as error:
        raise click.ClickException(str(error)) from error
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
    """Make a believable network: projects, people, licences, nodes, two days of history; keys are printed."""

    async def work(stores: AllStores, config: Config) -> dict[str, Any]:
        return await seed(stores, config, project=project, act=new_act(config))

    made = on_stores(sources, work)
    if as_json:
        print_json(made)
        return
    if made["already_there"]:
        slug = made["project"]
        click.echo(f"project {slug} has nodes already: nothing was made. For another one: --project SLUG")
        return
    for name in ("keys", "nodes", "checks"):
        show_all(name, [_short(one) for one in made[name]], as_json=False)
        click.echo()
    click.echo("Keys are shown here only. What is seeded does not beat. Try:")
    for line in made["next"]:
        click.echo(f"  {line}")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """For a line of a table."""
    short = dict(row)
    if "workloads" in row:
        short["workloads"] = len(row["workloads"])
    if "permissions" in row:
        short["permissions"] = ", ".join(row["permissions"])
    return short
