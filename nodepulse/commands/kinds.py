"""`admin kind`: what runs on nodes. A kind's versions are versions.py's."""

from __future__ import annotations

from typing import Any

import click
from msgspec import UNSET

from engine.core.catalog import KindRecord
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, page_options, there
from nodepulse.commands.reading import NAME, SLUG, VERSION


def described(kind: KindRecord) -> Row:
    return {
        "kind": kind.slug,
        "kind_id": kind.kind_id,
        "name": kind.name,
        "minimum_version": kind.minimum_version,
        "created_at": at(kind.created_ms),
        "retired_at": at(kind.retired_ms),
    }


@click.group()
def kind() -> None:
    """Workload kinds of a project."""


@kind.command(name="create")
@click.argument("slug", metavar="KIND", type=SLUG)
@click.option("--project", type=SLUG, required=True)
@click.option("--name", type=NAME, default="")
@admin_options
def kind_create(*, slug: str, project: str, name: str, asked: Asked) -> None:
    """Make a workload kind."""

    async def work(desk: Desk) -> KindRecord:
        project_id = (await desk.project(project)).project_id
        return await desk.stores.catalog.create_kind(desk.act, project_id, slug=slug, name=name)

    asked.show(described(asked.run(work)))


@kind.command(name="list")
@click.option("--project", type=SLUG, required=True)
@page_options()
@admin_options
def kind_list(*, project: str, after: str | None, limit: int, asked: Asked) -> None:
    """List the kinds of a project by age."""

    async def work(desk: Desk) -> list[KindRecord]:
        project_id = (await desk.project(project)).project_id
        return await desk.stores.catalog.kinds(project_id, after=after, limit=limit + 1)

    asked.show_page("kinds", asked.run(work), limit, described, lambda one: one.kind_id)


@kind.command(name="change")
@click.argument("slug", metavar="KIND", type=SLUG)
@click.option("--project", type=SLUG, required=True)
@click.option("--name", type=NAME)
@click.option("--minimum-version", "minimum", type=VERSION, help="No node is asked to run less.")
@click.option("--no-minimum-version", "no_minimum", is_flag=True)
@click.option("--retired/--not-retired", default=None, help="A retired kind gets no more versions.")
@admin_options
def kind_change(
    *, slug: str, project: str, minimum: str | None, no_minimum: bool, asked: Asked, **change: Any
) -> None:
    """Rename a kind, choose its minimum version, retire it; what is not named stays as it is."""
    if minimum is not None and no_minimum:
        raise click.UsageError("either --minimum-version or --no-minimum-version")
    least = None if no_minimum else UNSET if minimum is None else minimum
    if least is UNSET and set(change.values()) == {None}:
        raise click.UsageError("say what is to be changed: --name, --minimum-version, --retired")

    async def work(desk: Desk) -> KindRecord:
        found = await desk.kind(project, slug)
        changed = await desk.stores.catalog.change_kind(
            desk.act, found.kind_id, minimum_version=least, **change
        )
        return there(changed, f"kind {slug} in {project}", f"kind list --project {project}")

    asked.show(described(asked.run(work)))
