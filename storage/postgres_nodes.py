"""The SQL of nodes and workloads, run on the host loop for PostgresDirectory (postgres_directory.py).

Who changes a node locks its row first, everywhere: two orders of locking could wait for each other. What an
engine must hear of ends with `announce` in the same transaction.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from engine.core.keys import SALT_BYTES
from engine.core.people import Act
from engine.core.ports import NodeRecord, NodeRefusedError, RowFullError, WorkloadRecord
from engine.core.timing import SLOTS_MAX
from storage.ids import is_id, new_id
from storage.pool import Connection
from storage.postgres_audit import write_audit
from storage.postgres_bindings import bind, unbind
from storage.postgres_registry import announce

CAPABILITY_GENERATION_MAX = 65_535  # a u16 in the capability

_NODES = """
select n.node_id::text, n."row", n.project_id::text, n.kind, n.name, n.public_key, n.interval_ms,
  n.revoked_ms is not null, n.created_ms,
  array(select w.workload_id::text from workload w
    where w.node_id = n.node_id and w.retired_ms is null order by w.slot),
  n.owner_id::text, n.region, n.retired_ms, n.manager_version, n.partner_node_id
from node n
"""
_WORKLOADS = """
select w.workload_id::text, w.node_id::text, n.project_id::text, n."row", w.slot, w.name, w.created_ms,
  w.retired_ms, w.first_report_ms, n.owner_id::text, w.kind_id::text, w.licence_id::text, w.running_version,
  k.slug, exists(select from lease l where l.workload_id = w.workload_id)
