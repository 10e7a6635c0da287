"""The desired state of one node in PostgreSQL: fetched by its manager, reported on, and ordered restarts.

Whoever comes here locks the node's row first. What a fetch opens and a report closes are orders
(`workload_order`): at most one window each, kept in postgres_orders.py. Kinds at large: postgres_rollouts.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.core.orders import (
    DesiredState,
    DesiredWorkload,
    Manifest,
    RestartRefusedError,
    Running,
    UnknownVersionError,
)
from engine.core.people import Act
from engine.core.rollout import desired_digest, is_below
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_orders import Done, add_restart, close_orders, open_orders, restart_of
from storage.postgres_registry import announce
from storage.postgres_rollouts import MANAGED, note_minimum, tell_manager
from storage.postgres_wanted import (
    WORKLOAD_NOW,
    KindNow,
    NodeNow,
    WorkloadNow,
    choice,
    kinds_now,
    lock_nodes,
    wanted_of,
)

KNOWN_TOLD_MAX = 20  # versions named to a manager that reports one that there is not


class PostgresOrders:
    """engine.core.orders.Orders on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def fetch(self, node_id: str, *, now_ms: int) -> DesiredState | None:
        return await self._db.run(_fetch, node_id, now_ms) if is_id(node_id) else None

    async def manifest(self, node_id: str, workload_id: str) -> Manifest | None:
        return await self._db.run(_manifest, node_id, workload_id) if is_id(workload_id) else None

    async def report(
        self, node_id: str, workload_id: str, *, version: str | None, restarts: int | None, now_ms: int
    ) -> Running | None:
        if not is_id(workload_id):
            return None
        return await self._db.run(_report, node_id, workload_id, version, restarts, now_ms)

    async def running(self, workload_id: str) -> Running | None:
        return await self._db.run(_running, workload_id) if is_id(workload_id) else None

    async def order_restart(self, act: Act, workload_id: str) -> int | None:
        return await self._db.run(_order_restart, act, workload_id) if is_id(workload_id) else None


async def _locked(connection: Connection, node_id: str) -> tuple[NodeNow, dict[str, KindNow]] | None:
    nodes = await lock_nodes(connection, [node_id])
    if not nodes:
        return None
    return nodes[0], await kinds_now(connection, [one.kind_id for one in nodes[0].workloads])


# -- fetching ---------------------------------------------------------------------------------------------


async def _fetch(connection: Connection, node_id: str, now_ms: int) -> DesiredState | None:
    async with connection.transaction():
        locked = await _locked(connection, node_id)
        if locked is None:
            return None
        node, kinds = locked
        workloads = tuple(_desired(one, kinds) for one in node.workloads)
        digest = desired_digest(one.wanted for one in workloads)
        changed = await open_orders(connection, node, workloads, now_ms)
        if node.resync or node.desired_digest != digest:
            await connection.execute(
                "update node set desired_digest = $2, resync = false where node_id = $1", node_id, digest
            )
        if node.heard_by_engines and (node.resync or changed):
            await announce(connection, [node.row], now_ms)
    return DesiredState(node_id, node.interval_ms, digest, workloads)


def _desired(workload: WorkloadNow, kinds: Mapping[str, KindNow]) -> DesiredWorkload:
    chosen, kind = choice(workload, kinds), kinds.get(workload.kind_id or "")
    return DesiredWorkload(
        wanted=wanted_of(workload, chosen),
        name=workload.name,
        kind=None if kind is None else kind.slug,
        version=None if chosen is None else chosen.version,
        digest=None if chosen is None else chosen.digest,
        running_version=workload.running_version,
    )


async def _manifest(connection: Connection, node_id: str, workload_id: str) -> Manifest | None:
    async with connection.transaction():
        locked = await _locked(connection, node_id)
        if locked is None:
            return None
        node, kinds = locked
        chosen = [choice(one, kinds) for one in node.workloads if one.workload_id == workload_id]
        if not chosen or chosen[0] is None:
            return None
        record = await connection.fetchrow(
            "select version, manifest, digest from workload_version where version_id = $1",
            chosen[0].version_id,
        )
    return Manifest(*record)


