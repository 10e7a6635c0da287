"""Orders in PostgreSQL: what NodePulse ordered that restarts a workload, and the windows that excuse it.

`what` is the id of a version, or ``restart:<which>:<id of the request>``. Each order opens at most one
window, the first time that its manager fetches it and there is room; it ends one interval after the manager
said that it is done. All here runs in the transaction of a caller that has locked the node's row and
announces it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.core.orders import ORDER_MS, DesiredWorkload
from engine.core.ports import WindowRefusedError
from engine.core.records import Window
from storage.ids import new_id
from storage.pool import Connection
from storage.postgres_wanted import NodeNow
from storage.postgres_windows import must_fit

_RESTART = "restart"


class Order(msgspec.Struct, frozen=True):
    workload_id: str
    what: str
    window_id: str | None
    ordered_ms: int
    done_ms: int | None

    @property
    def restart(self) -> int | None:
        """The which-th restart of its workload this is; None for a version."""
        kind, _, rest = self.what.partition(":")
        return int(rest.partition(":")[0]) if kind == _RESTART else None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a manager reports: the version that runs now, the restarts that are done; None: nothing of it."""

    version_id: str | None = None
    restarts: int | None = None


async def open_orders(
    connection: Connection, node: NodeNow, workloads: Sequence[DesiredWorkload], now_ms: int
) -> bool:
    """Open a window for each order that a manager is about to fetch; whether any was opened."""
    heard = {one.workload_id for one in node.workloads if one.first_report_ms is not None}
    orders = await _orders(connection, sorted(heard))
    opened = False
    for workload in workloads:
        workload_id = workload.wanted.workload_id
        if workload_id not in heard:
            continue  # nothing was heard of it yet, so there is nothing to excuse
        for order in _pending(workload, orders.get(workload_id, []), now_ms):
            if order.window_id is not None:
                continue
            window_id = await _try_window(connection, node.node_id, workload_id, now_ms)
            await _put(connection, msgspec.structs.replace(order, window_id=window_id))
            opened = opened or window_id is not None
    return opened


async def close_orders(
    connection: Connection,
    node: NodeNow,
    workload_id: str,
    done: Done,
    *,
    desired_id: str | None,
    now_ms: int,
) -> bool:
    """Close what a report fulfils, and with a version what is no longer desired; whether a window changed."""
    found = (await _orders(connection, [workload_id])).get(workload_id, [])
    closed = [one for one in found if one.done_ms is None and _is_done(one, done, desired_id)]
    if not closed:
        return False
    await connection.execute(
        "update workload_order set done_ms = $3 where workload_id = $1 and what = any($2)",
        workload_id,
        [one.what for one in closed],
        now_ms,
    )
    # One interval more: until the next beat the last one still says that the workload is not up. It may have
    # been opened by a process whose clock is ahead: it ends after it began all the same.
    shortened = await connection.fetch(
        """
        update maintenance_window set to_ms = greatest($2, from_ms + 1)
        where window_id = any($1::uuid[]) and to_ms > $2
        returning window_id
        """,
        [one.window_id for one in closed if one.window_id is not None],
        now_ms + node.interval_ms,
    )
    return bool(shortened)


async def add_restart(
    connection: Connection, workload_id: str, *, number: int, request_id: str, now_ms: int
) -> None:
    """Write down that the `number`-th restart of a workload was ordered, by this request."""
    what = f"{_RESTART}:{number}:{request_id}"
    await _put(connection, Order(workload_id, what, None, now_ms, None))


async def restart_of(connection: Connection, workload_id: str, *, request_id: str) -> int | None:
    """Which restart of the workload a request ordered; None: none yet."""
    orders = (await _orders(connection, [workload_id])).get(workload_id, [])
    found = [one.restart for one in orders if one.restart is not None and one.what.endswith(f":{request_id}")]
    return found[0] if found else None


async def _orders(connection: Connection, workload_ids: Sequence[str]) -> dict[str, list[Order]]:
    records = await connection.fetch(
        """
        select workload_id::text, what, window_id::text, ordered_ms, done_ms from workload_order
        where workload_id = any($1::uuid[])
        """,
        workload_ids,
    )
    found: dict[str, list[Order]] = {}
    for record in records:
        found.setdefault(record["workload_id"], []).append(Order(*record))
    return found


def _pending(workload: DesiredWorkload, orders: Sequence[Order], now_ms: int) -> list[Order]:
    """The update and the newest restart that the manager has to do now."""
    pending = []
    wanted = workload.wanted
    if wanted.version_id is not None and workload.version != workload.running_version:
        there = [one for one in orders if one.what == wanted.version_id]
        pending += there or [Order(wanted.workload_id, wanted.version_id, None, now_ms, None)]
    restarts = [one for one in orders if one.restart is not None]
    pending += [max(restarts, key=lambda one: one.restart or 0)] if restarts else []
    return [one for one in pending if one.done_ms is None]


def _is_done(order: Order, done: Done, desired_id: str | None) -> bool:
    if order.restart is not None:
        return done.restarts is not None and order.restart <= done.restarts
    return done.version_id is not None and (order.what == done.version_id or order.what != desired_id)


async def _try_window(connection: Connection, node_id: str, workload_id: str, now_ms: int) -> str | None:
    """A window from now on, if the cap leaves room for one."""
    window = Window(new_id(), workload_id, now_ms, now_ms + ORDER_MS, own=False)
    try:
        await must_fit(connection, node_id, window, update=True, now_ms=now_ms)
    except WindowRefusedError:
        return None  # the order stands; the operator may do it when there is room again
    await connection.execute(
        """
        insert into maintenance_window
          (window_id, node_id, workload_id, from_ms, to_ms, own, created_ms, ordered)
        values ($1, $2, $3, $4, $5, false, $4, true)
        """,
        window.window_id,
        node_id,
        workload_id,
        window.from_ms,
        window.to_ms,
    )
    return window.window_id


async def _put(connection: Connection, order: Order) -> None:
    await connection.execute(
        """
        insert into workload_order (workload_id, what, window_id, ordered_ms, done_ms)
        values ($1, $2, $3, $4, $5)
        on conflict (workload_id, what) do update set window_id = excluded.window_id
        """,
        order.workload_id,
        order.what,
        order.window_id,
        order.ordered_ms,
        order.done_ms,
    )
