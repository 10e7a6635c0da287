"""Sealed days in PostgreSQL, as they are read. Triggers refuse that anything of them is changed.

Leaves are not stored: they are made again from the rows of their block. How a seal is written stands in
postgres_sealing.py, how a row's hours are coded in seal_hours.py.
"""

from __future__ import annotations

import datetime
import uuid
from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from engine.core.compose_hours import HOUR_MS
from engine.core.merkle import BLOCK_LEAVES, HASH_BYTES, leaf_hash
from engine.core.records import KINDS
from engine.core.sealed import (
    DAY_DOMAIN,
    DAY_MS,
    DAY_TREE,
    HOUR_DOMAIN,
    HOUR_DTYPE,
    HOURS,
    DaySums,
    Held,
    Seal,
    SealedDay,
    SealedRow,
    SealProgress,
    hour_content,
    row_text,
)
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.seal_hours import decode_hours

SEAL = """
select s.seal_no, s.project_id::text, p.slug, s.day::text, s.revision, s.reason, s.actor, s."rows", s.nodes,
  s.paid_ms, s.root, s.hour_roots, s.sealed_ms
from seal s join project p using (project_id)
"""
_ROW = """
select place, workload_id::text, node_id::text, operator_id::text, kind, source, from_ms, to_ms, ms, paid_ms,
  held, refused, hours from sealed_row where seal_no = $1
"""
# The newest seals of some days of the projects of what is asked about, and its rows in them: two steps, each
# along an index.
_DAYS = """
with of as materialized (select distinct project_id from {of}),
newest as materialized (
  select distinct on (s.project_id, s.day) s.seal_no, s.day, s.revision from seal s join of using (project_id)
  where s.day >= $2 and s.day < $3 order by s.project_id, s.day, s.revision desc)
select n.day::text, n.revision, r.node_id::text, r.workload_id::text, r.to_ms - r.from_ms, r.paid_ms, r.ms
from newest n cross join lateral (
  select * from sealed_row r where r.seal_no = n.seal_no and {rows}) r
order by n.day, r.workload_id
"""
_OF_WORKLOAD = _DAYS.format(of="workload where workload_id = $1", rows="r.workload_id = $1")
_OF_NODES = _DAYS.format(of="node where node_id = any($1::uuid[])", rows="r.node_id = any($1::uuid[])")
_UP, _UNOBSERVED = KINDS.index("up"), KINDS.index("unobserved")
# As the worker finds what is due (postgres_sealing.py): from the first workload on, day after day. Once a day
# is sealed nobody looks through the workloads any more.
_LIVED = """
(select date '1970-01-01' + (min(created_ms) / 86400000)::integer from workload where project_id = $1)
"""
_PROGRESS = f"""
select coalesce((select min(day) from seal where project_id = $1), {_LIVED})::text,
  coalesce((select max(day) + 1 from seal where project_id = $1), {_LIVED})::text,
  array(select s.day::text from sealing s where s.project_id = $1 and not exists (
    select from seal d where d.project_id = s.project_id and d.day = s.day))
"""
_SUMS = """
select distinct on (day) day::text, revision, "rows", nodes, paid_ms, kinds_ms from seal
where project_id = $1 and day >= $2 and day < $3 order by day, revision desc
"""
_NODE_BLOCKS = "select node_blocks from seal where seal_no = $1"


