"""Maintenance windows in PostgreSQL: opened within the bounds of engine/core/maintenance.py.

What they do to verdicts and uptime is written elsewhere; windows of ordered updates are postgres_orders.py's.
"""

from __future__ import annotations

import msgspec

from engine.core.maintenance import check_window, days_of
from engine.core.people import Act
from engine.core.ports import NodeRefusedError
from engine.core.records import Window
from storage.pool import Connection
from storage.postgres_audit import write_audit
from storage.postgres_nodes import locked_node, tell_engines


async def open_window(
    connection: Connection,
    node_id: str,
    window: Window,
    update: bool,
    now_ms: int,
    act: Act | None = None,
) -> None:
    async with connection.transaction():
        node = await locked_node(connection, node_id)
        there = window.workload_id is None or await connection.fetchval(
            "select true from workload where workload_id = $1 and node_id = $2", window.workload_id, node_id
        )
        if not there:
            raise NodeRefusedError(f"no workload {window.workload_id} on node {node_id}")
        # The node is locked: whoever opens another one at the same time comes after, and sees this one.
        opened = await windows_within(connection, node_id, *days_of(window))
        check_window(window, opened=opened, update=update, now_ms=now_ms)
        await connection.execute(
            """
            insert into maintenance_window (window_id, node_id, workload_id, from_ms, to_ms, own, created_ms)
            values ($1, $2, $3, $4, $5, $6, $7)
            """,
            window.window_id,
            node_id,
            window.workload_id,
            window.from_ms,
            window.to_ms,
            window.own,
            now_ms,
        )
        await tell_engines(connection, node, now_ms)
        if act is not None:
            project_id = await connection.fetchval(
                "select project_id::text from node where node_id = $1", node_id
            )
            await write_audit(
                connection,
                act,
                action="window.open",
                subject=window.window_id,
                project_id=project_id,
                detail={"node_id": node_id, "update": update, **msgspec.structs.asdict(window)},
            )


async def windows_within(connection: Connection, node_id: str, from_ms: int, to_ms: int) -> list[Window]:
    """The windows of a node and of its living workloads that touch [from_ms, to_ms)."""
    records = await connection.fetch(
        """
        select m.window_id::text, m.workload_id::text, m.from_ms, m.to_ms, m.own
        from maintenance_window m left join workload w using (workload_id)
        where m.node_id = $1 and m.from_ms < $3 and m.to_ms > $2 and w.retired_ms is null
        """,
        node_id,
        from_ms,
        to_ms,
    )
    return [Window(*record) for record in records]
