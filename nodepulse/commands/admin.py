"""`admin`: projects, keys, channels, and whole networks at once. Single nodes and workloads: registry.py.

Secrets (private keys, API keys, webhook secrets) are printed once, when they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from engine.core.ports import Project
from nodepulse.commands.options import Sources, config_options, slug_option
from nodepulse.commands.output import json_option, print_json, show
from nodepulse.commands.registry import check, node, window, workload
from nodepulse.commands.stores import now_ms, on_stores, project_of
from nodepulse.config import Config
from nodepulse.provision import provision
from storage.open import Stores
from storage.tokens import new_api_key, new_webhook_secret


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every admin command takes."""
    return config_options(json_option(command))


@click.group()
def admin() -> None:
    """Projects, nodes, workloads, keys, channels, windows. `serve` must be running on the data folder."""


for inner in (node, workload, check, window):
    admin.add_command(inner)


@admin.command(name="provision")
@click.option("--project", callback=slug_option, required=True, help="Made when absent.")
@click.option("--nodes", type=click.IntRange(1), required=True)
@click.option("--workloads", type=click.IntRange(0, 64), required=True, help="Of each node.")
@click.option("--interval-ms", type=click.IntRange(1_000), default=60_000, show_default=True)
@admin_options
def provision_command(
    *, project: str, nodes: int, workloads: int, interval_ms: int, as_json: bool, sources: Sources
) -> None:
    """Make nodes with their keys and workloads, and an API key of the project."""

    async def work(stores: Stores, _config: Config) -> dict[str, Any]:
        return await provision(
            stores.directory,
            project=project,
            nodes=nodes,
            workloads=workloads,
            interval_ms=interval_ms,
            now_ms=now_ms(),
        )

    made = on_stores(sources, work)
    if as_json:
        print_json(made)
        return
    show({"project": made["project"], "api_key": made["api_key"]}, as_json=False)
    for one in made["nodes"]:
        show(one, as_json=False)


@admin.group()
def project() -> None:
    """Projects: who owns nodes and takes points."""


@project.command(name="create")
@click.argument("slug", callback=slug_option)
@admin_options
def project_create(*, slug: str, as_json: bool, sources: Sources) -> None:
    """Make a project; one that exists is told."""

    async def work(stores: Stores, _config: Config) -> Project:
        return await stores.directory.create_project(slug, now_ms=now_ms())

    made = on_stores(sources, work)
    show({"project": made.slug, "project_id": made.project_id}, as_json=as_json)


@admin.group()
def key() -> None:
    """API keys."""


@key.command(name="create")
@click.option("--project", "slug", callback=slug_option, help="The key speaks for this project.")
@click.option("--admin", "is_admin", is_flag=True, help="The key speaks for the whole installation.")
@click.option("--name", default="", help="For people: where it is used.")
@admin_options
def key_create(*, slug: str | None, is_admin: bool, name: str, as_json: bool, sources: Sources) -> None:
    """Make an API key and print it: the only time it can be seen."""
    if is_admin == (slug is not None):
        raise click.UsageError("either --project SLUG or --admin")
    text, key_sha256 = new_api_key()

    async def work(stores: Stores, _config: Config) -> str:
        found = await project_of(stores, slug) if slug is not None else None
        return await stores.directory.create_key(
            scope="admin" if found is None else "project",
            project_id=None if found is None else found.project_id,
            key_sha256=key_sha256,
            name=name,
            now_ms=now_ms(),
        )

    key_id = on_stores(sources, work)
    show({"key_id": key_id, "api_key": text, "project": slug, "name": name}, as_json=as_json)


@key.command(name="revoke")
@click.argument("key_id")
@admin_options
def key_revoke(*, key_id: str, as_json: bool, sources: Sources) -> None:
    """Make an API key worthless, within a second."""

    async def work(stores: Stores, _config: Config) -> bool:
        return await stores.directory.revoke_key(key_id, now_ms=now_ms())

    if not on_stores(sources, work):
        raise click.ClickException(f"there is no key {key_id} that still works")
    show({"key_id": key_id, "revoked": True}, as_json=as_json)


@admin.group()
def channel() -> None:
    """Where notices of a project go."""


@channel.command(name="add")
@click.argument("kind", type=click.Choice(["webhook", "mail"]))
@click.argument("target")
@click.option("--project", "slug", callback=slug_option, required=True)
@click.option("--secret", default="", help="Of a webhook: whsec_ and base64; made when left out.")
@admin_options
def channel_add(*, kind: str, target: str, slug: str, secret: str, as_json: bool, sources: Sources) -> None:
    """Send notices of a project to a URL (signed, Standard Webhooks) or a mail address."""
    _check_target(kind, target)
    if kind == "webhook" and not secret:
        secret = new_webhook_secret()

    async def work(stores: Stores, _config: Config) -> dict[str, Any]:
        found = await project_of(stores, slug)
        made = await stores.outbox.add_channel(
            found.project_id, kind=kind, target=target, secret=secret, now_ms=now_ms()
        )
        return {"channel_id": made.channel_id, "kind": kind, "target": target, "secret": secret or None}

    show(on_stores(sources, work), as_json=as_json)


def _check_target(kind: str, target: str) -> None:
    if kind == "webhook" and not target.startswith(("http://", "https://")):
        raise click.UsageError(f"{target!r} is no http or https URL")
    if kind == "mail" and "@" not in target:
        raise click.UsageError(f"{target!r} is no mail address")
