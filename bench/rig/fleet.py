"""A fleet in real stores for benches of web: registry, a day of history, the live view; no engine.

One workload per node unless more are asked for. Most were up all day; every tenth had outages. Made by SQL
and by binary COPY, because a million nodes through the registry's own doors would take longer than what is
measured.
"""

from __future__ import annotations

import hashlib
import io
from typing import NamedTuple

import asyncpg
import numpy as np

from bench.rig.world import PROJECT_ID
from engine.core.liveview import ROW_DTYPE, SLOT_DTYPE
from engine.core.ports import LiveView
from engine.core.records import BASE_UP, INTERVAL_DTYPE, NODE_STATES, ShardHead
from storage.postgres_history import _COLUMNS, _COPY_HEADER, _COPY_TRAILER, copy_rows

SLUG, KEY = "bench", "np_bench"
DAY_MS = 86_400_000
TTL_MS = 90_000
OUTAGES = 3
PART = 100_000
_PROJECT = "0192d000-0000-7000-8000-000000000001"
_ID = "(lpad(to_hex({high}), 16, '0') || lpad(to_hex({low}), 16, '0'))::uuid"
_WORKLOAD_HI = 0x0192F000_0000_7000
_WORKLOAD_LO = 0x8000_000000000000


class Fleet(NamedTuple):
    """`day_ms`: the beginning of the day that is asked about; everybody beat at `now_ms` last.

    `per_node`: workloads of each node, a divisor of PART; all nodes are full.
    """

    workloads: int
    day_ms: int
    now_ms: int
    per_node: int = 1

    @property
    def nodes(self) -> int:
        return self.workloads // self.per_node

    @property
    def flaky(self) -> np.ndarray:
        """Who had outages."""
        return np.asarray(np.arange(self.workloads) % 10 == 3)


async def register(connection: asyncpg.Connection, fleet: Fleet) -> None:
    """The project, its key, nodes and workloads."""
    born_ms = fleet.day_ms - 30 * DAY_MS
    await connection.execute("insert into project values ($1, $2, $3)", _PROJECT, SLUG, born_ms)
    await _add_key(connection, _PROJECT, born_ms)
    for first in range(0, fleet.workloads, PART):
        many = min(PART, fleet.workloads - first)
        await connection.execute(
            """
            insert into node (node_id, "row", project_id, kind, name, public_key, interval_ms, salt,
              created_ms, region)
            select ('0192e000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n, $1, 'node',
              'node-' || n, null, 60000, '\\x0000000000000000', $2, 'region-' || n % 7
            from generate_series($3::bigint, $4::bigint) n
            """,
            _PROJECT,
            born_ms,
            first // fleet.per_node,
            (first + many) // fleet.per_node - 1,
        )
        await connection.execute(
            """
            insert into workload (workload_id, node_id, slot, name, created_ms, first_report_ms, project_id)
            select ('0192f000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
              ('0192e000-0000-7000-8000-' || lpad(to_hex(n / $5), 12, '0'))::uuid, n % $5, 'inference-' || n,
              $2, $2, $1
            from generate_series($3::bigint, $4::bigint) n
            """,
            _PROJECT,
            born_ms,
            first,
            first + many - 1,
            fleet.per_node,
        )
    await connection.execute("insert into shard_state values (0, 1, $1, $1)", fleet.now_ms)
    await connection.execute("vacuum analyze")


async def register_table(connection: asyncpg.Connection, *, rows: int, workloads: int, born_ms: int) -> None:
    """What `bench.rig.world.fill` puts into a table, for web to find: the same ids, and the key."""
    await connection.execute("insert into project values ($1, $2, $3)", PROJECT_ID, SLUG, born_ms)
    await _add_key(connection, PROJECT_ID, born_ms)
    await connection.execute(
        f"""
        insert into node (node_id, "row", project_id, kind, name, interval_ms, salt, created_ms, region)
        select {_ID.format(high="(n + (1::bigint << 62))", low="n")}, n, $1, 'node', 'node-' || n, 60000,
          '\\x0000000000000000', $2, 'region-' || n % 7
        from generate_series(0::bigint, $3::bigint - 1) n
        """,
        PROJECT_ID,
        born_ms,
        rows,
    )
    await connection.execute(
        f"""
        insert into workload (workload_id, node_id, slot, name, created_ms, project_id, running_version)
        select {_ID.format(high="n", low="(n * $4::bigint + s)")},
          {_ID.format(high="(n + (1::bigint << 62))", low="n")}, s, 'inference-' || n, $2, $1,
          case when n % 5000 = 7 then '2.0.0-rc.1' else '1.' || n % 3 || '.0' end
        from generate_series(0::bigint, $3::bigint - 1) n, generate_series(0, $4::bigint - 1) s
        """,
        PROJECT_ID,
        born_ms,
        rows,
        workloads,
    )
    await connection.execute("vacuum analyze")


async def _add_key(connection: asyncpg.Connection, project_id: str, born_ms: int) -> None:
    await connection.execute(
        "insert into api_key (key_id, key_sha256, scope, project_id, name, created_ms)"
        " values ($1, $2, 'project', $1, 'bench', $3)",
        project_id,
        hashlib.sha256(KEY.encode()).digest(),
        born_ms,
    )


