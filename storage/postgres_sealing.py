"""Writing seals into PostgreSQL: what is due, the bar against late claims, and one transaction per seal.

One seal at a time is written in the whole installation, under an advisory lock of the session that writes it,
so numbers have no holes, and a writer that dies lets go of the lock and leaves nothing. What is put into a
seal is the worker's; how seals are read stands in postgres_seals.py.
"""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import msgspec
import trio

from engine.core.bulk import BulkItem
from engine.core.ports import StoreUnavailableError
from engine.core.records import KINDS
from engine.core.sealed import DAY_MS, Seal, SealedRow
from engine.core.sealing import Due
from storage.bridge import await_host
from storage.pool import Connection, Postgres, unavailable
from storage.postgres_corrections import settle_correction
from storage.postgres_events import control_event, record_event
from storage.postgres_seals import day_of

CLAIMS_LOCK = 0x4E51  # first key of pg_advisory_xact_lock(int, int); the second is the project's hash
_SEAL_LOCK = 0x4E50_0009  # of pg_try_advisory_lock, held by the session that writes a seal
_CLOSE_S = 2.0
_PAUSE_S_MAX = 300.0  # a seal takes a minute
_FIRST = "00000000-0000-0000-0000-000000000000"
# In the order of BulkItem; what a seal does not look at is not fetched. Kind and owner are those of the end
# of the day, or of the workload: what it was made since then is nothing to this day (migration 0015).
_PAGE = """
select w.workload_id::text, '', w.slot, w.created_ms, w.retired_ms, w.first_report_ms, k.slug,
  null, null, null, null, n.node_id::text, '', n."row",
  (case when o.to_ms is null then n.owner_id else o.owner_id end)::text, n.partner_node_id
from workload w join node n using (node_id)
left join lateral (select to_ms, kind_id from workload_kind_was v
  where v.workload_id = w.workload_id and v.to_ms >= least($4, w.retired_ms) order by to_ms limit 1) b on true
left join lateral (select to_ms, owner_id from node_owner_was v
  where v.node_id = w.node_id and v.to_ms >= least($4, w.retired_ms) order by to_ms limit 1) o on true
left join workload_kind k on k.kind_id = case when b.to_ms is null then w.kind_id else b.kind_id end
where w.project_id = $1 and w.node_id > $2 and w.created_ms < $4
  and (w.retired_ms is null or w.retired_ms > $3)
order by w.node_id, w.slot limit $5
"""
_DUE = """
select project_id, slug, day from (
  select p.project_id::text, p.slug, p.retired_ms, coalesce(
    (select max(s.day) + 1 from seal s where s.project_id = p.project_id),
    (select date '1970-01-01' + (min(w.created_ms) / 86400000)::integer from workload w
      where w.project_id = p.project_id)) as day
  from project p) due
where day < $1 and (retired_ms is null or day <= date '1970-01-01' + (retired_ms / 86400000)::integer)
order by day, slug
"""
_CORRECTIONS_DUE = """
select c.project_id::text, p.slug, c.day, c.correction_id::text, c.reason, c.actor
from seal_correction c join project p using (project_id) where c.seal_no is null order by c.correction_id
"""
_COLUMNS = (
    "seal_no",
    "place",
    "workload_id",
    "node_id",
    "operator_id",
    "kind",
    "source",
    "from_ms",
    "to_ms",
    "ms",
    "paid_ms",
    "held",
    "refused",
    "hours",
)
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
# Of the binary COPY format: number of fields, then each field behind its length.
_HEAD = struct.Struct(">hiqiii16si16s")
_WINDOW = struct.Struct(f">iqiqi{len(KINDS)}Iiq")


