"""Filtered lists of nodes, workloads and events in PostgreSQL, and the census of a project.

Each list is made of one index scan per thing that the asker may see (a project, a person's machines), each
cut at the limit, and then put together: so a person's three machines are found among a million of others
without looking at them. Whatever is compared comes as a parameter, never in the statement's text.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.core.fleet import Census, EventFilter, NodeFilter, Place, Sight, WorkloadFilter
from engine.core.ports import NodeRecord, WorkloadRecord
from engine.core.records import Event
from storage.pool import Connection, Postgres
from storage.postgres_history import EVENT_FIELDS, events_of
from storage.postgres_nodes import read_nodes, read_workloads

_FIRST = "00000000-0000-0000-0000-000000000000"
_LAST_CURSOR = (1 << 63) - 1
# What a list is made of: where its rows are, and how one person's are found among them.
_NODES = "node n where {rest} {limit}"
_WORKLOADS = """workload w join node n using (node_id) left join workload_kind k using (kind_id)
where {rest} {limit}"""
_EVENTS = "event e where {rest} {limit}"
_MY_NODES = "node n where n.owner_id = {me} and {rest} {limit}"
_MY_WORKLOADS = """workload w join node n using (node_id) left join workload_kind k using (kind_id)
where n.owner_id = {me} and {rest} {limit}"""
_MY_EVENTS = """(select node_id as mine from node where owner_id = {me}) n cross join lateral (
  select e.* from event e where e.node_id = n.mine and {rest} {limit}) e {limit}"""

_LIVING = "n.project_id = $1 and n.retired_ms is null and n.revoked_ms is null"
_OF_NODES = f"from node n where {_LIVING}"
# Also of nodes that are gone: nobody is then counted in it, and that is cheaper than to join them all.
_GROUPS = """select distinct coalesce(k.slug, ''), coalesce(w.version, '')
from (select distinct kind_id, running_version as version from workload
  where project_id = $1 and retired_ms is null) w
left join workload_kind k using (kind_id) order by 1, 2"""
_NODE_CODES = f"""select n."row", r.code - 1
from node n join unnest($2::text[]) with ordinality as r (region, code) using (region) where {_LIVING}"""
_WORKLOAD_CODES = f"""select n."row", w.slot::bigint, r.code - 1, g.code - 1,
  (l.holder is not null and l.holder <> w.workload_id)::integer::bigint
from node n join unnest($2::text[]) with ordinality as r (region, code) using (region)
  join workload w using (node_id) left join workload_kind k using (kind_id)
  join unnest($3::text[], $4::text[]) with ordinality as g (slug, version, code)
    on g.slug = coalesce(k.slug, '') and g.version = coalesce(w.running_version, '')
  left join licence_lease l on l.licence_id = w.licence_id and l.to_ms is null
