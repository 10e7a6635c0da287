"""`admin node|workload|check|window`: single entries of the registry."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from engine.core.ports import NewNode, NodeRecord
from engine.core.records import Window
from nodepulse.checks import create_check
from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import json_option, show, show_all
from nodepulse.commands.stores import now_ms, on_stores, project_of
from nodepulse.config import Config
from nodepulse.provision import new_node_key
from storage.open import Stores

LIST_MAX = 1_000
CHECK_INTERVAL_MS = 60_000


@click.group()
def node() -> None:
    """Nodes: machines with a key of their own."""


@node.command(name="create")
@click.option("--project", "slug", required=True)
@click.option("--name", default="node", show_default=True)
@click.option("--workloads", type=click.IntRange(0, 64), default=1, show_default=True)
@click.option("--interval-ms", type=click.IntRange(1_000), default=60_000, show_default=True)
@click.option("--public-key", help="Ed25519, 32 bytes hex, of a node that has a key. Else one is made.")
@json_option
@config_options
def node_create(
    *,
    slug: str,
    name: str,
    workloads: int,
    interval_ms: int,
    public_key: str | None,
    as_json: bool,
    sources: Sources,
) -> None:
    """Register a node with its workloads."""
    seed, public = (None, _public_key(public_key)) if public_key else new_node_key()
    names = tuple(f"workload-{slot}" for slot in range(workloads))

    async def work(stores: Stores, _config: Config) -> NodeRecord:
        project = await project_of(stores, slug)
        new = NewNode(project.project_id, name, "node", public, interval_ms, names)
        return (await stores.directory.create_nodes([new], now_ms=now_ms()))[0]

    made = on_stores(sources, work)
    described = {"node_id": made.node_id, "private_key": seed, "workloads": list(made.workload_ids)}
    show(described, as_json=as_json)


def _public_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise click.UsageError("--public-key is not hex") from error
    if len(key) != 32:
        raise click.UsageError(f"--public-key has {len(key)} bytes, not 32")
    return key


@node.command(name="list")
@click.option("--project", "slug")
@click.option("--after", help="Node id that the list begins after.")
@click.option("--limit", type=click.IntRange(1, LIST_MAX), default=100, show_default=True)
@json_option
@config_options
def node_list(*, slug: str | None, after: str | None, limit: int, as_json: bool, sources: Sources) -> None:
    """List nodes by age."""

    async def work(stores: Stores, _config: Config) -> list[NodeRecord]:
        project_id = None if slug is None else (await project_of(stores, slug)).project_id
        return await stores.directory.list_nodes(project_id, after=after, limit=limit)

    rows = [
        {
            "node_id": one.node_id,
            "row": one.row,
            "kind": one.kind,
            "name": one.name,
            "interval_ms": one.interval_ms,
            "revoked": one.revoked,
            "workloads": list(one.workload_ids) if as_json else len(one.workload_ids),
        }
        for one in on_stores(sources, work)
    ]
    show_all("nodes", rows, as_json=as_json)


@node.command(name="revoke")
@click.argument("node_id")
@json_option
@config_options
def node_revoke(*, node_id: str, as_json: bool, sources: Sources) -> None:
    """Kill a node's sessions and refuse it from now on; everywhere within a second."""

    async def work(stores: Stores, _config: Config) -> int | None:
        return await stores.directory.revoke_node(node_id, now_ms=now_ms())

    if on_stores(sources, work) is None:
        raise click.ClickException(f"there is no node {node_id}")
    show({"node_id": node_id, "revoked": True}, as_json=as_json)


@click.group()
def workload() -> None:
    """Workloads of nodes."""


@workload.command(name="add")
@click.argument("node_id")
@click.option("--name", default="workload", show_default=True)
@json_option
@config_options
def workload_add(*, node_id: str, name: str, as_json: bool, sources: Sources) -> None:
    """Give a node one more workload; it learns of it by RESYNC."""

    async def work(stores: Stores, _config: Config) -> dict[str, Any]:
        made = await stores.directory.add_workload(node_id, name=name, now_ms=now_ms())
        return {
            "workload_id": made.workload_id,
            "node_id": made.node_id,
            "slot": made.slot,
            "name": made.name,
        }

    show(on_stores(sources, work), as_json=as_json)


@workload.command(name="retire")
@click.argument("workload_id")
@json_option
@config_options
def workload_retire(*, workload_id: str, as_json: bool, sources: Sources) -> None:
    """End a workload's life; its history stays."""

    async def work(stores: Stores, _config: Config) -> bool:
        return await stores.directory.retire_workload(workload_id, now_ms=now_ms())

    if not on_stores(sources, work):
        raise click.ClickException(f"there is no living workload {workload_id}")
    show({"workload_id": workload_id, "retired": True}, as_json=as_json)


@click.group()
def check() -> None:
    """Things that beat alone, by a URL that they call."""


@check.command(name="create")
@click.option("--project", "slug", required=True)
@click.option("--name", required=True)
@click.option("--interval-ms", type=click.IntRange(1_000), default=CHECK_INTERVAL_MS, show_default=True)
@json_option
@config_options
def check_create(*, slug: str, name: str, interval_ms: int, as_json: bool, sources: Sources) -> None:
    """Make a stand-alone check and print its ping and push URLs. Who knows a URL can beat for it."""

    async def work(stores: Stores, config: Config) -> dict[str, Any]:
        project = await project_of(stores, slug)
        return await create_check(
            stores.directory,
            config,
            project_id=project.project_id,
            name=name,
            interval_ms=interval_ms,
            now_ms=now_ms(),
        )

    show(on_stores(sources, work), as_json=as_json)


@click.group()
def window() -> None:
    """Maintenance windows."""


@window.command(name="open")
@click.argument("node_id")
@click.option("--workload", "workload_id", help="Of this workload only; else of the whole node.")
@click.option("--from", "from_", required=True, metavar="TIME", help="RFC 3339, ahead of now.")
@click.option("--minutes", type=click.IntRange(1, 60), required=True)
@click.option("--own", is_flag=True, help="The operator's own: not paid.")
@click.option("--update", is_flag=True, help="For an ordered update: at most 10 minutes.")
@json_option
@config_options
def window_open(
    *,
    node_id: str,
    workload_id: str | None,
    from_: str,
    minutes: int,
    own: bool,
    update: bool,
    as_json: bool,
    sources: Sources,
) -> None:
    """Open a maintenance window: at most 60 minutes per workload and UTC day."""
    from_ms = _time_ms(from_)

    async def work(stores: Stores, _config: Config) -> Window:
        return await stores.directory.open_window(
            node_id,
            workload_id,
            from_ms=from_ms,
            to_ms=from_ms + minutes * 60_000,
            own=own,
            update=update,
            now_ms=now_ms(),
        )

    made = on_stores(sources, work)
    described = {"window_id": made.window_id, "from_ms": made.from_ms, "to_ms": made.to_ms, "own": made.own}
    show({"node_id": node_id, "workload_id": workload_id, **described}, as_json=as_json)


def _time_ms(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(
            f"--from: {text!r} is no RFC 3339 time, such as 2026-01-31T12:00:00Z"
        ) from error
    if time.tzinfo is None:
        raise click.UsageError(f"--from: {text!r} has no time zone; add Z for UTC")
    return round(time.timestamp() * 1000)
