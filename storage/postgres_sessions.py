"""Opening a session in PostgreSQL: one transaction that counts, refuses, raises the generation and tells.

A refusal is a result here, not an exception: what was counted must be committed all the same. The directory
raises it. Everything else the directory does is in postgres_directory.py.
"""

from __future__ import annotations

import os
from typing import Any

from engine.core.keys import SALT_BYTES
from engine.core.ports import NodeRefusedError, NonceSeenError, RateLimitedError
from engine.core.records import RowSpec, SessionSpec
from engine.core.timing import ttl_of_interval
from storage.pool import Connection
from storage.postgres_registry import announce, specs_of

GENERATION_MAX = 65_535  # a u16 in the frame; 0 is "no session yet"
RATE_WINDOW_MS = 60_000
PURPOSE = "session"

Opened = tuple[RowSpec, SessionSpec, int]


async def open_session(
    connection: Connection,
    node_id: str,
    nonce: str,
    nonce_expires_ms: int,
    rate_per_min: int,
    now_ms: int,
    life_ms: int,
    secret_id: int,
) -> Opened | Exception:
    """On the host: (row spec, session, registry position), or the refusal for the caller to raise."""
    async with connection.transaction():
        # The lock makes everything below one after the other for this node.
        node = await connection.fetchrow(
            """
            select "row", generation, salt, interval_ms from node
            where node_id = $1 and revoked_ms is null and retired_ms is null for update
            """,
            node_id,
        )
        if node is None:
            return NodeRefusedError(f"node {node_id} is unknown, revoked or retired")
        if await _count_request(connection, node_id, now_ms) > rate_per_min:
            return RateLimitedError(f"more than {rate_per_min} signed requests in a minute")
        if not await _keep_nonce(connection, node_id, nonce, now_ms, nonce_expires_ms):
            return NonceSeenError("this nonce was used before")
        await _raise_generation(connection, node_id, node, now_ms, life_ms, secret_id)
        (spec,) = await specs_of(connection, [node["row"]])
        position = await announce(connection, [node["row"]], now_ms)
    assert spec.current is not None
    return spec, spec.current, position


async def _count_request(connection: Connection, node_id: str, now_ms: int) -> int:
    """Write this request down; how many there were in the last minute, this one included."""
    counted = await connection.fetchval(
        """
        with this as (insert into signed_request (node_id, purpose, at_ms) values ($1, $2, $3))
        select 1 + count(*) from signed_request where node_id = $1 and purpose = $2 and at_ms > $4
        """,
        node_id,
        PURPOSE,
        now_ms,
        now_ms - RATE_WINDOW_MS,
    )
    return int(counted)


async def _keep_nonce(
    connection: Connection, node_id: str, nonce: str, now_ms: int, nonce_expires_ms: int
) -> bool:
    kept = await connection.fetchval(
        """
        insert into nonce (node_id, purpose, nonce, at_ms, expires_ms) values ($1, $2, $3, $4, $5)
        on conflict do nothing returning true
        """,
        node_id,
        PURPOSE,
        nonce,
        now_ms,
        nonce_expires_ms,
    )
    return bool(kept)


async def _raise_generation(
    connection: Connection, node_id: str, node: Any, now_ms: int, life_ms: int, secret_id: int
) -> None:
    generation, salt = next_generation(node["generation"], node["salt"])
    # The order of a row's sessions is that of opened_ms, also when the clocks of two web processes differ.
    await connection.execute(
        """
        with raised as (update node set generation = $2, salt = $3 where node_id = $1 returning "row"),
        opening as (
          select raised."row", greatest($4, 1 + max(s.opened_ms)) as opened_ms
          from raised left join session s on s."row" = raised."row" group by raised."row")
        insert into session ("row", generation, secret_id, salt, opened_ms, expires_ms, interval_ms, ttl_ms,
          slots)
        select "row", $2, $5, $3, opened_ms, $6, $7, $8,
          (select int8send(coalesce(bit_or(1::bit(64) << slot), 0::bit(64))::bigint)
            from workload where node_id = $1 and retired_ms is null)
        from opening
        """,
        node_id,
        generation,
        salt,
        now_ms,
        secret_id,
        now_ms + life_ms,
        node["interval_ms"],
        ttl_of_interval(node["interval_ms"]),
    )


def next_generation(generation: int, salt: bytes) -> tuple[int, bytes]:
    """The generation after this one, and the salt it goes with: a wrap would repeat keys, so it renews it."""
    if generation >= GENERATION_MAX:
        return 1, os.urandom(SALT_BYTES)
    return generation + 1, salt