from workload w join node n using (node_id) left join workload_kind k using (kind_id)
"""


def _node_record(record: Any) -> NodeRecord:
    fields = list(record)
    return NodeRecord(*[*fields[:9], tuple(fields[9]), *fields[10:]])


async def read_nodes(connection: Connection, node_ids: Sequence[str]) -> list[NodeRecord | None]:
    """One for each id, in their order."""
    records = await connection.fetch(f"{_NODES} where n.node_id = any($1::uuid[])", node_ids)
    found = {record["node_id"]: _node_record(record) for record in records}
    return [found.get(node_id) for node_id in node_ids]


async def list_nodes(
    connection: Connection, project_id: str | None, after: str | None, limit: int
) -> list[NodeRecord]:
    records = await connection.fetch(
        f"""{_NODES}
        where n.node_id > $1 {"and n.project_id = $3" if project_id else ""}
        order by n.node_id limit $2
        """,
        after if after and is_id(after) else "00000000-0000-0000-0000-000000000000",
        limit,
        *([project_id] if project_id else []),
    )
    return [_node_record(record) for record in records]


async def read_workload(connection: Connection, workload_id: str) -> WorkloadRecord | None:
    record = await connection.fetchrow(f"{_WORKLOADS} where w.workload_id = $1", workload_id)
    return WorkloadRecord(*record) if record else None


async def read_workloads(connection: Connection, workload_ids: Sequence[str]) -> list[WorkloadRecord]:
    """Those that there are, in order of their ids."""
    records = await connection.fetch(
        f"{_WORKLOADS} where w.workload_id = any($1::uuid[]) order by w.workload_id", workload_ids
    )
    return [WorkloadRecord(*record) for record in records]


async def workloads_of_project(
    connection: Connection, project_id: str, ids: list[str]
) -> dict[str, WorkloadRecord]:
    records = await connection.fetch(
        f"{_WORKLOADS} where w.workload_id = any($1::uuid[]) and n.project_id = $2", ids, project_id
    )
    return {record[0]: WorkloadRecord(*record) for record in records}


async def locked_node(connection: Connection, node_id: str) -> Any:
    """The row of a node that is neither revoked nor retired, locked to the end of the transaction."""
    record = await connection.fetchrow(
        """
        select "row", generation, capability_generation from node
        where node_id = $1 and revoked_ms is null and retired_ms is null for update
        """,
        node_id,
    )
    if record is None:
        raise NodeRefusedError(f"node {node_id} is unknown, revoked or retired")
    return record


async def tell_engines(connection: Connection, node: Any, now_ms: int) -> None:
    if node["generation"] or node["capability_generation"]:
        await announce(connection, [node["row"]], now_ms)


async def add_workload(
    connection: Connection,
    node_id: str,
    name: str,
    now_ms: int,
    kind_id: str | None = None,
    licence_id: str | None = None,
    workload_id: str = "",
) -> WorkloadRecord:
    async with connection.transaction():
        node = await locked_node(connection, node_id)
        slot = await connection.fetchval(
            "select coalesce(max(slot) + 1, 0) from workload where node_id = $1", node_id
        )
        if slot >= SLOTS_MAX:
            raise RowFullError(
                f"all {SLOTS_MAX} slots of node {node_id} were given out; register a further node key"
            )
        workload_id = workload_id or new_id()
        await connection.execute(
            """
            insert into workload
              (workload_id, node_id, project_id, slot, name, created_ms, kind_id, licence_id)
            select $1, node_id, project_id, $3, $4, $5, $6, $7 from node where node_id = $2
            """,
            workload_id,
            node_id,
            slot,
            name,
            now_ms,
            kind_id,
            licence_id,
        )
        if licence_id is not None:
            await bind(connection, [(workload_id, licence_id)], now_ms)
        await tell_engines(connection, node, now_ms)
        made = await read_workload(connection, workload_id)
    assert made is not None
    return made


async def retire_workload(connection: Connection, workload_id: str, now_ms: int) -> bool:
    async with connection.transaction():
        # The node first, as everywhere: two orders of locking could wait for each other.
        node = await connection.fetchrow(
            """
            select "row", generation, capability_generation from node
            where node_id = (select node_id from workload where workload_id = $1) for update
            """,
            workload_id,
        )
        retired = await connection.fetchval(
            """
            update workload set retired_ms = $2 where workload_id = $1 and retired_ms is null returning true
            """,
            workload_id,
            now_ms,
        )
        if retired:
            await unbind(connection, [workload_id], "retired", now_ms)
            await tell_engines(connection, node, now_ms)
    return bool(retired)


async def revoke_node(connection: Connection, node_id: str, now_ms: int) -> int | None:
    async with connection.transaction():
        row = await connection.fetchval(
            """
            update node set revoked_ms = coalesce(revoked_ms, $2), salt = $3 where node_id = $1
            returning "row"
            """,
            node_id,
            now_ms,
            os.urandom(SALT_BYTES),
        )
        if row is None:
            return None
        await _kill_sessions(connection, row, now_ms)
        return await announce(connection, [row], now_ms)


async def rekey_node(connection: Connection, node_id: str, public_key: bytes, now_ms: int) -> None:
    """From now on this key. The salt goes with the old one, so its generations mean nothing any more."""
    async with connection.transaction():
        node = await locked_node(connection, node_id)
        await connection.execute(
            "update node set public_key = $2, salt = $3 where node_id = $1",
            node_id,
            public_key,
            os.urandom(SALT_BYTES),
        )
        await _kill_sessions(connection, node["row"], now_ms)
        await tell_engines(connection, node, now_ms)


async def _kill_sessions(connection: Connection, row: int, now_ms: int) -> None:
    await connection.execute(
        'update session set killed_ms = $2 where "row" = $1 and killed_ms is null', row, now_ms
    )


async def retire_node(connection: Connection, node_id: str, now_ms: int) -> bool:
    """With its workloads. False: there was nothing to retire."""
    async with connection.transaction():
        node = await connection.fetchrow(
            """
            update node set retired_ms = $2 where node_id = $1 and retired_ms is null
            returning "row", generation, capability_generation
            """,
            node_id,
            now_ms,
        )
        if node is None:
            return False
        retired = await connection.fetch(
            """
            update workload set retired_ms = $2 where node_id = $1 and retired_ms is null
            returning workload_id::text
            """,
            node_id,
            now_ms,
        )
        await unbind(connection, [record[0] for record in retired], "retired", now_ms)
        await tell_engines(connection, node, now_ms)
    return True


async def rotate_capability(
    connection: Connection, node_id: str, now_ms: int, act: Act | None = None
) -> tuple[NodeRecord, int]:
    async with connection.transaction():
        locked = await locked_node(connection, node_id)
        generation = locked["capability_generation"] % CAPABILITY_GENERATION_MAX + 1
        await connection.execute(
            "update node set capability_generation = $2 where node_id = $1", node_id, generation
        )
        (node,) = await read_nodes(connection, [node_id])
        assert node is not None
        await announce(connection, [locked["row"]], now_ms)
        if act is not None:
            await write_audit(
                connection,
                act,
                action="node.capability",
                subject=node_id,
                project_id=node.project_id,
                detail={"generation": generation},
            )
    return node, generation
