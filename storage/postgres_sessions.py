"""Opening sessions in PostgreSQL: one transaction that counts, refuses, raises generations and tells.

Whole batches at once, because sequence numbers of the registry are given out under a lock held to the commit:
one transaction per session would be one wait for the disk after the other. A refusal is a result here, not
an exception: what was counted must be committed all the same. The directory raises it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.keys import SALT_BYTES
from engine.core.ports import NodeRefusedError, NonceSeenError, RateLimitedError
from engine.core.records import RowSpec, SessionSpec
from engine.core.timing import ttl_of_interval
from storage.pool import Connection
from storage.postgres_clones import tell_clones
from storage.postgres_registry import announce, specs_of
from storage.postgres_signed import count_requests, keep_nonces

GENERATION_MAX = 65_535  # a u16 in the frame; 0 is "no session yet"
GENERATION_AFTER_WRAP = 2  # not 1, see next_generation
PURPOSE = "session"
BATCH_MAX = 256  # sessions opened in one transaction

Opened = tuple[RowSpec, SessionSpec, int]


class Request(msgspec.Struct, frozen=True):
    """What `Directory.open_session` was asked."""

    node_id: str
    nonce: str
    nonce_expires_ms: int
    rate_per_min: int
    now_ms: int
    life_ms: int
    secret_id: int
    manager_version: str = ""
    client_address: str = ""


async def open_sessions(connection: Connection, requests: Sequence[Request]) -> list[Opened | Exception]:
    """On the host, for requests of different nodes: each one's session, or the refusal to raise."""
    async with connection.transaction():
        # The locks make everything below one after the other for each node.
        nodes = {
            node["node_id"]: node
            for node in await connection.fetch(
                """
                select node_id::text, "row", generation, salt, interval_ms from node
                where node_id = any($1::uuid[]) and revoked_ms is null and retired_ms is null
                order by node_id for update
                """,
                [request.node_id for request in requests],
            )
        }
        known = [request for request in requests if request.node_id in nodes]
        counts = await count_requests(connection, known, purpose=PURPOSE)
        within = [request for request in known if counts[request.node_id] <= request.rate_per_min]
        fresh = await keep_nonces(connection, within, purpose=PURPOSE)
        opening = [request for request in within if request.node_id in fresh]
        opened: dict[str, Opened] = {}
        if opening:
            opened = await _open(connection, opening, nodes)
    return [
        opened.get(request.node_id) or _refusal(request, counts.get(request.node_id)) for request in requests
    ]


def _refusal(request: Request, count: int | None) -> Exception:
    if count is None:
        return NodeRefusedError(f"node {request.node_id} is unknown, revoked or retired")
    if count > request.rate_per_min:
        return RateLimitedError(f"more than {request.rate_per_min} signed requests in a minute")
    return NonceSeenError("this nonce was used before")


async def _open(
    connection: Connection, requests: Sequence[Request], nodes: dict[str, Any]
) -> dict[str, Opened]:
    raised = [
        next_generation(nodes[request.node_id]["generation"], nodes[request.node_id]["salt"])
        for request in requests
    ]
    # The order of a row's sessions is that of opened_ms, also when the clocks of two web processes differ.
    await connection.execute(
        """
        with asked as (
          select * from unnest($1::uuid[], $2::integer[], $3::bytea[], $4::bigint[], $5::bigint[],
              $6::smallint[], $7::integer[], $8::text[], $9::text[])
            as asked (node_id, generation, salt, now_ms, expires_ms, secret_id, ttl_ms, manager_version,
              client_address)),
        raised as (
          update node n set generation = asked.generation, salt = asked.salt,
            manager_version = asked.manager_version from asked
          where n.node_id = asked.node_id returning asked.*, n."row", n.interval_ms)
        insert into session ("row", generation, secret_id, salt, opened_ms, expires_ms, interval_ms, ttl_ms,
          slots, manager_version, client_address)
        select "row", generation, secret_id, salt,
          greatest(now_ms, 1 + (select max(s.opened_ms) from session s where s."row" = raised."row")),
          expires_ms, interval_ms, ttl_ms,
          (select int8send(coalesce(bit_or(1::bit(64) << slot), 0::bit(64))::bigint)
            from workload w where w.node_id = raised.node_id and w.retired_ms is null),
          manager_version, client_address
        from raised
        """,
        [request.node_id for request in requests],
        [generation for generation, _salt in raised],
        [salt for _generation, salt in raised],
        [request.now_ms for request in requests],
        [request.now_ms + request.life_ms for request in requests],
        [request.secret_id for request in requests],
        [ttl_of_interval(nodes[request.node_id]["interval_ms"]) for request in requests],
        [request.manager_version for request in requests],
        [request.client_address for request in requests],
    )
    await tell_clones(connection, [request.node_id for request in requests])
    rows = [nodes[request.node_id]["row"] for request in requests]
    specs = await specs_of(connection, rows)
    position = await announce(connection, rows, max(request.now_ms for request in requests))
    return {spec.node_id: (spec, spec.current, position) for spec in specs if spec.current is not None}


def next_generation(generation: int, salt: bytes) -> tuple[int, bytes]:
    """The generation after this one, and the salt it goes with: a wrap would repeat keys, so it renews it.

    Odd and even take turns, also there: an engine keeps a row's two generations by their parity, and after
    65535 a 1 would end it at once instead of 60 s later.
    """
    if generation >= GENERATION_MAX:
        return GENERATION_AFTER_WRAP, os.urandom(SALT_BYTES)
    return generation + 1, salt
