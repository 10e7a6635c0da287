"""`admin version`: what may run of a kind, and on how many of the nodes. The manager's own: releases.py."""

from __future__ import annotations

from pathlib import Path

import click

from engine.core.catalog import KindRecord, VersionRecord
from nodepulse.commands.acting import (
    Asked,
    Command,
    Desk,
    Row,
    admin_options,
    at,
    destructive,
    page_options,
    read_text,
    there,
)
from nodepulse.commands.reading import PERCENT, SLUG, VERSION


def described(version: VersionRecord) -> Row:
    return {
        "version_id": version.version_id,
        "version": version.version,
        "digest": version.digest,
        "rollout_percent": version.rollout_percent,
        "created_at": at(version.created_ms),
        "withdrawn_at": at(version.withdrawn_ms),
    }


def kind_options(command: Command) -> Command:
    """Add --project and --kind, whose versions they are."""
    kind = click.option("--kind", type=SLUG, required=True, help="Whose version it is.")
    project = click.option("--project", type=SLUG, required=True)
    return project(kind(command))


@click.group()
def version() -> None:
    """Versions of a kind, and how far each is rolled out."""


@version.command(name="publish")
@click.argument("text", metavar="VERSION", type=VERSION)
@click.argument("manifest", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--rollout", type=PERCENT, default=0, show_default=True, help="Percent of the nodes.")
@kind_options
@admin_options
def version_publish(
    *, text: str, manifest: Path, rollout: int, project: str, kind: str, asked: Asked
) -> None:
    """Offer a version with its manifest: a file that is one JSON object, or - for standard input."""
    from web.versions import MANIFEST_BYTES_MAX, manifest_fault

    content = read_text(manifest, bytes_max=MANIFEST_BYTES_MAX)
    if fault := manifest_fault(content):
        raise click.ClickException(f"{manifest}: {fault}")

    async def work(desk: Desk) -> VersionRecord:
        of = await desk.kind(project, kind)
        return await desk.stores.catalog.create_version(
            desk.act, of.kind_id, version=text, manifest=content, rollout_percent=rollout
        )

    asked.show(described(asked.run(work)))


@version.command(name="list")
@kind_options
@page_options()
@admin_options
def version_list(*, project: str, kind: str, after: str | None, limit: int, asked: Asked) -> None:
    """List versions in the order in which they were made, without their manifests."""

    async def work(desk: Desk) -> list[VersionRecord]:
        of = await desk.kind(project, kind)
        return await desk.stores.catalog.versions(of.kind_id, after=after, limit=limit + 1)

    asked.show_page("versions", asked.run(work), limit, described, lambda one: one.version_id)


@version.command(name="show")
@click.argument("text", metavar="VERSION", type=VERSION)
@kind_options
@admin_options
def version_show(*, text: str, project: str, kind: str, asked: Asked) -> None:
    """Show a version with its manifest."""

    async def work(desk: Desk) -> VersionRecord:
        return await _version(desk, await desk.kind(project, kind), text)

    found = asked.run(work)
    asked.show({**described(found), "manifest": found.manifest})


@version.command(name="rollout")
@click.argument("text", metavar="VERSION", type=VERSION)
@click.argument("percent", type=PERCENT)
@kind_options
@admin_options
def version_rollout(*, text: str, percent: int, project: str, kind: str, asked: Asked) -> None:
    """Roll a version out to so many percent of the nodes, or back; those of 10 are among those of 50."""
    _change(asked, project, kind, text, rollout_percent=percent)


@version.command(name="withdraw")
@click.argument("text", metavar="VERSION", type=VERSION)
@click.option("--undo", is_flag=True, help="Offer it again.")
@kind_options
@destructive("Nodes that run it are asked to run another one. Go on?")
@admin_options
def version_withdraw(*, text: str, undo: bool, project: str, kind: str, asked: Asked) -> None:
    """Offer a version no more; managers that run it are given another one."""
    _change(asked, project, kind, text, withdrawn=not undo)


def _change(
    asked: Asked,
    project: str,
    kind: str,
    text: str,
    *,
    rollout_percent: int | None = None,
    withdrawn: bool | None = None,
) -> None:
    async def work(desk: Desk) -> VersionRecord:
        found = await _version(desk, await desk.kind(project, kind), text)
        changed = await desk.stores.catalog.change_version(
            desk.act, found.version_id, rollout_percent=rollout_percent, withdrawn=withdrawn
        )
        assert changed is not None  # versions are never deleted
        return changed

    asked.show(described(asked.run(work)))


async def _version(desk: Desk, of: KindRecord, text: str) -> VersionRecord:
    found = await desk.stores.catalog.version(of.kind_id, text)
    return there(found, f"version {text} of {of.slug}", f"version list --kind {of.slug}")
