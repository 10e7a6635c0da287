"""`admin collection`: contracts whose tokens are licences, or only balances, and how far they were read."""

from __future__ import annotations

from typing import Any, get_args

import click

from engine.core.inventory import Collection, CollectionChange, NewCollection, Preset, Standard
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, page_options, there
from nodepulse.commands.reading import ID, NAME, SLUG, SUBGRAPH, WALLET

CHAIN_ID_MAX = (1 << 53) - 1
PRESETS = click.Choice(get_args(Preset))


def described(collection: Collection) -> Row:
    return {
        "collection_id": collection.collection_id,
        "project_id": collection.project_id,
        "chain_id": collection.chain_id,
        "contract": collection.contract,
        "standard": collection.standard,
        "name": collection.name,
        "subgraph_url": collection.subgraph_url,
        "preset": collection.preset,
        "created_at": at(collection.created_ms),
        "retired_at": at(collection.retired_ms),
    }


@click.group()
def collection() -> None:
    """Contracts whose tokens are licences, and how far they were read."""


@collection.command(name="add")
@click.option("--project", type=SLUG, required=True)
@click.option("--chain-id", type=click.IntRange(1, CHAIN_ID_MAX), required=True, help="EIP-155 number.")
@click.option("--contract", type=WALLET, required=True, help="0x and 40 hex digits.")
@click.option("--standard", type=click.Choice(get_args(Standard)), default="erc721", show_default=True)
@click.option("--name", type=NAME, default="")
@click.option("--subgraph-url", type=SUBGRAPH, default="", help="Empty: the installation's own.")
@click.option("--preset", type=PRESETS, default="", help="Empty: the installation's own.")
@admin_options
def collection_add(*, project: str, asked: Asked, **new: Any) -> None:
    """Follow a contract; it is read soon."""

    async def work(desk: Desk) -> Collection:
        project_id = (await desk.project(project)).project_id
        return await desk.stores.inventory.add_collection(
            NewCollection(project_id=project_id, **new), act=desk.act
        )

    asked.show(described(asked.run(work)))


@collection.command(name="list")
@click.option("--project", type=SLUG, required=True)
@page_options()
@admin_options
def collection_list(*, project: str, after: str | None, limit: int, asked: Asked) -> None:
    """List a project's collections by age."""

    async def work(desk: Desk) -> list[Collection]:
        project_id = (await desk.project(project)).project_id
        return await desk.stores.inventory.collections(project_id, after=after, limit=limit + 1)

    asked.show_page("collections", asked.run(work), limit, described, lambda one: one.collection_id)


@collection.command(name="sync-status")
@click.option("--project", type=SLUG, required=True)
@page_options()
@admin_options
def collection_sync_status(*, project: str, after: str | None, limit: int, asked: Asked) -> None:
    """Tell how far each collection was read, how old that is, and what is wrong."""

    async def work(desk: Desk) -> tuple[list[Collection], int, float]:
        project_id = (await desk.project(project)).project_id
        found = await desk.stores.inventory.collections(project_id, after=after, limit=limit + 1)
        return found, desk.act.now_ms, desk.config.web.ownership_stale_s

    found, now_ms, stale_s = asked.run(work)

    def row(one: Collection) -> Row:
        age_ms = None if one.block_ms is None else max(0, now_ms - one.block_ms)
        return {
            "collection_id": one.collection_id,
            "name": one.name,
            "synced_block": one.synced_block,
            "block_time": at(one.block_ms),
            "checked_at": at(one.checked_ms),
            "swept_at": at(one.swept_ms),
            "age_ms": age_ms,
            "stale": age_ms is None or age_ms > stale_s * 1000,
            "error": one.sync_error,
        }

    asked.show_page("collections", found, limit, row, lambda one: one.collection_id)


@collection.command(name="change")
@click.argument("collection_id", type=ID)
@click.option("--name", type=NAME)
@click.option("--subgraph-url", type=SUBGRAPH, help="Everything is read again from there.")
@click.option("--preset", type=PRESETS)
@click.option("--retired/--not-retired", default=None, help="Read no more; its licences stay as they are.")
@admin_options
def collection_change(*, collection_id: str, asked: Asked, **change: Any) -> None:
    """Rename a collection, read it from elsewhere, retire it; what is not named stays as it is."""
    if set(change.values()) == {None}:
        raise click.UsageError("say what is to be changed: --name, --subgraph-url, --preset, --retired")

    async def work(desk: Desk) -> Collection:
        wanted = CollectionChange(**change)
        changed = await desk.stores.inventory.change_collection(collection_id, wanted, act=desk.act)
        return there(changed, f"collection {collection_id}", "collection list --project SLUG")

    asked.show(described(asked.run(work)))