# -- reporting --------------------------------------------------------------------------------------------


async def _report(
    connection: Connection,
    node_id: str,
    workload_id: str,
    version: str | None,
    restarts: int | None,
    now_ms: int,
) -> Running | None:
    async with connection.transaction():
        locked = await _locked(connection, node_id)
        found = [one for one in locked[0].workloads if one.workload_id == workload_id] if locked else []
        if locked is None or not found:
            return None
        node, kinds = locked
        workload, kind = found[0], kinds.get(found[0].kind_id or "")
        done = Done(restarts=restarts)
        if version is not None:
            done = Done(restarts=restarts, version_id=await _version_id(connection, workload, version))
            await connection.execute(
                """
                update workload set running_version = $2, running_reported_ms = $3 where workload_id = $1
                """,
                workload_id,
                version,
                now_ms,
            )
        now = msgspec.structs.replace(workload, running_version=version or workload.running_version)
        minimum, chosen = None if kind is None else kind.minimum_version, choice(now, kinds)
        closed = await close_orders(
            connection,
            node,
            workload_id,
            done,
            desired_id=None if chosen is None else chosen.version_id,
            now_ms=now_ms,
        )
        await note_minimum(connection, [now], minimum, now_ms)
        if closed and node.heard_by_engines:
            await announce(connection, [node.row], now_ms)
    return _told(now, kinds)


async def _running(connection: Connection, workload_id: str) -> Running | None:
    record = await connection.fetchrow(
        f"select {WORKLOAD_NOW} from workload where workload_id = $1", workload_id
    )
    if record is None:
        return None
    workload = WorkloadNow(*record)
    return _told(workload, await kinds_now(connection, [workload.kind_id]))


def _told(workload: WorkloadNow, kinds: Mapping[str, KindNow]) -> Running:
    kind, chosen = kinds.get(workload.kind_id or ""), choice(workload, kinds)
    minimum = None if kind is None else kind.minimum_version
    return Running(
        workload_id=workload.workload_id,
        running_version=workload.running_version,
        minimum_version=minimum,
        below_minimum=is_below(workload.running_version, minimum),
        wanted=wanted_of(workload, chosen),
        version=None if chosen is None else chosen.version,
    )


async def _version_id(connection: Connection, workload: WorkloadNow, version: str) -> str:
    """UnknownVersionError. A withdrawn version may run all the same."""
    found = await connection.fetchval(
        "select version_id::text from workload_version where kind_id = $1 and version = $2",
        workload.kind_id,
        version,
    )
    if found is None:
        records = await connection.fetch(
            "select version from workload_version where kind_id = $1 order by version_id desc limit $2",
            workload.kind_id,
            KNOWN_TOLD_MAX,
        )
        raise UnknownVersionError([record["version"] for record in records])
    return str(found)


# -- ordered restarts -------------------------------------------------------------------------------------


async def _order_restart(connection: Connection, act: Act, workload_id: str) -> int | None:
    node_id = await connection.fetchval(
        "select node_id::text from workload where workload_id = $1", workload_id
    )
    if node_id is None:
        return None
    async with connection.transaction():
        workload = _restartable(await lock_nodes(connection, [node_id]), workload_id)
        there = await restart_of(connection, workload_id, request_id=act.made_id)
        if there is not None:
            return there
        number = workload.restarts + 1
        await connection.execute(
            "update workload set restarts = $2 where workload_id = $1", workload_id, number
        )
        await add_restart(connection, workload_id, number=number, request_id=act.made_id, now_ms=act.now_ms)
        await tell_manager(connection, node_id, act.now_ms)
        await write_audit(
            connection,
            act,
            action="workload.restart",
            subject=workload_id,
            project_id=workload.project_id,
            detail={"restarts": number},
        )
    return number


def _restartable(nodes: Sequence[NodeNow], workload_id: str) -> WorkloadNow:
    found = [one for node in nodes for one in node.workloads if one.workload_id == workload_id]
    if not found:
        raise RestartRefusedError("the workload, or its node, is retired or revoked")
    if nodes[0].kind not in MANAGED:
        raise RestartRefusedError("nothing runs this that could restart it: it has no manager")
    return found[0]