class PostgresSealing:
    """engine.core.sealing.Sealing on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def watermarks(self) -> dict[int, int]:
        return await self._db.run(_watermarks)

    async def due(self, *, before_ms: int) -> list[Due]:
        return await self._db.run(_due, before_ms)

    async def page(
        self, project_id: str, *, after_node: str, limit: int, from_ms: int, to_ms: int
    ) -> list[BulkItem]:
        return await self._db.run(_page, project_id, after_node or _FIRST, from_ms, to_ms, limit)

    async def clear(self) -> None:
        await self._db.run(_clear)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        connection = await await_host(self._pause)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await await_host(connection.close)

    async def _pause(self) -> Connection:
        """On the host."""
        connection = await self._db.connect_alone()
        try:
            await connection.execute("select pg_advisory_lock($1)", _SEAL_LOCK, timeout=_PAUSE_S_MAX)
        except BaseException as error:
            connection.terminate()
            if reason := unavailable(error):
                raise StoreUnavailableError(reason) from error
            raise
        return connection

    @asynccontextmanager
    async def writing(self, due: Due, *, now_ms: int) -> AsyncIterator[SealWriting | None]:
        writing = await await_host(self._begin, due, now_ms)
        try:
            yield writing
        finally:
            if writing is not None:
                with trio.CancelScope(shield=True):
                    await await_host(writing.close)

    async def _begin(self, due: Due, now_ms: int) -> SealWriting | None:
        """On the host."""
        connection = await self._db.connect_alone()
        writing = SealWriting(connection, due)
        try:
            if await writing.begin(now_ms):
                return writing
        except BaseException as error:
            await writing.close()
            if reason := unavailable(error):
                raise StoreUnavailableError(reason) from error
            raise
        await writing.close()
        return None


class SealWriting:
    """engine.core.sealing.Writing: a connection of its own, in a transaction."""

    def __init__(self, connection: Connection, due: Due) -> None:
        self._connection = connection
        self._due = due
        self._transaction: Any = None
        self._begun = self._finished = False
        self.seal_no = self.revision = 0

    async def begin(self, now_ms: int) -> bool:
        """On the host. False: another worker is at it, or it was done before."""
        connection, due = self._connection, self._due
        if not await connection.fetchval("select pg_try_advisory_lock($1)", _SEAL_LOCK):
            return False
        known = await connection.fetchval(
            "select max(revision) from seal where project_id = $1 and day = $2",
            due.project_id,
            day_of(due.day_ms),
        )
        if due.correction_id is None:
            done = known is not None
        else:
            done = known is None or await connection.fetchval(
                "select seal_no is not null from seal_correction where correction_id = $1", due.correction_id
            )
        if done:
            return False
        async with connection.transaction():
            # Whoever stores claims of this project holds this shared: they are stored before we read, or see
            # that the day is closed.
            await connection.execute(
                "select pg_advisory_xact_lock($1, hashtext($2))", CLAIMS_LOCK, due.project_id
            )
            await connection.execute(
                "insert into sealing (project_id, day, begun_ms) values ($1, $2, $3) on conflict do nothing",
                due.project_id,
                day_of(due.day_ms),
                now_ms,
            )
        self._begun = True
        self._transaction = connection.transaction()
        await self._transaction.start()
        self.seal_no = await connection.fetchval("select coalesce(max(seal_no), 0) + 1 from seal")
        self.revision = (known or 0) + 1
        return True

    async def write(self, rows: Sequence[SealedRow], hours: Sequence[bytes], *, first_place: int) -> None:
        source = await trio.to_thread.run_sync(_copied, self.seal_no, first_place, rows, hours)
        await await_host(self._run, self._write, source)

    async def finish(
        self,
        seal: Seal,
        *,
        kinds_ms: Sequence[int],
        block_roots: Mapping[int, Sequence[bytes]],
        node_blocks: Sequence[int],
    ) -> None:
        sums = b"".join(ms.to_bytes(8, "big") for ms in kinds_ms)
        await await_host(self._run, self._finish, seal, sums, block_roots, node_blocks)

    async def _run(self, fn: Any, *args: object) -> None:
        try:
            await fn(*args)
        except Exception as error:
            if reason := unavailable(error):
                raise StoreUnavailableError(reason) from error
            raise

    async def _write(self, source: bytes) -> None:
        await self._connection.copy_to_table(
            "sealed_row", source=io.BytesIO(source), columns=_COLUMNS, format="binary"
        )

    async def _finish(
        self, seal: Seal, sums: bytes, block_roots: Mapping[int, Sequence[bytes]], node_blocks: Sequence[int]
    ) -> None:
        connection = self._connection
        await connection.execute(
            """
            insert into seal (seal_no, project_id, day, revision, reason, actor, "rows", nodes, paid_ms, root,
              hour_roots, node_blocks, sealed_ms, kinds_ms)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            """,
            seal.seal_no,
            seal.project_id,
            day_of(self._due.day_ms),
            seal.revision,
            seal.reason,
            seal.actor,
            seal.rows,
            seal.nodes,
            seal.paid_ms,
            seal.root,
            b"".join(seal.hour_roots),
            b"".join(place.to_bytes(4, "big") for place in node_blocks),
            seal.sealed_ms,
            sums,
        )
        await connection.executemany(
            "insert into seal_tree (seal_no, tree, block_roots) values ($1, $2, $3)",
            [(seal.seal_no, tree, b"".join(roots)) for tree, roots in block_roots.items()],
        )
        if self._due.correction_id is not None:
            await settle_correction(connection, self._due.correction_id, seal)
        event = control_event(
            "seal.done",
            project_id=seal.project_id,
            now_ms=seal.sealed_ms,
            detail=f"{seal.day} revision {seal.revision}",
        )
        await record_event(connection, event)
        await self._transaction.commit()
        self._finished = True

    async def close(self) -> None:
        """On the host. What was not finished is undone; a connection that is broken undoes it by itself."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                if self._begun and not self._finished:
                    if self._transaction is not None:
                        await self._transaction.rollback()
                    await _take_back(self._connection)
                await self._connection.close()
        self._connection.terminate()


