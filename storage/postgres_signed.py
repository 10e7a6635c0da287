"""Signed requests of nodes in PostgreSQL: how many there were in the last minute, and which nonces were used.

For sessions and backfills alike; each purpose is counted apart. The callers hold the nodes' locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from storage.pool import Connection

RATE_WINDOW_MS = 60_000


class Signed(Protocol):
    """What both kinds of requests have."""

    @property
    def node_id(self) -> str: ...
    @property
    def nonce(self) -> str: ...
    @property
    def nonce_expires_ms(self) -> int: ...
    @property
    def now_ms(self) -> int: ...


async def count_requests(
    connection: Connection, requests: Sequence[Signed], *, purpose: str
) -> dict[str, int]:
    """Write these requests down; how many there were of each node in its last minute, this one included."""
    records = await connection.fetch(
        """
        with asked as (select * from unnest($1::uuid[], $2::bigint[]) as asked (node_id, now_ms)),
        kept as (insert into signed_request (node_id, purpose, at_ms) select node_id, $3, now_ms from asked)
        select node_id::text, 1 + (select count(*) from signed_request s
          where s.node_id = asked.node_id and s.purpose = $3 and s.at_ms > asked.now_ms - $4)
        from asked
        """,
        [request.node_id for request in requests],
        [request.now_ms for request in requests],
        purpose,
        RATE_WINDOW_MS,
    )
    return dict(records)


async def keep_nonces(connection: Connection, requests: Sequence[Signed], *, purpose: str) -> set[str]:
    """The nodes whose nonce was new."""
    records = await connection.fetch(
        """
        insert into nonce (node_id, purpose, nonce, at_ms, expires_ms)
        select node_id, $5, nonce, at_ms, expires_ms
        from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
          as n (node_id, nonce, at_ms, expires_ms)
        on conflict do nothing returning node_id::text
        """,
        [request.node_id for request in requests],
        [request.nonce for request in requests],
        [request.now_ms for request in requests],
        [request.nonce_expires_ms for request in requests],
        purpose,
    )
    return {record["node_id"] for record in records}
