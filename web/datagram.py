"""`POST /v1/nodes/{id}/datagram`: make a node known to Datagram, so that its uptime can be asked there.

What is then answered from there is sources.py's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Response

from engine.core.people import Principal
from engine.core.registration import NameTakenError
from engine.core.uptime_source import UptimeSourceError
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.node_registration import RegisteredNode, refusals, registered
from web.problems import RefusedError
from web.routing import Answer, Route, read_body, reply
from web.sources import source_away, source_missing

PartnerId = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern="^[!-~]+$")]


class DatagramRegistration(msgspec.Struct, frozen=True, kw_only=True):
    """`partner_node_id`: how Datagram shall call the node; left out: by its node_id."""

    partner_node_id: PartnerId | None = None


async def register_with_datagram(backend: Backend, caller: Principal, *, node_id: str) -> Response:
    asked, _ = await read_body(DatagramRegistration)
    node = await sight.node(backend, caller, node_id)
    wanted = asked.partner_node_id or node.node_id
    if node.partner_node_id != wanted:
        if node.retired_ms is not None:
            raise RefusedError(409, "retired", "this node is retired")
        if backend.uptime_source is None:
            raise source_missing()
        try:
            await backend.uptime_source.register(wanted)
        except UptimeSourceError as error:
            raise source_away(str(error), retry_after_s=error.retry_after_s) from error
        try:
            with refusals():
                node = await backend.stores.registration.set_partner(
                    node.node_id, wanted, act=act_of(backend, caller)
                )
        except NameTakenError as error:
            raise RefusedError(409, "partner_taken", str(error)) from error
    return reply(await registered(backend, node))


ROUTES = (
    Route(
        method="POST",
        path="/v1/nodes/{node_id}/datagram",
        handler=register_with_datagram,
        summary="Register a node with Datagram; twice is the same as once",
        tag="nodes",
        body=DatagramRegistration,
        answers={200: Answer(description="The node as it is registered now", type=RegisteredNode)},
        refusals=(400, 403, 404, 409),
    ),
)