class PostgresSeals:
    """engine.core.sealed.Seals on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def progress(self, project_id: str) -> SealProgress:
        return await self._db.run(_progress, project_id)

    async def seals(self, project_id: str, *, before: str | None, limit: int) -> list[Seal]:
        return await self._db.run(_seals, project_id, before, limit) if is_id(project_id) else []

    async def seal(self, project_id: str, day: str, revision: int | None = None) -> Seal | None:
        return await self._db.run(newest_seal, project_id, day, revision) if is_id(project_id) else None

    async def kinds_ms(self, seal: Seal) -> dict[str, int]:
        sums = await self._db.run(_kinds_ms, seal.seal_no)
        return dict(zip(KINDS, np.frombuffer(sums, ">i8").tolist(), strict=True))

    async def row(self, seal: Seal, workload_id: str) -> tuple[int, SealedRow] | None:
        if not is_id(workload_id):
            return None
        found = await self._db.run(_rows, seal.seal_no, "workload_id = $2", workload_id)
        return found[0] if found else None

    async def rows(self, seal: Seal, *, after_place: int, limit: int) -> list[tuple[int, SealedRow]]:
        low, high = after_place + 1, after_place + 1 + limit
        return await self._db.run(_rows, seal.seal_no, "place >= $2 and place < $3", low, high)

    async def rows_of_node(self, seal: Seal, node_id: str) -> list[tuple[int, SealedRow]]:
        return await self._db.run(_rows, seal.seal_no, "node_id = $2", node_id) if is_id(node_id) else []

    async def days_of_workload(self, workload_id: str, *, from_day: str, to_day: str) -> list[SealedDay]:
        of = _OF_WORKLOAD
        return await self._db.run(_days, of, workload_id, from_day, to_day) if is_id(workload_id) else []

    async def days_of_nodes(self, node_ids: Sequence[str], *, from_day: str, to_day: str) -> list[SealedDay]:
        ids = [node_id for node_id in node_ids if is_id(node_id)]
        return await self._db.run(_days, _OF_NODES, ids, from_day, to_day) if ids else []

    async def sums_by_day(self, project_id: str, *, from_day: str, to_day: str) -> list[DaySums]:
        return await self._db.run(_sums, project_id, from_day, to_day) if is_id(project_id) else []

    async def block(self, seal: Seal, tree: int, block: int) -> list[bytes]:
        if tree == DAY_TREE:
            low = block * BLOCK_LEAVES
            found = await self.rows(seal, after_place=low - 1, limit=BLOCK_LEAVES)
            return [leaf_hash(DAY_DOMAIN, _text(seal, row)) for _, row in found]
        records = await self._db.run(_node_block, seal.seal_no, block)
        return [leaf_hash(HOUR_DOMAIN, content) for content in _contents(seal, tree, records)]

    async def block_roots(self, seal: Seal, tree: int) -> list[bytes]:
        roots: bytes = await self._db.run(_block_roots, seal.seal_no, tree)
        return [roots[at : at + HASH_BYTES] for at in range(0, len(roots), HASH_BYTES)]

    async def hour_leaf(self, seal: Seal, hour: int, node_id: str) -> tuple[int, bytes] | None:
        found = await self._db.run(_node_place, seal.seal_no, node_id) if is_id(node_id) else None
        if found is None:
            return None
        place, records = found
        return place, _contents(seal, hour, records)[0]


def day_ms_of(day: str) -> int:
    """The beginning of a day YYYY-MM-DD, UTC."""
    return (datetime.date.fromisoformat(day) - datetime.date(1970, 1, 1)).days * DAY_MS


def day_of(at_ms: int) -> datetime.date:
    """The UTC day of an instant."""
    return datetime.date(1970, 1, 1) + datetime.timedelta(days=at_ms // DAY_MS)


def seal_of(record: Any) -> Seal:
    """A record of SEAL."""
    fields = dict(zip(Seal.__struct_fields__, record, strict=True))
    roots = fields["hour_roots"]
    hours = tuple(roots[at : at + HASH_BYTES] for at in range(0, len(roots), HASH_BYTES))
    return Seal(**fields | {"hour_roots": hours})


def row_of(record: Any) -> tuple[int, SealedRow]:
    """A record of _ROW, without its hours."""
    place, workload_id, node_id, operator_id, kind, source, from_ms, to_ms, ms, paid_ms, held, refused = (
        record[:12]
    )
    return place, SealedRow(
        workload_id=workload_id,
        node_id=node_id,
        operator_id=operator_id,
        kind=kind,
        source=source,
        from_ms=from_ms,
        to_ms=to_ms,
        ms=tuple(np.frombuffer(ms, ">u4").tolist()),
        paid_ms=paid_ms,
        held=() if held is None else msgspec.json.decode(held, type=tuple[Held, ...]),
        refused={} if refused is None else msgspec.json.decode(refused, type=dict[str, int]),
    )


def _text(seal: Seal, row: SealedRow) -> bytes:
    return row_text(row, project=seal.project, day=seal.day, revision=seal.revision)


def _contents(seal: Seal, hour: int, records: Sequence[Any]) -> list[bytes]:
    """What the leaves of these rows' nodes are over, in one hour."""
    assert 0 <= hour < HOURS
    hour_ms = day_ms_of(seal.day) + hour * HOUR_MS
    contents: list[bytes] = []
    for node_id, mine in groupby(records, key=lambda record: record["node_id"]):
        workloads = b"".join(
            uuid.UUID(record["workload_id"]).bytes + decode_hours(record["hours"])[hour].tobytes()
            for record in mine
        )
        assert len(workloads) % HOUR_DTYPE.itemsize == 0
        contents.append(hour_content(hour_ms=hour_ms, node=uuid.UUID(node_id).bytes, workloads=workloads))
    return contents


