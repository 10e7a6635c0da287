"""`admin project`: projects and who owns them; their policies are policies.py's, joined here."""

from __future__ import annotations

import click

from engine.core.catalog import OwnerRecord, ProjectRecord, TakenError
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
from nodepulse.commands.options import slug_option
from nodepulse.commands.policies import policy
from nodepulse.commands.reading import NAME, SLUG, WHO


def described(project: ProjectRecord) -> Row:
    return {
        "project": project.slug,
        "project_id": project.project_id,
        "name": project.name,
        "created_at": at(project.created_ms),
        "retired_at": at(project.retired_ms),
    }


async def make_project(desk: Desk, slug: str, *, name: str) -> ProjectRecord:
    """The project of this slug, made when absent."""
    try:
        return await desk.stores.projects.create_project(desk.act, slug=slug, name=name)
    except TakenError:
        return await project_of(desk, slug)


async def project_of(desk: Desk, slug: str) -> ProjectRecord:
    """All that is known of a project. ClickException."""
    found = await desk.stores.projects.project((await desk.project(slug)).project_id)
    return there(found, f"project {slug}", "project list")


@click.group()
def project() -> None:
    """Projects, who owns them, and what holds for them when."""


@project.command(name="create")
@click.argument("slug", callback=slug_option)
@click.option("--name", type=NAME, default="")
@admin_options
def project_create(*, slug: str, name: str, asked: Asked) -> None:
    """Make a project; one that exists is told."""

    async def work(desk: Desk) -> ProjectRecord:
        return await make_project(desk, slug, name=name)

    made = asked.run(work)
    asked.show({"project": made.slug, "project_id": made.project_id})


@project.command(name="list")
@page_options()
@admin_options
def project_list(*, after: str | None, limit: int, asked: Asked) -> None:
    """List projects by age, also those that are retired."""

    async def work(desk: Desk) -> list[ProjectRecord]:
        return await desk.stores.projects.projects(only=None, after=after, limit=limit + 1)

    asked.show_page("projects", asked.run(work), limit, described, lambda one: one.project_id)


@project.command(name="show")
@click.argument("slug", type=SLUG)
@admin_options
def project_show(*, slug: str, asked: Asked) -> None:
    """Show a project."""

    async def work(desk: Desk) -> ProjectRecord:
        return await project_of(desk, slug)

    asked.show(described(asked.run(work)))


@project.command(name="change")
@click.argument("slug", type=SLUG)
@click.option("--name", type=NAME)
@click.option("--retired/--not-retired", default=None, help="Keys of a retired project do not work.")
@admin_options
def project_change(*, slug: str, name: str | None, retired: bool | None, asked: Asked) -> None:
    """Rename a project, retire it, or take that back."""
    if name is None and retired is None:
        raise click.UsageError("say what is to be changed: --name, --retired")
    _change(asked, slug, name, retired)


@project.command(name="retire")
@click.argument("slug", type=SLUG)
@destructive("Keys of this project stop working, and nothing more can be registered. Retire?")
@admin_options
def project_retire(*, slug: str, asked: Asked) -> None:
    """Retire a project: its keys stop working; what it did stays."""
    _change(asked, slug, None, retired=True)


def _change(asked: Asked, slug: str, name: str | None, retired: bool | None) -> None:
    async def work(desk: Desk) -> ProjectRecord:
        project_id = (await desk.project(slug)).project_id
        changed = await desk.stores.projects.change_project(desk.act, project_id, name=name, retired=retired)
        return there(changed, f"project {slug}", "project list")

    asked.show(described(asked.run(work)))


@project.group()
def owner() -> None:
    """People who own a project."""


project.add_command(policy)


@owner.command(name="add")
@click.argument("slug", type=SLUG)
@click.argument("who", metavar="USER", type=WHO)
@admin_options
def owner_add(*, slug: str, who: str, asked: Asked) -> None:
    """Make somebody an owner of a project."""

    async def work(desk: Desk) -> OwnerRecord:
        project_id, account = (await desk.project(slug)).project_id, await desk.person(who)
        made = await desk.stores.projects.add_owner(desk.act, project_id, account.user_id)
        return there(made, f"living user {who}", "user list")

    asked.show({**_owner(asked.run(work)), "project": slug})


@owner.command(name="remove")
@click.argument("slug", type=SLUG)
@click.argument("who", metavar="USER", type=WHO)
@destructive("This person can then neither read nor change the project. Remove?")
@admin_options
def owner_remove(*, slug: str, who: str, asked: Asked) -> None:
    """Let somebody own a project no longer."""

    async def work(desk: Desk) -> str:
        project_id, account = (await desk.project(slug)).project_id, await desk.person(who)
        removed = await desk.stores.projects.remove_owner(desk.act, project_id, account.user_id)
        return there(account.user_id if removed else None, f"owner {who} of {slug}", "project owner list")

    asked.show({"user_id": asked.run(work), "project": slug, "removed": True})


@owner.command(name="list")
@click.argument("slug", type=SLUG)
@page_options()
@admin_options
def owner_list(*, slug: str, after: str | None, limit: int, asked: Asked) -> None:
    """List who owns a project."""

    async def work(desk: Desk) -> list[OwnerRecord]:
        project_id = (await desk.project(slug)).project_id
        return await desk.stores.projects.owners(project_id, after=after, limit=limit + 1)

    asked.show_page("owners", asked.run(work), limit, _owner, lambda one: one.user_id)


def _owner(owner: OwnerRecord) -> Row:
    return {"user_id": owner.user_id, "name": owner.name, "since": at(owner.since_ms)}
