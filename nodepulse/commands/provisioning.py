"""`admin provision`: whole networks at once, with the keys of their machines.

Private keys and the API key are printed here, once, and kept nowhere.
"""

from __future__ import annotations

from typing import Any

import click

from nodepulse.commands.acting import Asked, Desk, admin_options
from nodepulse.commands.keys import make_key
from nodepulse.commands.options import slug_option
from nodepulse.commands.output import print_ids, print_json, show
from nodepulse.commands.projects import make_project
from nodepulse.provision import provision_nodes


@click.command()
@click.option("--project", callback=slug_option, required=True, help="Made when absent.")
@click.option("--nodes", type=click.IntRange(1), required=True)
@click.option("--workloads", type=click.IntRange(0, 64), required=True, help="Of each node.")
@click.option("--interval-ms", type=click.IntRange(1_000), default=60_000, show_default=True)
@admin_options
def provision(*, project: str, nodes: int, workloads: int, interval_ms: int, asked: Asked) -> None:
    """Make nodes with their keys and workloads, and an API key of the project."""

    async def work(desk: Desk) -> dict[str, Any]:
        made = await make_project(desk, project, name="")
        secret, _ = await make_key(desk.also(), scope="project", project_id=made.project_id, name="provision")
        described = await provision_nodes(
            desk.stores.directory,
            project_id=made.project_id,
            nodes=nodes,
            workloads=workloads,
            interval_ms=interval_ms,
            now_ms=desk.act.now_ms,
            act=desk.act,
        )
        return {"project": made.slug, "api_key": secret, "nodes": described}

    made = asked.run(work)
    if asked.as_json:
        print_json(made)
    elif asked.ids_only:
        print_ids(made["nodes"])
    else:
        show({"project": made["project"], "api_key": made["api_key"]}, as_json=False)
        for one in made["nodes"]:
            show(one, as_json=False)