where {_LIVING} and w.retired_ms is null"""
CENSUS_S_MAX = 120.0  # a statement of it, of a million on a machine that has other things to do
_COPY_HEADER_BYTES, _COPY_TRAILER_BYTES = 19, 2


class PostgresFleet:
    """engine.core.fleet.Fleet on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def node_places(
        self, sight: Sight, which: NodeFilter, *, after: str | None, limit: int
    ) -> list[Place]:
        query = _Query(after or _FIRST, limit, key="n.node_id", project="n.project_id")
        query.begin_with("n.name", "select name from node where node_id = $1", which.prefix)
        query.narrow("n.project_id = {}", which.project_id)
        query.narrow("n.owner_id = {}", which.owner_id)
        query.narrow("n.region = {}", which.region)
        query.narrow("n.manager_version = {}", which.version)
        query.narrow("n.kind = {}", which.kind)
        query.between("n.node_id", which.ids)
        query.narrow('n."row" = any({}::bigint[])', which.rows)
        query.narrow("n.retired_ms is null", None if which.retired else True)
        return await self._places(query, 'n.node_id, n."row", 0', sight, _NODES, _MY_NODES)

    async def nodes(self, ids: Sequence[str]) -> list[NodeRecord]:
        found = await self._db.run(read_nodes, ids)
        return [node for node in found if node is not None]

    async def workload_places(
        self, sight: Sight, which: WorkloadFilter, *, after: str | None, limit: int
    ) -> list[Place]:
        query = _Query(after or _FIRST, limit, key="w.workload_id", project="w.project_id")
        query.begin_with("w.name", "select name from workload where workload_id = $1", which.prefix)
        query.narrow("w.project_id = {}", which.project_id)
        query.narrow("n.owner_id = {}", which.operator_id)
        query.narrow("w.node_id = {}", which.node_id)
        query.narrow("k.slug = {}", which.kind)
        query.narrow("w.running_version = {}", which.version)
        query.narrow("w.licence_id = {}", which.licence_id)
        query.narrow("n.region = {}", which.region)
        query.between("w.workload_id", which.ids)
        query.narrow('n."row" = any({}::bigint[])', which.rows)
        query.narrow("w.retired_ms is null", None if which.retired else True)
        return await self._places(query, 'w.workload_id, n."row", w.slot', sight, _WORKLOADS, _MY_WORKLOADS)

    async def workloads(self, ids: Sequence[str]) -> list[WorkloadRecord]:
        return await self._db.run(read_workloads, ids)

    async def events(
        self, sight: Sight, which: EventFilter, *, after: int, limit: int, newest: bool = False
    ) -> list[tuple[int, Event]]:
        if newest and not after:
            after = _LAST_CURSOR
        query = _Query(after, limit, key="e.cursor", project="e.project_id", descending=newest)
        query.narrow("e.project_id = {}", which.project_id)
        query.narrow("e.node_id = {}", which.node_id)
        query.narrow("e.kind = any({}::text[])", which.kinds or None)
        return events_of(await self._db.run(_fetch, query, EVENT_FIELDS, sight, _EVENTS, _MY_EVENTS))

    async def newest_cursor(self) -> int:
        return await self._db.run(_newest_cursor)

    async def census(self, project_id: str) -> Census:
        return await self._db.run(_census, project_id)

    async def _places(self, query: _Query, columns: str, sight: Sight, all_of: str, mine: str) -> list[Place]:
        records = await self._db.run(_fetch, query, columns, sight, all_of, mine)
        return [Place(str(identity), row, slot) for *_, identity, row, slot in records]


