"""`admin licence`: licences, who held them, and who owned them when, as far as the chain was read."""

from __future__ import annotations

import click

from engine.core.inventory import SINCE_EVER, Licence, LicenceFilter, Ownership
from engine.core.leases import LeaseSpan
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, page_options, there
from nodepulse.commands.reading import ID, SLUG, TIME, WALLET

_EPOCH_MAX = 2**31 - 1


def described(licence: Licence) -> Row:
    return {
        "licence_id": licence.licence_id,
        "collection_id": licence.collection_id,
        "project_id": licence.project_id,
        "token_id": str(licence.token_id),
        "owner": licence.owner,
        "workload_ids": list(licence.workload_ids),
        "created_at": at(licence.created_ms),
        "retired_at": at(licence.retired_ms),
    }


@click.group()
def licence() -> None:
    """Licences, and who owned them when."""


@licence.command(name="list")
@click.option("--project", type=SLUG, help="Only those of this project.")
@click.option("--owner", type=WALLET, help="Only those that this wallet owns.")
@click.option("--collection", "collection_id", type=ID, help="Only those of this collection.")
@click.option("--bound/--free", default=None, help="Only those that workloads run under, or none.")
@page_options()
@admin_options
def licence_list(
    *,
    project: str | None,
    owner: str | None,
    collection_id: str | None,
    bound: bool | None,
    after: str | None,
    limit: int,
    asked: Asked,
) -> None:
    """List licences and their last known owners."""

    async def work(desk: Desk) -> list[Licence]:
        which = LicenceFilter(
            project_id=None if project is None else (await desk.project(project)).project_id,
            owner=owner,
            collection_id=collection_id,
            bound=bound,
        )
        return await desk.stores.inventory.licences(which, after=after, limit=limit + 1)

    asked.show_page("licences", asked.run(work), limit, described, lambda one: one.licence_id)


@licence.command(name="show")
@click.argument("licence_id", type=ID)
@admin_options
def licence_show(*, licence_id: str, asked: Asked) -> None:
    """Show a licence, its last known owner, and as of when that is known."""

    async def work(desk: Desk) -> Row:
        found = await _licence(desk, licence_id)
        collection = await desk.stores.inventory.collection(found.collection_id)
        assert collection is not None  # a licence is of one
        return {**described(found), "known_at": at(collection.block_ms), "error": collection.sync_error}

    asked.show(asked.run(work))


@licence.command(name="leases")
@click.argument("licence_id", type=ID)
@page_options(click.IntRange(0, _EPOCH_MAX))
@admin_options
def licence_leases(*, licence_id: str, after: int | None, limit: int, asked: Asked) -> None:
    """List which run held a licence when; `--after` is an epoch."""

    async def work(desk: Desk) -> list[LeaseSpan]:
        found = await _licence(desk, licence_id)
        return await desk.stores.leases.history(
            found.licence_id, after_epoch=0 if after is None else after, limit=limit + 1
        )

    asked.show_page("leases", asked.run(work), limit, _lease, lambda one: str(one.epoch))


def _lease(lease: LeaseSpan) -> Row:
    return {
        "epoch": lease.epoch,
        "holder_id": lease.holder_id,
        "from": at(lease.from_ms),
        "to": at(lease.to_ms),
        "ended": lease.ended or None,
    }


@licence.command(name="owners")
@click.argument("licence_id", type=ID)
@click.option("--at", "at_ms", type=TIME, metavar="TIME", help="Only who owned it then (RFC 3339).")
@page_options(click.INT)
@admin_options
def licence_owners(
    *, licence_id: str, at_ms: int | None, after: int | None, limit: int, asked: Asked
) -> None:
    """List who owned a licence when, by the time of blocks; times in which nobody did are left out."""

    async def work(desk: Desk) -> list[Ownership]:
        await _licence(desk, licence_id)
        if at_ms is not None:
            one = await desk.stores.inventory.owner_at(licence_id, at_ms)
            return [] if one is None else [one]
        after_ms = -1 if after is None else after
        return await desk.stores.inventory.owners(licence_id, after_ms=after_ms, limit=limit + 1)

    asked.show_page("owners", asked.run(work), limit, _owner, lambda one: str(one.from_ms))


def _owner(one: Ownership) -> Row:
    ever = one.from_ms == SINCE_EVER
    return {
        "owner": one.owner,
        "from": None if ever else at(one.from_ms),
        "to": at(one.to_ms),
        "block": None if ever else one.from_block,
    }


async def _licence(desk: Desk, licence_id: str) -> Licence:
    found = await desk.stores.inventory.licence(licence_id)
    return there(found, f"licence {licence_id}", "licence list")