async def _progress(connection: Connection, project_id: str) -> SealProgress:
    first_day, due_day, sealing = await connection.fetchrow(_PROGRESS, project_id)
    watermarks = dict(await connection.fetch("select shard, watermark_ms from shard_state"))
    return SealProgress(first_day, due_day, tuple(sealing), watermarks)


async def _seals(connection: Connection, project_id: str, before: str | None, limit: int) -> list[Seal]:
    records = await connection.fetch(
        f"""{SEAL} where s.project_id = $1 and s.day in (
          select distinct day from seal where project_id = $1 and ($2::date is null or day < $2)
          order by day desc limit $3)
        order by s.day desc, s.revision desc""",
        project_id,
        None if before is None else datetime.date.fromisoformat(before),
        limit,
    )
    return [seal_of(record) for record in records]


async def newest_seal(
    connection: Connection, project_id: str, day: str, revision: int | None = None
) -> Seal | None:
    """That revision of a day, or its newest."""
    record = await connection.fetchrow(
        f"""{SEAL} where s.project_id = $1 and s.day = $2 and ($3::integer is null or s.revision = $3)
        order by s.revision desc limit 1""",
        project_id,
        datetime.date.fromisoformat(day),
        revision,
    )
    return None if record is None else seal_of(record)


async def _kinds_ms(connection: Connection, seal_no: int) -> bytes:
    return bytes(await connection.fetchval("select kinds_ms from seal where seal_no = $1", seal_no))


async def _rows(
    connection: Connection, seal_no: int, which: str, *arguments: object
) -> list[tuple[int, SealedRow]]:
    records = await connection.fetch(f"{_ROW} and {which} order by place", seal_no, *arguments)
    return [row_of(record) for record in records]


async def _days(connection: Connection, text: str, of: object, from_day: str, to_day: str) -> list[SealedDay]:
    first, last = (datetime.date.fromisoformat(each) for each in (from_day, to_day))
    days: list[SealedDay] = []
    for day, revision, node_id, workload_id, window_ms, paid_ms, ms in await connection.fetch(
        text, of, first, last
    ):
        up_ms, unobserved_ms = np.frombuffer(ms, ">u4")[[_UP, _UNOBSERVED]].tolist()
        days.append(SealedDay(day, revision, node_id, workload_id, window_ms, paid_ms, up_ms, unobserved_ms))
    return days


async def _sums(connection: Connection, project_id: str, from_day: str, to_day: str) -> list[DaySums]:
    first, last = (datetime.date.fromisoformat(each) for each in (from_day, to_day))
    days: list[DaySums] = []
    for day, revision, workloads, nodes, paid_ms, ms in await connection.fetch(
        _SUMS, project_id, first, last
    ):
        sums = dict(zip(KINDS, np.frombuffer(ms, ">i8").tolist(), strict=True))
        days.append(DaySums(day, revision, workloads, nodes, paid_ms, sums))
    return days


async def _places(connection: Connection, seal_no: int) -> list[int]:
    """The place of the first row of each block of nodes."""
    return [int(each) for each in np.frombuffer(await connection.fetchval(_NODE_BLOCKS, seal_no), ">u4")]


async def _node_block(connection: Connection, seal_no: int, block: int) -> list[Any]:
    firsts = await _places(connection, seal_no)
    if not 0 <= block < len(firsts):
        return []
    last = firsts[block + 1] if block + 1 < len(firsts) else None
    found: list[Any] = await connection.fetch(
        f"{_ROW} and place >= $2 and ($3::integer is null or place < $3) order by place",
        seal_no,
        firsts[block],
        last,
    )
    return found


async def _node_place(connection: Connection, seal_no: int, node_id: str) -> tuple[int, list[Any]] | None:
    """The node's place among the seal's nodes, and its rows."""
    records = await connection.fetch(f"{_ROW} and node_id = $2 order by place", seal_no, node_id)
    if not records:
        return None
    firsts = await _places(connection, seal_no)
    block = bisect_right(firsts, records[0]["place"]) - 1
    before = await connection.fetchval(
        "select count(distinct node_id) from sealed_row where seal_no = $1 and place >= $2 and place < $3",
        seal_no,
        firsts[block],
        records[0]["place"],
    )
    return block * BLOCK_LEAVES + int(before), list(records)


async def _block_roots(connection: Connection, seal_no: int, tree: int) -> bytes:
    found = await connection.fetchval(
        "select block_roots from seal_tree where seal_no = $1 and tree = $2", seal_no, tree
    )
    return bytes(found or b"")
