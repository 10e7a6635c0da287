"""Making many nodes with their workloads at once, by COPY; rows are given out densely (postgres_nodes.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from engine.core.keys import SALT_BYTES
from engine.core.people import Act
from engine.core.ports import NewNode, NodeRecord
from storage.ids import new_id
from storage.pool import Connection
from storage.postgres_audit import write_audit
from storage.postgres_bindings import bind

_NODE_COLUMNS = (
    "node_id",
    "row",
    "project_id",
    "kind",
    "name",
    "public_key",
    "interval_ms",
    "salt",
    "created_ms",
    "owner_id",
    "region",
)
_WORKLOAD_COLUMNS = (
    "workload_id",
    "node_id",
    "project_id",
    "slot",
    "name",
    "created_ms",
    "kind_id",
    "licence_id",
)


async def create_nodes(
    connection: Connection, nodes: Sequence[NewNode], now_ms: int, act: Act | None = None
) -> list[NodeRecord]:
    async with connection.transaction():
        first = await connection.fetchval(
            "update row_counter set next_row = next_row + $1 returning next_row - $1", len(nodes)
        )
        made = [
            NodeRecord(
                node_id=node.node_id or new_id(),
                row=row,
                project_id=node.project_id,
                kind=node.kind,
                name=node.name,
                public_key=node.public_key,
                interval_ms=node.interval_ms,
                revoked=False,
                created_ms=now_ms,
                workload_ids=tuple(new_id() for _ in node.workloads),
                owner_id=node.owner_id,
                region=node.region,
            )
            for row, node in enumerate(nodes, first)
        ]
        await _copy(connection, nodes, made, now_ms)
        if act is not None and made:
            await _audit_many(connection, act, made)
    return made


async def _audit_many(connection: Connection, act: Act, made: Sequence[NodeRecord]) -> None:
    """One entry, however many they are: they were asked for together."""
    projects = {one.project_id for one in made}
    detail = {
        "nodes": len(made),
        "kind": made[0].kind,
        "workloads": sum(len(one.workload_ids) for one in made),
        "last_node_id": made[-1].node_id,
    }
    await write_audit(
        connection,
        act,
        action="node.create",
        subject=made[0].node_id,
        project_id=projects.pop() if len(projects) == 1 else None,
        detail=detail,
    )


async def _copy(
    connection: Connection, nodes: Sequence[NewNode], made: Sequence[NodeRecord], now_ms: int
) -> None:
    await connection.copy_records_to_table(
        "node",
        columns=_NODE_COLUMNS,
        records=[
            (
                record.node_id,
                record.row,
                record.project_id,
                record.kind,
                record.name,
                record.public_key,
                record.interval_ms,
                os.urandom(SALT_BYTES),
                now_ms,
                record.owner_id,
                record.region,
            )
            for record in made
        ],
    )
    await connection.copy_records_to_table(
        "workload",
        columns=_WORKLOAD_COLUMNS,
        records=[
            (
                workload_id,
                record.node_id,
                record.project_id,
                slot,
                node.workloads[slot],
                now_ms,
                node.kind_ids[slot] if node.kind_ids else None,
                node.licence_ids[slot] if node.licence_ids else None,
            )
            for record, node in zip(made, nodes, strict=True)
            for slot, workload_id in enumerate(record.workload_ids)
        ],
    )
    bindings = [
        (workload_id, licence_id)
        for node, record in zip(nodes, made, strict=True)
        for workload_id, licence_id in zip(record.workload_ids, node.licence_ids, strict=False)
        if licence_id is not None
    ]
    await bind(connection, bindings, now_ms)
