"""The registry in PostgreSQL: what a row is now, and the sequence of changes that engines follow.

`specs_of` and `announce` are also what the directory writes its changes with: the one place that knows how
a RowSpec is put together, and the one place that gives out sequence numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import trio

from engine.core.ports import StoreUnavailableError
from engine.core.records import RowSpec, SessionSpec, SlotSpec, Window
from storage.bridge import await_host, end_tasks
from storage.hint import Hint
from storage.pool import Connection, Postgres, unavailable

CHANGES_CHANNEL = "nodepulse_registry"
LOAD_PAGE_ROWS = 5_000
LISTEN_RETRY_S = 1.0
_SEQUENCE_LOCK = 0x4E50_0002  # of pg_advisory_xact_lock, held while a sequence number is not committed
# Windows that have just ended are told for a while: the clocks of engine and database are not one.
_WINDOW_KEPT_MS = 3_600_000

_SPECS = f"""
select n."row", n.node_id::text, n.project_id::text, n.kind, n.interval_ms,
  n.revoked_ms is not null as revoked, n.retired_ms is not null as retired,
  n.generation, n.capability_generation, n.resync,
  array(select row(w.slot, w.workload_id::text, w.created_ms, w.retired_ms,
      w.licence_id is not null and w.retired_ms is null,
      case when l.holder = w.workload_id then l.from_ms else 0 end,
      coalesce(l.holder <> w.workload_id, false))
    from workload w
      left join licence_lease l on l.licence_id = w.licence_id and l.to_ms is null and w.retired_ms is null
    where w.node_id = n.node_id order by w.slot) as slots,
  array(select row(s.generation, s.secret_id, s.salt, s.opened_ms, s.expires_ms, s.interval_ms, s.ttl_ms,
      s.slots)
    from session s where s."row" = n."row" and s.killed_ms is null
    order by s.opened_ms desc, s.generation desc limit 2) as sessions,
  array(select row(m.window_id::text, m.workload_id::text, m.from_ms, m.to_ms, m.own)
    from maintenance_window m
    where m.node_id = n.node_id and m.to_ms > extract(epoch from now()) * 1000 - {_WINDOW_KEPT_MS}
    order by m.from_ms, m.window_id) as windows
from node n
"""


class PostgresRegistryFeed:
    """engine.core.ports.RegistryFeed on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db
        self._hint = Hint()
        self._listener: asyncio.Task[None] | None = None

    async def position(self) -> int:
        return await self._db.run(_position)

    async def load(self, *, shard: int, shards: int) -> AsyncIterator[list[RowSpec]]:
        last = -1
        while page := await self._db.run(_page, last, shard, shards):
            last = page[-1].row
            yield page

    async def changes(
        self, after: int, *, shard: int, shards: int, limit: int = 1000
    ) -> tuple[int, list[RowSpec]]:
        return await self._db.run(_changes, after, shard, shards, limit)

    async def wait_hint(self, timeout_s: float) -> None:
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(
                self._listen(trio.lowlevel.current_trio_token())
            )
        elif self._listener.done():
            self._listener.result()  # it never ends but by a bug
        await self._hint.wait(timeout_s)

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            await await_host(end_tasks, [self._listener])

    async def _listen(self, token: trio.lowlevel.TrioToken) -> None:
        """On the host: keep one connection that LISTENs. While there is none, polling goes on alone."""
        while True:
            try:
                await self._listen_once(token)
            except Exception as error:
                if not (isinstance(error, StoreUnavailableError) or unavailable(error)):
                    raise
                await asyncio.sleep(LISTEN_RETRY_S)  # who polls is told by the poll

    async def _listen_once(self, token: trio.lowlevel.TrioToken) -> None:
        lost = asyncio.Event()
        connection = await self._db.connect_alone()
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(
                CHANGES_CHANNEL, lambda *_notice: token.run_sync_soon(self._hint.tell)
            )
            await lost.wait()
        finally:
            connection.terminate()


async def specs_of(connection: Connection, rows: Sequence[int]) -> list[RowSpec]:
    """On the host: the present specs of these rows, in order of row; unknown rows are left out."""
    records = await connection.fetch(f'{_SPECS} where n."row" = any($1) order by n."row"', rows)
    return [_spec(record) for record in records]


async def announce(connection: Connection, rows: Sequence[int], now_ms: int) -> int:
    """On the host, as the last thing of a transaction: one change per row; the last sequence number.

    The lock is held to the end of the transaction. So numbers become visible in their order, and a reader
    that has seen one will not find a smaller one later.
    """
    await connection.execute("select pg_advisory_xact_lock($1)", _SEQUENCE_LOCK)
    position = await connection.fetchval(
        """
        with base as (select coalesce(max(seq), 0) as seq from registry_change),
        made as (
          insert into registry_change (seq, "row", at_ms)
          select base.seq + r.number, r."row", $2
          from base, unnest($1::bigint[]) with ordinality as r ("row", number)
          returning seq)
        select max(seq) from made
        """,
        rows,
        now_ms,
    )
    await connection.execute("select pg_notify($1, $2)", CHANGES_CHANNEL, str(position))
    return int(position)


async def _position(connection: Connection) -> int:
    return int(await connection.fetchval("select coalesce(max(seq), 0) from registry_change"))


async def _page(connection: Connection, last: int, shard: int, shards: int) -> list[RowSpec]:
    records = await connection.fetch(
        f"""{_SPECS}
        where n."row" > $1 and n."row" % $3 = $2 and (n.generation > 0 or n.capability_generation > 0)
        order by n."row" limit {LOAD_PAGE_ROWS}
        """,
        last,
        shard,
        shards,
    )
    return [_spec(record) for record in records]


async def _changes(
    connection: Connection, after: int, shard: int, shards: int, limit: int
) -> tuple[int, list[RowSpec]]:
    looked_at = await connection.fetch(
        'select seq, "row" from registry_change where seq > $1 order by seq limit $2', after, limit
    )
    if not looked_at:
        return min(after, await _position(connection)), []
    rows = sorted({record["row"] for record in looked_at if record["row"] % shards == shard})
    return looked_at[-1]["seq"], await specs_of(connection, rows) if rows else []


def _spec(record: Any) -> RowSpec:
    sessions = [
        SessionSpec(*[*fields, int.from_bytes(slots, "big")]) for *fields, slots in record["sessions"]
    ]
    # After a revocation all sessions are killed; before the first one there is none.
    current = sessions[0] if sessions else None
    return RowSpec(
        row=record["row"],
        node_id=record["node_id"],
        project_id=record["project_id"],
        kind=record["kind"],
        interval_ms=record["interval_ms"],
        revoked=record["revoked"],
        retired=record["retired"],
        capability_generation=record["capability_generation"],
        slots=tuple(SlotSpec(*slot) for slot in record["slots"]),
        current=current,
        previous=sessions[1] if len(sessions) > 1 else None,
        windows=tuple(Window(*window) for window in record["windows"]),
        resync=record["resync"],
    )
