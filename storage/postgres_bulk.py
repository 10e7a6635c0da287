"""Many workloads of a project at once, for bulk uptime: a page of the registry, and what history has of it.

Set-based, and each base row found by the primary key: two probes per workload however long its history is.
The same for one workload is in postgres_history.py; what may not be left out is said at `_AROUND`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from engine.core.bulk import Around, BulkItem, Touching, spans_of
from engine.core.compose_many import MAINTENANCE, MAINTENANCE_OWN, NEVER, STANDBY
from engine.core.coverage import OPEN_END
from engine.core.records import BaseInterval, Claim, Gap
from engine.core.timing import grace_of_ttl
from storage.pool import Connection, Postgres

_FIRST = "00000000-0000-0000-0000-000000000000"
# Columns in the order of BulkItem; the rest of a statement follows.
ITEM = """
select w.workload_id::text, w.name, w.slot, w.created_ms, w.retired_ms, w.first_report_ms, k.slug,
  w.licence_id::text, c.chain_id, c.contract, l.token_id::text,
  n.node_id::text, n.name, n."row", n.owner_id::text, n.partner_node_id
from workload w join node n using (node_id)
  left join workload_kind k using (kind_id)
  left join licence l on l.licence_id = w.licence_id
  left join collection c using (collection_id)
"""
_PAGE = f"""{ITEM}
where w.project_id = $1 and w.workload_id > $2 and w.created_ms < $4
  and (w.retired_ms is null or w.retired_ms > $3)
order by w.workload_id limit $5
"""
_BASE = """
select w.place - 1, b.kind, b.started_ms, b.ended_ms, b.ttl_ms
from unnest($1::uuid[]) with ordinality as w (workload_id, place) cross join lateral (
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = w.workload_id and started_ms < $2 order by started_ms desc limit 1)
  union all
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = w.workload_id and started_ms >= $2 and started_ms < $3)) b
"""
_LEASES = f"""
select w.place - 1, {STANDBY}, l.from_ms, coalesce(l.to_ms, {NEVER}), 0
from unnest($1::uuid[]) with ordinality as w (workload_id, place) join lease l using (workload_id)
where l.from_ms < $3 and (l.to_ms is null or l.to_ms > $2)
"""
_WINDOWS = f"""
select w.place - 1, case when m.own then {MAINTENANCE_OWN} else {MAINTENANCE} end, m.from_ms, m.to_ms, 0
from unnest($1::uuid[], $2::uuid[]) with ordinality as w (workload_id, node_id, place)
  join maintenance_window m using (node_id)
where m.from_ms < $4 and m.to_ms > $3 and (m.workload_id is null or m.workload_id = w.workload_id)
"""
_LAST = """
select coalesce((
    select max(ended_ms) from (select ended_ms from base_interval b where b.workload_id = w.workload_id
      order by started_ms desc limit 2) b where ended_ms < $2), 0)
from unnest($1::uuid[]) with ordinality as w (workload_id, place) order by place
"""
# As postgres_history._intervals: rows of one workload do not overlap, so of those that began before a range
# only the last can touch it; then the one before that is its neighbour.
_AROUND = """
select w.place - 1, b.kind, b.started_ms, b.ended_ms, b.ttl_ms
from unnest($1::uuid[], $2::bigint[], $3::bigint[]) with ordinality as w (workload_id, low, high, place)
cross join lateral (
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = w.workload_id and started_ms < w.low order by started_ms desc limit 2)
  union all
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = w.workload_id and started_ms >= w.low and started_ms < w.high)
  union all
  (select kind, started_ms, ended_ms, ttl_ms from base_interval
    where workload_id = w.workload_id and started_ms >= greatest(w.low, w.high)
    order by started_ms limit 1)) b
