"""`admin workload`: what runs on nodes, of which kind, under which licence."""

from __future__ import annotations

from typing import Any

import click

from engine.core.fleet import WorkloadFilter
from engine.core.ports import WorkloadRecord
from engine.core.registration import NewWorkload, WorkloadChange
from nodepulse.commands.acting import (
    Asked,
    Desk,
    Row,
    admin_options,
    at,
    destructive,
    page_options,
    there,
)
from nodepulse.commands.nodes import ADMIN, EVERYTHING
from nodepulse.commands.reading import ID, NAME, SLUG, VERSION


def described(workload: WorkloadRecord) -> Row:
    return {
        "workload_id": workload.workload_id,
        "node_id": workload.node_id,
        "slot": workload.slot,
        "name": workload.name,
        "project_id": workload.project_id,
        "owner_id": workload.owner_id,
        "kind": workload.kind,
        "licence_id": workload.licence_id,
        "running_version": workload.running_version,
        "created_at": at(workload.created_ms),
        "first_report_at": at(workload.first_report_ms),
        "retired_at": at(workload.retired_ms),
    }


@click.group()
def workload() -> None:
    """Workloads of nodes, under licences."""


@workload.command(name="add")
@click.argument("node_id", type=ID)
@click.option("--name", type=NAME, default="workload", show_default=True)
@click.option("--kind", type=SLUG, help="A kind of the project; of none if left out.")
@click.option("--licence", "licence_id", type=ID, help="The licence that it runs under.")
@admin_options
def workload_add(*, node_id: str, name: str, kind: str | None, licence_id: str | None, asked: Asked) -> None:
    """Give a node one more workload; it learns of it by RESYNC."""

    async def work(desk: Desk) -> WorkloadRecord:
        await desk.node(node_id)
        new = NewWorkload(kind, name, licence_id)
        return await desk.stores.registration.add_workload(node_id, new, act=desk.act, asker=ADMIN)

    made = asked.run(work)
    kept = ("workload_id", "node_id", "slot", "name", "kind", "licence_id")
    asked.show({field: value for field, value in described(made).items() if field in kept})


@workload.command(name="list")
@click.option("--project", "slug", type=SLUG, help="Only those of this project.")
@click.option("--node", "node_id", type=ID, help="Only those on this node.")
@click.option("--kind", type=SLUG)
@click.option("--version", type=VERSION, help="As its manager reported it.")
@click.option("--licence", "licence_id", type=ID, help="Only those under this licence.")
@click.option("--retired", is_flag=True, help="Those, too.")
@page_options()
@admin_options
def workload_list(*, slug: str | None, after: str | None, limit: int, asked: Asked, **narrowed: Any) -> None:
    """List workloads by age."""

    async def work(desk: Desk) -> list[WorkloadRecord]:
        project_id = None if slug is None else (await desk.project(slug)).project_id
        which = WorkloadFilter(project_id=project_id, **narrowed)
        places = await desk.stores.fleet.workload_places(EVERYTHING, which, after=after, limit=limit + 1)
        return await desk.stores.fleet.workloads([one.id for one in places])

    def row(one: WorkloadRecord) -> Row:
        if asked.as_json:
            return described(one)
        kept = ("workload_id", "node_id", "slot", "name", "kind", "licence_id", "running_version")
        return {name: value for name, value in described(one).items() if name in kept}

    asked.show_page("workloads", asked.run(work), limit, row, lambda one: one.workload_id)


@workload.command(name="show")
@click.argument("workload_id", type=ID)
@admin_options
def workload_show(*, workload_id: str, asked: Asked) -> None:
    """Show a workload as it is registered."""

    async def work(desk: Desk) -> WorkloadRecord:
        return await desk.workload(workload_id)

    asked.show(described(asked.run(work)))


@workload.command(name="change")
@click.argument("workload_id", type=ID)
@click.option("--name", type=NAME)
@click.option("--kind", type=SLUG, help="Another thing to run: its manager is told.")
@admin_options
def workload_change(*, workload_id: str, name: str | None, kind: str | None, asked: Asked) -> None:
    """Rename a workload, or make it another kind."""
    if name is None and kind is None:
        raise click.UsageError("say what is to be changed: --name, --kind")
    _change(asked, workload_id, WorkloadChange(name=name, kind=kind))


@workload.command(name="bind")
@click.argument("workload_id", type=ID)
@click.argument("licence_id", type=ID, required=False)
@click.option("--none", "unbound", is_flag=True, help="It runs under none.")
@admin_options
def workload_bind(*, workload_id: str, licence_id: str | None, unbound: bool, asked: Asked) -> None:
    """Let a workload run under a licence of its project."""
    if (licence_id is None) != unbound:
        raise click.UsageError("either LICENCE_ID or --none")
    _change(asked, workload_id, WorkloadChange(licence_id=licence_id))


def _change(asked: Asked, workload_id: str, change: WorkloadChange) -> None:
    async def work(desk: Desk) -> WorkloadRecord:
        await desk.workload(workload_id)
        return await desk.stores.registration.change_workload(workload_id, change, act=desk.act, asker=ADMIN)

    asked.show(described(asked.run(work)))


@workload.command(name="restart")
@click.argument("workload_id", type=ID)
@admin_options
def workload_restart(*, workload_id: str, asked: Asked) -> None:
    """Order a restart: its manager hears of it with its next beat, and a window excuses it."""

    async def work(desk: Desk) -> int:
        restarts = await desk.stores.orders.order_restart(desk.act, workload_id)
        return there(restarts, f"workload {workload_id}", "workload list")

    asked.show({"workload_id": workload_id, "restarts": asked.run(work)})


@workload.command(name="retire")
@click.argument("workload_id", type=ID)
@destructive("This workload is no longer expected, for good. Retire?")
@admin_options
def workload_retire(*, workload_id: str, asked: Asked) -> None:
    """End a workload's life; its history stays."""

    async def work(desk: Desk) -> WorkloadRecord:
        before = await desk.workload(workload_id)
        if before.retired_ms is not None:
            raise click.ClickException(f"there is no living workload {workload_id}")
        return await desk.stores.registration.retire_workload(workload_id, act=desk.act)

    asked.show({"workload_id": asked.run(work).workload_id, "retired": True})
