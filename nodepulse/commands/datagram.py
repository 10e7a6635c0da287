"""`admin datagram`: Datagram as a source of uptime. It is asked from here, with the installation's token."""

from __future__ import annotations

from typing import Any

import click

from engine.core.ports import NodeRecord
from nodepulse.commands.acting import Asked, Desk, admin_options
from nodepulse.commands.reading import ID, PARTNER
from nodepulse.commands.stores import now_ms
from storage.datagram import Datagram, open_uptime_source

NODES_SHOWN_MAX = 1_000


@click.group()
def datagram() -> None:
    """Datagram as a source of uptime: whether it answers, and who is known there."""


@datagram.command(name="check")
@click.option("--limit", type=click.IntRange(0, NODES_SHOWN_MAX), default=10, show_default=True)
@admin_options
def datagram_check(*, limit: int, asked: Asked) -> None:
    """Ask Datagram who we are and which nodes it knows of ours; exit code 1 says what is wrong."""

    async def work(desk: Desk) -> dict[str, Any]:
        async with open_uptime_source(desk.config.datagram, clock=lambda: now_ms(desk.config)) as source:
            known = _configured(source)
            details = await known.partner_details()
            nodes, total = await known.partner_nodes(limit=limit) if limit else ([], None)
            return {"partner": details, "nodes_total": total, "nodes": nodes}

    asked.show(asked.run(work))


@datagram.command(name="register")
@click.argument("node_id", type=ID)
@click.option("--name", type=PARTNER, help="How Datagram shall call it; its node_id if left out.")
@admin_options
def datagram_register(*, node_id: str, name: str | None, asked: Asked) -> None:
    """Make a node known to Datagram, so that its uptime can be asked there; twice is the same as once."""

    async def work(desk: Desk) -> NodeRecord:
        node = await desk.node(node_id)
        wanted = name or node_id
        if node.partner_node_id == wanted:
            return node
        if node.retired_ms is not None:
            raise click.ClickException("this node is retired")
        async with open_uptime_source(desk.config.datagram, clock=lambda: now_ms(desk.config)) as source:
            await _configured(source).register(wanted)
        return await desk.stores.registration.set_partner(node_id, wanted, act=desk.act)

    made = asked.run(work)
    asked.show({"node_id": made.node_id, "partner_node_id": made.partner_node_id})


def _configured(source: Datagram | None) -> Datagram:
    if source is None:
        raise click.ClickException(
            "datagram.token is not set, so there is nobody to ask: see the configuration"
        )
    return source