async def write_day(connection: asyncpg.Connection, fleet: Fleet, *, days: int = 1) -> int:
    """Closed rows: two old ones of everybody, and the day's of those with outages. How many.

    `days`: as many with such outages, of which the fleet's day is the last; at most 2.
    """
    everybody, flaky = np.arange(fleet.workloads), np.flatnonzero(fleet.flaky)
    rows = [
        _rows(everybody, fleet.day_ms - (9 - 3 * each) * DAY_MS, fleet.day_ms - (7 - 3 * each) * DAY_MS)
        for each in range(2)
    ]
    rows += [
        _rows(flaky, day_ms + number * DAY_MS // OUTAGES, day_ms + _outage(number))
        for day_ms in (fleet.day_ms - day * DAY_MS for day in range(days))
        for number in range(OUTAGES)
    ]
    return await _copy(connection, rows)


async def days_sealed_before(connection: asyncpg.Connection, day_ms: int) -> None:
    """As if all days before had been sealed: this one's turn is next."""
    await connection.execute(
        """
        insert into seal (seal_no, project_id, day, revision, "rows", nodes, paid_ms, root, hour_roots,
          node_blocks, sealed_ms)
        values (1, $1, date '1970-01-01' + $2::integer, 1, 0, 0, 0, $3, $4, '', $5)
        """,
        _PROJECT,
        day_ms // DAY_MS - 1,
        bytes(32),
        bytes(24 * 32),
        day_ms,
    )


async def close_all(connection: asyncpg.Connection, fleet: Fleet) -> int:
    """As after a restart of the engine this morning: the row that held all day was closed since."""
    steady = np.flatnonzero(~fleet.flaky)
    return await _copy(connection, [_rows(steady, _steady_since(fleet), fleet.day_ms + DAY_MS + 1_000)])


async def write_view(live: LiveView, fleet: Fleet, *, restarted: bool) -> None:
    """The live view: everybody is up, since long ago or (`restarted`) since this morning."""
    head = ShardHead(0, 1, "bench", fleet.now_ms, 1, fleet.nodes, False, None, fleet.now_ms)
    await live.reset(head)
    for first in range(0, fleet.workloads, PART):
        numbers = np.arange(first, min(first + PART, fleet.workloads))
        rows, slots = _view_rows(fleet, numbers[:: fleet.per_node]), _view_slots(fleet, numbers, restarted)
        for records, at in ((rows, first // fleet.per_node), (slots, first)):
            for part in range(0, len(records), 10_000):
                page = [((at + part) * records.itemsize, records[part : part + 10_000].tobytes())]
                named = {"rows": page, "slots": []} if records is rows else {"rows": [], "slots": page}
                assert await live.write(head, **named)


def _view_rows(fleet: Fleet, firsts: np.ndarray) -> np.ndarray:
    """Of the nodes of these first workloads."""
    rows = np.zeros(len(firsts), ROW_DTYPE)
    rows["state"], rows["generation"], rows["ttl_ms"] = NODE_STATES.index("up"), 1, TTL_MS
    rows["last_t_ms"] = rows["since_ms"] = fleet.now_ms
    rows["plane0"] = rows["slots"] = rows["seen"] = (1 << fleet.per_node) - 1
    rows["slot_base"], rows["slot_count"] = firsts, fleet.per_node
    return rows


def _view_slots(fleet: Fleet, numbers: np.ndarray, restarted: bool) -> np.ndarray:
    slots = np.zeros(len(numbers), SLOT_DTYPE)
    slots["kind"], slots["ttl_ms"] = BASE_UP, TTL_MS
    slots["first_report_ms"] = fleet.day_ms - 30 * DAY_MS
    morning_ms = fleet.day_ms + DAY_MS + 2_000
    steady_ms = morning_ms if restarted else _steady_since(fleet)
    slots["started_ms"] = np.where(fleet.flaky[numbers], morning_ms, steady_ms)
    return slots


def _steady_since(fleet: Fleet) -> int:
    return fleet.day_ms - 2 * DAY_MS


def _outage(number: int) -> int:
    """When the outage begins, in the day: ten minutes before the next stretch, two hours the last one."""
    return (number + 1) * DAY_MS // OUTAGES - (600_000 if number < OUTAGES - 1 else 7_200_000)


def _rows(numbers: np.ndarray, started_ms: int, ended_ms: int) -> np.ndarray:
    rows = np.zeros(len(numbers), INTERVAL_DTYPE)
    rows["hi"], rows["lo"] = _WORKLOAD_HI, numbers.astype(np.uint64) + np.uint64(_WORKLOAD_LO)
    rows["kind"], rows["ttl_ms"], rows["started_ms"], rows["ended_ms"] = BASE_UP, TTL_MS, started_ms, ended_ms
    return rows


async def _copy(connection: asyncpg.Connection, parts: list[np.ndarray]) -> int:
    for rows in parts:
        for first in range(0, len(rows), PART):
            source = _COPY_HEADER + copy_rows(rows[first : first + PART]) + _COPY_TRAILER
            await connection.copy_to_table(
                "base_interval", source=io.BytesIO(source), columns=_COLUMNS, format="binary"
            )
    await connection.execute("vacuum analyze base_interval")
    return sum(map(len, parts))
