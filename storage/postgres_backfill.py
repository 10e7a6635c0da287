"""Missed beats in PostgreSQL: each becomes one claim per slot of the map of the generation that it names.

Two transactions. The first counts and judges the request under the lock of its node, as a session's opening
does; the second writes, without that lock: up to 640,000 rows, and openings wait for locks in whole batches.
A crash between the two costs a nonce, and the node sends again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.backfill import Era, MissedBeat, Stored, sift
from engine.core.ports import NodeRefusedError, NonceSeenError, RateLimitedError
from engine.core.records import BASE_UNHEALTHY, BASE_UP, BASE_UPDATING
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_sealing import CLAIMS_LOCK
from storage.postgres_seals import day_of
from storage.postgres_signed import count_requests, keep_nonces

PURPOSE = "backfill"
BEATS_PER_STATEMENT = 1_000  # 64,000 claims at most: far from the timeout of a statement


class _Request(msgspec.Struct, frozen=True):
    node_id: str
    nonce: str
    nonce_expires_ms: int
    rate_per_min: int
    now_ms: int


class PostgresBackfill:
    """engine.core.backfill.Backfill on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def take(
        self,
        node_id: str,
        beats: Sequence[MissedBeat],
        *,
        nonce: str,
        nonce_expires_ms: int,
        rate_per_min: int,
        now_ms: int,
    ) -> Stored:
        if not is_id(node_id):
            raise NodeRefusedError(f"no node {node_id}")
        request = _Request(node_id, nonce, nonce_expires_ms, rate_per_min, now_ms)
        admitted = await self._db.run(_admit, request)
        if isinstance(admitted, Exception):
            raise admitted
        eras = {era.generation: era for era in admitted}
        sifted = sift(beats, eras=eras, now_ms=now_ms)
        taken = sealed = 0
        for first in range(0, len(sifted.beats), BEATS_PER_STATEMENT):
            some = sifted.beats[first : first + BEATS_PER_STATEMENT]
            new, late = await self._db.run(_store, node_id, some, eras, now_ms)
            taken, sealed = taken + new, sealed + late
        known = sifted.ignored["duplicate"] + len(sifted.beats) - taken - sealed
        return Stored(taken, {**sifted.ignored, "duplicate": known, "sealed": sealed})


async def _admit(connection: Connection, request: _Request) -> list[Era] | Exception:
    """The generations that the node may name, or the refusal to raise: what was counted stays counted."""
    async with connection.transaction():
        node = await connection.fetchrow(
            """
            select "row", salt from node
            where node_id = $1 and revoked_ms is null and retired_ms is null for update
            """,
            request.node_id,
        )
        if node is None:
            return NodeRefusedError(f"node {request.node_id} is unknown, revoked or retired")
        counts = await count_requests(connection, [request], purpose=PURPOSE)
        if counts[request.node_id] > request.rate_per_min:
            return RateLimitedError(f"more than {request.rate_per_min} signed requests in a minute")
        if not await keep_nonces(connection, [request], purpose=PURPOSE):
            return NonceSeenError("this nonce was used before")
        return await _eras(connection, node)


async def _eras(connection: Connection, node: Any) -> list[Era]:
    # A generation comes again only with another salt (a wrap, a new key), so these are told apart by it.
    records = await connection.fetch(
        'select generation, ttl_ms, slots from session where "row" = $1 and salt = $2',
        node["row"],
        node["salt"],
    )
    return [Era(generation, ttl_ms, int.from_bytes(slots, "big")) for generation, ttl_ms, slots in records]


async def _store(
    connection: Connection, node_id: str, beats: Sequence[MissedBeat], eras: dict[int, Era], now_ms: int
) -> tuple[int, int]:
    """How many beats brought a claim that was not there, and how many are of days that are closed.

    Whoever begins to seal a day takes the project's lock alone: either our claims are stored before that, and
    the seal reads them, or we see here that the day is closed.
    """
    project_id = await connection.fetchval("select project_id::text from node where node_id = $1", node_id)
    async with connection.transaction():
        await connection.execute(
            "select pg_advisory_xact_lock_shared($1, hashtext($2))", CLAIMS_LOCK, project_id
        )
        records = await connection.fetch(
            "select day from sealing where project_id = $1 and day between $2 and $3",
            project_id,
            day_of(beats[0].at_ms),
            day_of(beats[-1].at_ms),
        )
        closed = {record["day"] for record in records}
        open_beats = [beat for beat in beats if day_of(beat.at_ms) not in closed]
        taken = await _write(connection, node_id, open_beats, eras, now_ms) if open_beats else 0
    return taken, len(beats) - len(open_beats)


async def _write(
    connection: Connection, node_id: str, beats: Sequence[MissedBeat], eras: dict[int, Era], now_ms: int
) -> int:
    """How many beats brought a claim that was not there. In order of the key: two of them cannot deadlock."""
    taken: int = await connection.fetchval(
        """
        with beat as (
          select * from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
              $7::integer[])
            as beat (at_ms, plane0, plane1, slots, ttl_ms, generation)),
        made as (
          insert into claim (workload_id, at_ms, kind, ttl_ms, generation, received_ms)
          select w.workload_id, b.at_ms, ($9::smallint[])[1 + (b.plane0 >> w.slot & 1)::integer
              + 2 * (b.plane1 >> w.slot & 1)::integer], b.ttl_ms, b.generation, $8
          from beat b join workload w on w.node_id = $1 and b.slots >> w.slot & 1 = 1
          order by w.workload_id, b.at_ms
          on conflict do nothing returning at_ms)
        select count(*) from beat b
        where b.slots = 0 or exists (select 1 from made where made.at_ms = b.at_ms)
        """,
        node_id,
        [beat.at_ms for beat in beats],
        [_signed(beat.plane0) for beat in beats],
        [_signed(beat.plane1) for beat in beats],
        [_signed(eras[beat.generation].slots) for beat in beats],
        [eras[beat.generation].ttl_ms for beat in beats],
        [beat.generation for beat in beats],
        now_ms,
        # By the slot's state: 0 absent, 1 healthy, 2 unhealthy, 3 updating.
        [BASE_UNHEALTHY, BASE_UP, BASE_UNHEALTHY, BASE_UPDATING],
    )
    return taken


def _signed(mask: int) -> int:
    """A u64 as the bigint of the same bits."""
    return mask - (1 << 64) if mask >> 63 else mask
