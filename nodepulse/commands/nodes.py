"""`admin node`: single machines. Their private keys are printed once, when they are made, and kept nowhere.

Whole networks at once: provisioning.py. What runs on a node: workloads.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click
from msgspec import UNSET

from engine.core.fleet import NodeFilter, Sight
from engine.core.ports import NodeRecord
from engine.core.registration import Asker, NewMachine, NewWorkload, NodeChange
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at, destructive, page_options
from nodepulse.commands.reading import ID, NAME, PUBLIC_KEY, REGION, SLUG, WHO
from nodepulse.provision import new_node_key

# Whoever may reach the stores may see everything, and bind any licence of a project.
EVERYTHING = Sight(everything=True)
ADMIN = Asker(user_id=None, runs_project=True, admin=True)


def described(node: NodeRecord) -> Row:
    return {
        "node_id": node.node_id,
        "row": node.row,
        "kind": node.kind,
        "name": node.name,
        "interval_ms": node.interval_ms,
        "revoked": node.revoked,
        "workloads": list(node.workload_ids),
        "project_id": node.project_id,
        "owner_id": node.owner_id,
        "region": node.region,
        "public_key": None if node.public_key is None else node.public_key.hex(),
        "manager_version": node.manager_version,
        "partner_node_id": node.partner_node_id,
        "created_at": at(node.created_ms),
        "retired_at": at(node.retired_ms),
    }


@click.group()
def node() -> None:
    """Nodes: machines with a key of their own."""


@node.command(name="create")
@click.option("--project", "slug", required=True)
@click.option("--name", type=NAME, default="node", show_default=True)
@click.option("--workloads", "count", type=click.IntRange(0, 64), help="Of no kind; 1 if nothing is said.")
@click.option(
    "--workload", "runs", multiple=True, metavar="KIND[:NAME[:LICENCE_ID]]", help="Of a kind; repeatable."
)
@click.option("--interval-ms", type=click.IntRange(1_000, 3_600_000), default=60_000, show_default=True)
@click.option("--owner", "who", type=WHO, help="Whose machine it is: id, wallet or mail address.")
@click.option("--region", type=REGION, default="")
@click.option("--public-key", type=PUBLIC_KEY, help="Ed25519, 32 bytes hex, of a node that has a key.")
@admin_options
def node_create(
    *,
    slug: str,
    name: str,
    count: int | None,
    runs: tuple[str, ...],
    interval_ms: int,
    who: str | None,
    region: str,
    public_key: bytes | None,
    asked: Asked,
) -> None:
    """Register a node with its workloads; without --public-key a key pair is made and printed."""
    workloads = _workloads(count, runs)
    seed, public = (None, public_key) if public_key is not None else new_node_key()

    async def work(desk: Desk) -> NodeRecord:
        new = NewMachine(
            project_id=(await desk.project(slug)).project_id,
            name=name,
            public_key=public,
            interval_ms=interval_ms,
            owner_id=None if who is None else (await desk.person(who)).user_id,
            region=region,
            workloads=workloads,
        )
        return await desk.stores.registration.register(new, act=desk.act, asker=ADMIN)

    made = asked.run(work)
    asked.show({"node_id": made.node_id, "private_key": seed, "workloads": list(made.workload_ids)})


def _workloads(count: int | None, runs: tuple[str, ...]) -> tuple[NewWorkload, ...]:
    """Those of no kind first. UsageError."""
    bare = count if count is not None else 0 if runs else 1
    if bare + len(runs) > 64:
        raise click.UsageError("a node has 64 workloads at most: register a further node key")
    named = [NewWorkload(None, f"workload-{slot}") for slot in range(bare)]
    for text in runs:
        kind, _, rest = text.partition(":")
        name, _, licence = rest.partition(":")
        kind = SLUG.convert(kind, None, None)
        licence_id = ID.convert(licence, None, None) if licence else None
        named.append(NewWorkload(kind, NAME.convert(name or kind, None, None), licence_id))
    return tuple(named)


@node.command(name="list")
@click.option("--project", "slug", help="Only nodes of this project.")
@click.option("--owner", "who", type=WHO, help="Only this person's.")
@click.option("--region", type=REGION)
@click.option("--kind", type=click.Choice(["node", "check", "canary"]))
@click.option("--manager-version", "version", type=NAME, help="Of the newest session.")
@click.option("--prefix", type=NAME, help="What the name begins with.")
@click.option("--retired", is_flag=True, help="Those, too.")
@page_options()
@admin_options
def node_list(
    *, slug: str | None, who: str | None, after: str | None, limit: int, asked: Asked, **narrowed: Any
) -> None:
    """List nodes by age."""

    async def work(desk: Desk) -> list[NodeRecord]:
        which = NodeFilter(
            project_id=None if slug is None else (await desk.project(slug)).project_id,
            owner_id=None if who is None else (await desk.person(who)).user_id,
            **narrowed,
        )
        places = await desk.stores.fleet.node_places(EVERYTHING, which, after=after, limit=limit + 1)
        return await desk.stores.fleet.nodes([one.id for one in places])

    def row(one: NodeRecord) -> Row:
        if asked.as_json:
            return described(one)
        kept = ("node_id", "row", "kind", "name", "interval_ms", "revoked", "workloads", "region")
        short = {**described(one), "workloads": len(one.workload_ids)}
        return {name: short[name] for name in kept}

    asked.show_page("nodes", asked.run(work), limit, row, lambda one: one.node_id)


@node.command(name="show")
@click.argument("node_id", type=ID)
@admin_options
def node_show(*, node_id: str, asked: Asked) -> None:
    """Show a node as it is registered."""

    async def work(desk: Desk) -> NodeRecord:
        return await desk.node(node_id)

    asked.show(described(asked.run(work)))


@node.command(name="rename")
@click.argument("node_id", type=ID)
@click.argument("name", type=NAME)
@admin_options
def node_rename(*, node_id: str, name: str, asked: Asked) -> None:
    """Give a node another name."""

    async def change(desk: Desk) -> NodeRecord:
        return await desk.stores.registration.change_node(node_id, NodeChange(name=name), act=desk.act)

    asked.show(described(_changed(asked, node_id, change)))


@node.command(name="change")
@click.argument("node_id", type=ID)
@click.option("--region", type=REGION)
@click.option("--owner", "who", type=WHO, help="Whose machine it is: id, wallet or mail address.")
@click.option("--no-owner", is_flag=True, help="Nobody's.")
@admin_options
def node_change(*, node_id: str, region: str | None, who: str | None, no_owner: bool, asked: Asked) -> None:
    """Move a node to another region, or to another person."""
    if (who is not None) + no_owner > 1:
        raise click.UsageError("either --owner or --no-owner")
    if region is None and who is None and not no_owner:
        raise click.UsageError("say what is to be changed: --region, --owner, --no-owner")

    async def change(desk: Desk) -> NodeRecord:
        owner_id = UNSET if who is None else (await desk.person(who)).user_id
        wanted = NodeChange(region=region, owner_id=None if no_owner else owner_id)
        return await desk.stores.registration.change_node(node_id, wanted, act=desk.act)

    asked.show(described(_changed(asked, node_id, change)))


@node.command(name="rekey")
@click.argument("node_id", type=ID)
@click.option("--public-key", type=PUBLIC_KEY, help="Ed25519, 32 bytes hex; else a key pair is made.")
@destructive("All sessions of this node end until its manager has the new key. Go on?")
@admin_options
def node_rekey(*, node_id: str, public_key: bytes | None, asked: Asked) -> None:
    """Give a node another key; its sessions end within a second."""
    seed, public = (None, public_key) if public_key is not None else new_node_key()

    async def change(desk: Desk) -> NodeRecord:
        return await desk.stores.registration.rekey(node_id, public, act=desk.act)

    made = _changed(asked, node_id, change)
    asked.show({"node_id": made.node_id, "private_key": seed, "public_key": public.hex()})


@node.command(name="revoke")
@click.argument("node_id", type=ID)
@destructive("This node's key is refused for good. Revoke?")
@admin_options
def node_revoke(*, node_id: str, asked: Asked) -> None:
    """Kill a node's sessions and refuse it from now on; everywhere within a second."""

    async def change(desk: Desk) -> NodeRecord:
        return await desk.stores.registration.revoke(node_id, act=desk.act)

    asked.show({"node_id": _changed(asked, node_id, change).node_id, "revoked": True})


@node.command(name="retire")
@click.argument("node_id", type=ID)
@destructive("This node and its workloads are no longer expected, for good. Retire?")
@admin_options
def node_retire(*, node_id: str, asked: Asked) -> None:
    """End the life of a node and of its workloads; what they did stays."""

    async def change(desk: Desk) -> NodeRecord:
        return await desk.stores.registration.retire_node(node_id, act=desk.act)

    made = _changed(asked, node_id, change)
    asked.show({"node_id": made.node_id, "retired": True, "retired_at": at(made.retired_ms)})


def _changed(asked: Asked, node_id: str, change: Callable[[Desk], Awaitable[NodeRecord]]) -> NodeRecord:
    """The node after a change. ClickException when there is none."""

    async def work(desk: Desk) -> NodeRecord:
        await desk.node(node_id)
        return await change(desk)

    return asked.run(work)