order by w.place, b.started_ms
"""
_CLAIMS = """
select w.place - 1, c.at_ms, c.kind, c.ttl_ms
from unnest($1::uuid[]) with ordinality as w (workload_id, place) join claim c using (workload_id)
where c.at_ms < $3 and c.at_ms + c.ttl_ms > $2 order by w.place, c.at_ms
"""
_CLAIMED = """
select distinct w.place - 1
from unnest($1::uuid[]) with ordinality as w (workload_id, place) join claim c using (workload_id)
where c.at_ms < $3 and c.at_ms + c.ttl_ms > $2
"""
_GAPS = """
select shard, from_ms, to_ms, cause, shards from gap where from_ms < $2 and to_ms > $1
order by from_ms, cause, shards
"""


class PostgresBulk:
    """engine.core.bulk.Bulk on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def page(
        self, project_id: str, *, after: str, limit: int, from_ms: int, to_ms: int
    ) -> list[BulkItem]:
        return await self._db.run(_page, project_id, after or _FIRST, from_ms, to_ms, limit)

    async def touching(
        self,
        workload_ids: Sequence[str],
        node_ids: Sequence[str],
        *,
        bare: Sequence[int],
        ttl_ms_max: int,
        from_ms: int,
        to_ms: int,
        claims_from_ms: int,
    ) -> Touching:
        return await self._db.run(
            _touching, workload_ids, node_ids, bare, ttl_ms_max, (from_ms, to_ms, claims_from_ms)
        )

    async def users(self, wallets: Sequence[str]) -> dict[str, str]:
        return await self._db.run(_users, wallets)

    async def last_ends(self, workload_ids: Sequence[str]) -> np.ndarray:
        return await self._db.run(_last_ends, workload_ids)

    async def around(
        self, ranges: Sequence[tuple[str, int, int]], *, claims_from_ms: int, claims_to_ms: int
    ) -> tuple[list[Around], list[Gap]]:
        return await self._db.run(_around, ranges, claims_from_ms, claims_to_ms)


async def _page(
    connection: Connection, project_id: str, after: str, from_ms: int, to_ms: int, limit: int
) -> list[BulkItem]:
    records = await connection.fetch(_PAGE, project_id, after, from_ms, to_ms, limit)
    return [BulkItem._make(record) for record in records]


async def _touching(
    connection: Connection,
    workload_ids: Sequence[str],
    node_ids: Sequence[str],
    bare: Sequence[int],
    ttl_ms_max: int,
    window: tuple[int, int, int],
) -> Touching:
    from_ms, to_ms, claims_from_ms = window
    # The watermarks first: what they speak of is then in every statement that follows.
    watermarks = dict(await connection.fetch("select shard, watermark_ms from shard_state"))
    base = np.empty((0, 5), np.int64)
    if bare:
        ids = [workload_ids[place] for place in bare]
        base = _table(await connection.fetch(_BASE, ids, from_ms, to_ms))
        base[:, 0] = np.asarray(bare)[base[:, 0]]
    leases = await connection.fetch(_LEASES, workload_ids, from_ms, to_ms)
    windows = await connection.fetch(_WINDOWS, workload_ids, node_ids, from_ms, to_ms)
    reach_ms = grace_of_ttl(max(ttl_ms_max, int(base[:, 4].max(initial=0))))
    gaps = await connection.fetch(_GAPS, from_ms - reach_ms, to_ms)
    records = _table([*leases, *windows])
    claimed = np.zeros(len(workload_ids), bool)
    if gaps:
        places = await connection.fetch(_CLAIMED, workload_ids, claims_from_ms, to_ms)
        claimed[[record[0] for record in places]] = True
    return Touching(
        watermarks, spans_of(base), spans_of(records), tuple(Gap(*each) for each in gaps), claimed
    )


def _table(records: Sequence[Any]) -> np.ndarray:
    """Records of five whole numbers as an array, without a Python object per number for long."""
    return np.fromiter(chain.from_iterable(records), np.int64, 5 * len(records)).reshape(-1, 5)


async def _users(connection: Connection, wallets: Sequence[str]) -> dict[str, str]:
    return dict(
        await connection.fetch("select wallet, user_id::text from account where wallet = any($1)", wallets)
    )


async def _last_ends(connection: Connection, workload_ids: Sequence[str]) -> np.ndarray:
    records = await connection.fetch(_LAST, workload_ids, OPEN_END)
    return np.array([record[0] for record in records], np.int64)


async def _around(
    connection: Connection, ranges: Sequence[tuple[str, int, int]], claims_from_ms: int, claims_to_ms: int
) -> tuple[list[Around], list[Gap]]:
    ids, lows, highs = ([each[field] for each in ranges] for field in range(3))
    found = [Around([], []) for _ in ranges]
    gaps = [Gap(*record) for record in await connection.fetch(_GAPS, min(lows), max(highs))]
    for place, *row in await connection.fetch(_AROUND, ids, lows, highs):
        found[place].base.append(BaseInterval(*row))
    for place, *claim in await connection.fetch(_CLAIMS, ids, claims_from_ms, claims_to_ms):
        found[place].claims.append(Claim(*claim))
    return found, gaps
