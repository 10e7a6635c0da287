"""`admin release`: versions of the manager itself, which managers fetch to update themselves."""

from __future__ import annotations

import click

from engine.core.catalog import ReleaseRecord
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, destructive, page_options, there
from nodepulse.commands.reading import PERCENT, SHA256, SIGNATURE, URL, VERSION


def described(release: ReleaseRecord) -> Row:
    return {
        "version": release.version,
        "url": release.url,
        "sha256": release.sha256,
        "signature": release.signature,
        "rollout_percent": release.rollout_percent,
        "created_at": at(release.created_ms),
        "withdrawn_at": at(release.withdrawn_ms),
    }


@click.group()
def release() -> None:
    """Versions of the manager itself."""


@release.command(name="publish")
@click.argument("version", type=VERSION)
@click.option("--url", type=URL, required=True, help="Where it can be fetched.")
@click.option("--sha256", type=SHA256, required=True, help="Of what lies there.")
@click.option("--signature", type=SIGNATURE, required=True, help="The publisher's; told on as it is.")
@click.option("--rollout", type=PERCENT, default=0, show_default=True, help="Percent of all nodes.")
@admin_options
def release_publish(
    *, version: str, url: str, sha256: str, signature: str, rollout: int, asked: Asked
) -> None:
    """Publish a release of the manager."""

    async def work(desk: Desk) -> ReleaseRecord:
        return await desk.stores.releases.create_release(
            desk.act, version=version, url=url, sha256=sha256, signature=signature, rollout_percent=rollout
        )

    asked.show(described(asked.run(work)))


@release.command(name="list")
@page_options(VERSION)
@admin_options
def release_list(*, after: str | None, limit: int, asked: Asked) -> None:
    """List releases in the order of their texts."""

    async def work(desk: Desk) -> list[ReleaseRecord]:
        return await desk.stores.releases.releases(after=after, limit=limit + 1)

    asked.show_page("releases", asked.run(work), limit, described, lambda one: one.version)


@release.command(name="rollout")
@click.argument("version", type=VERSION)
@click.argument("percent", type=PERCENT)
@admin_options
def release_rollout(*, version: str, percent: int, asked: Asked) -> None:
    """Roll a release out to so many percent of all nodes, or back."""
    _change(asked, version, rollout_percent=percent)


@release.command(name="withdraw")
@click.argument("version", type=VERSION)
@click.option("--undo", is_flag=True, help="Offer it again.")
@destructive("Managers are offered it no more. Go on?")
@admin_options
def release_withdraw(*, version: str, undo: bool, asked: Asked) -> None:
    """Offer a release no more."""
    _change(asked, version, withdrawn=not undo)


def _change(
    asked: Asked, version: str, *, rollout_percent: int | None = None, withdrawn: bool | None = None
) -> None:
    async def work(desk: Desk) -> ReleaseRecord:
        changed = await desk.stores.releases.change_release(
            desk.act, version, rollout_percent=rollout_percent, withdrawn=withdrawn
        )
        return there(changed, f"release {version}", "release list")

    asked.show(described(asked.run(work)))