class _Query:
    """A list's statement while it is being put together: by key, narrowed down, within a sight."""

    def __init__(
        self, after: object, limit: int, *, key: str, project: str, descending: bool = False
    ) -> None:
        self.arguments: list[object] = [after, limit]
        self._key = key
        self._project = project
        self._direction = " desc" if descending else ""
        self._conditions = [f"{key} {'<' if descending else '>'} $1"]
        self._order, self._sorted, self._columns = key, "1", ""

    def begin_with(self, name: str, name_of_last: str, prefix: str | None) -> None:
        """Only what is called so, in order of names: by ids, a rare name would be looked for among all.

        `name_of_last`: the statement that tells the name of the last one before.
        """
        if not prefix:
            return
        name = f'{name} collate "C"'
        # The one beginning of the scan: beside another lower bound this one alone would be gone by.
        least = f'greatest(({name_of_last}) collate "C", {self._parameter(prefix)})'
        self._conditions = [f"({name}, {self._key}) > ({least}, $1)"]
        self._order, self._sorted, self._columns = f"{name}, {self._key}", "1, 2", f"{name}, "
        self.narrow(f"{name} < {{}}", _after_all(prefix))

    def between(self, column: str, ends: tuple[str, str] | None) -> None:
        """What lies between the two, or is one of them."""
        if ends is not None:
            self.narrow(f"{column} >= {{}}", ends[0])
            self.narrow(f"{column} <= {{}}", ends[1])

    def narrow(self, condition: str, value: object | None) -> None:
        """One more condition, unless there is no value. ``{}`` stands for it."""
        if value is not None:
            place = self._parameter(value) if "{}" in condition else ""
            self._conditions.append(condition.format(place))

    def text(self, columns: str, sight: Sight, all_of: str, mine: str) -> str:
        """The statement; empty when nothing can be seen."""
        columns = self._columns + columns
        limit = f"order by {self._order}{self._direction} limit $2"
        rest = " and ".join(self._conditions)
        if sight.everything:
            return f"select {columns} from {all_of.format(rest=rest, limit=limit)}"
        parts = []
        if sight.projects:
            projects = self._parameter(list(sight.projects))
            within = all_of.format(rest=f"{self._project} = seen.project_id and {rest}", limit=limit)
            parts.append(
                f"select one.* from unnest({projects}::uuid[]) as seen (project_id)"
                f" cross join lateral (select {columns} from {within}) one"
            )
        if sight.operator_id is not None:
            of_me = mine.format(me=self._parameter(sight.operator_id), rest=rest, limit=limit)
            parts.append(f"select {columns} from {of_me}")
        # Not `union all`: what is both of one's project and of one's machines is told once.
        together = " union ".join(f"({part})" for part in parts)
        return (
            f"select * from ({together}) found order by {self._sorted}{self._direction} limit $2"
            if parts
            else ""
        )

    def _parameter(self, value: object) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"


def _after_all(prefix: str) -> str | None:
    """The least text, by code points, that comes after all that begin so; None: there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # Surrogates are no characters of a text.
    return kept[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


async def _fetch(
    connection: Connection, query: _Query, columns: str, sight: Sight, all_of: str, mine: str
) -> list[Any]:
    text = query.text(columns, sight, all_of, mine)
    return list(await connection.fetch(text, *query.arguments)) if text else []


async def _newest_cursor(connection: Connection) -> int:
    # Cursors are committed in their order (postgres_events.py), so nothing below this one can follow.
    return int(await connection.fetchval("select coalesce(max(cursor), 0) from event"))


async def _census(connection: Connection, project_id: str) -> Census:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await connection.fetch(f"select distinct n.region {_OF_NODES} order by 1", project_id)
        regions = [record[0] for record in found]
        # The planner takes joins by codes for nearly empty, and would go through a million rows one by one.
        await connection.execute("set local enable_nestloop = off")
        groups = await connection.fetch(_GROUPS, project_id, timeout=CENSUS_S_MAX)
        nodes = await _numbers(connection, 2, _NODE_CODES, project_id, regions)
        slugs, versions = [record[0] for record in groups], [record[1] for record in groups]
        workloads = await _numbers(connection, 5, _WORKLOAD_CODES, project_id, regions, slugs, versions)
    return Census(
        nodes[:, 0],
        nodes[:, 1],
        workloads[:, 0],
        workloads[:, 1],
        workloads[:, 2],
        workloads[:, 3],
        workloads[:, 4] != 0,
        tuple(regions),
        tuple((slug or None, version or None) for slug, version in groups),
    )


async def _numbers(connection: Connection, columns: int, query: str, *arguments: object) -> np.ndarray:
    """Rows of whole numbers (bigint), in order of the first, without a Python object for each."""
    found = io.BytesIO()
    await connection.copy_from_query(query, *arguments, output=found, format="binary", timeout=CENSUS_S_MAX)
    raw = found.getbuffer()[_COPY_HEADER_BYTES:-_COPY_TRAILER_BYTES]
    row = np.dtype([("fields", ">i2"), ("values", [("bytes", ">i4"), ("value", ">i8")], columns)])
    numbers = np.frombuffer(raw, row)["values"]["value"].astype(np.int64)
    return numbers[np.argsort(numbers[:, 0], kind="stable")]