def _copied(seal_no: int, first_place: int, rows: Sequence[SealedRow], hours: Sequence[bytes]) -> bytes:
    """The rows as binary COPY has them."""
    records = [
        _record(seal_no, first_place + number, row, coded)
        for number, (row, coded) in enumerate(zip(rows, hours, strict=True))
    ]
    return b"".join((_COPY_HEADER, *records, _COPY_TRAILER))


def _record(seal_no: int, place: int, row: SealedRow, hours: bytes) -> bytes:
    return b"".join(
        (
            _HEAD.pack(len(_COLUMNS), 8, seal_no, 4, place, 16, _id(row.workload_id), 16, _id(row.node_id)),
            _field(None if row.operator_id is None else _id(row.operator_id)),
            _field(None if row.kind is None else row.kind.encode()),
            _field(row.source.encode()),
            _WINDOW.pack(8, row.from_ms, 8, row.to_ms, 4 * len(row.ms), *row.ms, 8, row.paid_ms),
            _field(msgspec.json.encode(row.held) if row.held else None),
            _field(msgspec.json.encode(row.refused) if row.refused else None),
            _field(hours),
        )
    )


def _id(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def _field(content: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if content is None else len(content).to_bytes(4, "big") + content


async def _watermarks(connection: Connection) -> dict[int, int]:
    return dict(await connection.fetch("select shard, watermark_ms from shard_state"))


async def _due(connection: Connection, before_ms: int) -> list[Due]:
    found = [
        Due(project_id=project_id, project=slug, day_ms=(day - day_of(0)).days * DAY_MS)
        for project_id, slug, day in await connection.fetch(_DUE, day_of(before_ms))
    ]
    for project_id, slug, day, correction_id, reason, actor in await connection.fetch(_CORRECTIONS_DUE):
        found.append(
            Due(
                project_id=project_id,
                project=slug,
                day_ms=(day - day_of(0)).days * DAY_MS,
                correction_id=correction_id,
                reason=reason,
                actor=actor,
            )
        )
    return found


async def _page(
    connection: Connection, project_id: str, after_node: str, from_ms: int, to_ms: int, limit: int
) -> list[BulkItem]:
    records = await connection.fetch(_PAGE, project_id, after_node, from_ms, to_ms, limit)
    items = [BulkItem._make(record) for record in records]
    if len(items) < limit:
        return items
    last = items[-1].node_id  # there may be more of it
    return [item for item in items if item.node_id != last]


async def _clear(connection: Connection) -> None:
    async with connection.transaction():
        if await connection.fetchval("select pg_try_advisory_xact_lock($1)", _SEAL_LOCK):
            await _take_back(connection)


async def _take_back(connection: Connection) -> None:
    """Under the lock: of all days that have no seal, nobody is sealing any."""
    await connection.execute(
        """
        delete from sealing b
        where not exists (select from seal s where s.project_id = b.project_id and s.day = b.day)
        """
    )
