"""Maintenance windows in PostgreSQL: opened within the bounds of engine/core/maintenance.py, and taken back.

What they do to verdicts and uptime is written elsewhere; windows of ordered updates are postgres_orders.py's.
"""

from __future__ import annotations

import msgspec

from engine.core.maintenance import check_window, days_of
from engine.core.people import Act
from engine.core.ports import NodeRefusedError, WindowRefusedError
from engine.core.records import Window
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_nodes import locked_node, tell_engines

_WINDOW = "select window_id::text, workload_id::text, from_ms, to_ms, own from maintenance_window m"
# It never was, but it still counts among the windows of its day.
_TAKE_BACK = """
with gone as (delete from maintenance_window where window_id = $1
  returning window_id, node_id, workload_id, from_ms, to_ms, own)
insert into window_taken_back (window_id, node_id, workload_id, from_ms, to_ms, own, taken_back_ms)
select window_id, node_id, workload_id, from_ms, to_ms, own, $2 from gone
"""


class PostgresWindows:
    """engine.core.maintenance.Windows on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def of_node(
        self, node_id: str, *, from_ms: int, to_ms: int, after: str | None, limit: int
    ) -> list[Window]:
        return await self._db.run(_of_node, node_id, from_ms, to_ms, after, limit) if is_id(node_id) else []

    async def window(self, node_id: str, window_id: str) -> Window | None:
        if not (is_id(node_id) and is_id(window_id)):
            return None
        return await self._db.run(_window, node_id, window_id)

    async def end(self, node_id: str, window_id: str, *, act: Act) -> Window | None:
        return await self._db.run(_end, node_id, window_id, act)


async def _of_node(
    connection: Connection, node_id: str, from_ms: int, to_ms: int, after: str | None, limit: int
) -> list[Window]:
    records = await connection.fetch(
        f"""{_WINDOW} where node_id = $1 and from_ms < $3 and to_ms > $2
          and ($4::uuid is null or window_id > $4) order by m.window_id limit $5""",
        node_id,
        from_ms,
        to_ms,
        after,
        limit,
    )
    return [Window(*record) for record in records]


async def _window(connection: Connection, node_id: str, window_id: str) -> Window | None:
    record = await connection.fetchrow(f"{_WINDOW} where node_id = $1 and window_id = $2", node_id, window_id)
    return Window(*record) if record else None


async def _end(connection: Connection, node_id: str, window_id: str, act: Act) -> Window | None:
    async with connection.transaction():
        node = await locked_node(connection, node_id)
        found = await _window(connection, node_id, window_id)
        if found is None or found.to_ms <= act.now_ms:
            raise WindowRefusedError("this window is over: what has passed is never changed")
        ended = None
        if found.from_ms >= act.now_ms:
            await connection.execute(_TAKE_BACK, window_id, act.now_ms)
        else:
            ended = msgspec.structs.replace(found, to_ms=act.now_ms)
            await connection.execute(
                "update maintenance_window set to_ms = $2 where window_id = $1", window_id, act.now_ms
            )
        await tell_engines(connection, node, act.now_ms)
        await _audit(connection, act, "window.end", node_id, ended or found, taken_back=ended is None)
        return ended


async def open_window(
    connection: Connection,
    node_id: str,
    window: Window,
    update: bool,
    now_ms: int,
    act: Act | None = None,
) -> Window:
    """The window; one of this id that is there already is left as it is."""
    async with connection.transaction():
        node = await locked_node(connection, node_id)
        made = await _window(connection, node_id, window.window_id)
        if made is not None:
            return made
        there = window.workload_id is None or await connection.fetchval(
            "select true from workload where workload_id = $1 and node_id = $2", window.workload_id, node_id
        )
        if not there:
            raise NodeRefusedError(f"no workload {window.workload_id} on node {node_id}")
        # The node is locked: whoever opens another one at the same time comes after, and sees this one.
        await must_fit(connection, node_id, window, update=update, now_ms=now_ms)
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
            await _audit(connection, act, "window.open", node_id, window, update=update)
        return window


async def _audit(
    connection: Connection, act: Act, action: str, node_id: str, window: Window, **how: bool
) -> None:
    project_id = await connection.fetchval("select project_id::text from node where node_id = $1", node_id)
    await write_audit(
        connection,
        act,
        action=action,
        subject=window.window_id,
        project_id=project_id,
        detail={"node_id": node_id, **how, **msgspec.structs.asdict(window)},
    )


async def must_fit(
    connection: Connection, node_id: str, window: Window, *, update: bool, now_ms: int
) -> None:
    """WindowRefusedError. The node is locked."""
    days = days_of(window)
    check_window(
        window,
        opened=await _within(connection, "maintenance_window", node_id, *days),
        taken_back=await _within(connection, "window_taken_back", node_id, *days),
        update=update,
        now_ms=now_ms,
    )


async def _within(connection: Connection, table: str, node_id: str, from_ms: int, to_ms: int) -> list[Window]:
    """The windows of a node and of its living workloads that touch [from_ms, to_ms)."""
    records = await connection.fetch(
        f"""
        select m.window_id::text, m.workload_id::text, m.from_ms, m.to_ms, m.own
        from {table} m left join workload w using (workload_id)
        where m.node_id = $1 and m.from_ms < $3 and m.to_ms > $2 and w.retired_ms is null
        """,
        node_id,
        from_ms,
        to_ms,
    )
    return [Window(*record) for record in records]
