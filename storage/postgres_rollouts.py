"""Who is told of a changed desired state, in PostgreSQL: at once for one node, in chunks for a whole kind.

A change of a kind or its versions leaves a `rollout_task` in its own transaction. Workers take the tasks
chunk by chunk; each is one short transaction, because `announce` holds the lock that sessions are opened
under. A manager is told by `node.resync` until it fetches the desired state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.core.orders import Worked
from engine.core.rollout import Offer, desired, is_below
from storage.pool import Connection, Postgres
from storage.postgres_events import control_event, write_events
from storage.postgres_registry import announce
from storage.postgres_wanted import KindNow, NodeNow, WorkloadNow, digest_of_node, kinds_now, lock_nodes

BELOW_MINIMUM = "workload.below_minimum"
MANAGED = ("node", "canary")  # kinds of nodes that have a manager, which can be told


class PostgresRollouts:
    """engine.core.orders.Rollouts on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def work(self, *, nodes: int, now_ms: int) -> Worked | None:
        return await self._db.run(_work, nodes, now_ms)


async def ask_rollout(connection: Connection, kind_id: str, *, before: Sequence[Offer], now_ms: int) -> None:
    """Have all nodes with workloads of a kind looked at; in the transaction of the change.

    before: what was offered before this change: nodes that never fetched are told if it makes a difference
    to them. Of changes that wait together the first one's counts.
    """
    await connection.execute(
        """
        insert into rollout_task (kind_id, before, asked_ms) values ($1, $2, $3)
        on conflict (kind_id) do update set after_node = default, asked_ms = excluded.asked_ms
        """,
        kind_id,
        msgspec.json.encode(before).decode(),
        now_ms,
    )


async def tell_manager(connection: Connection, node_id: str, now_ms: int) -> bool:
    """After a change to what one node should run, in its transaction, with the node's row locked.

    Tells the engines, too, if there is something to be told now, or no longer; whether there was.
    """
    nodes = await lock_nodes(connection, [node_id])
    kinds = await kinds_now(connection, [one.kind_id for node in nodes for one in node.workloads])
    changed = [node for node in nodes if _must_fetch(node, kinds) != node.resync]
    await _set_resync(connection, changed, now_ms)
    return bool(changed)


async def _work(connection: Connection, nodes: int, now_ms: int) -> Worked | None:
    async with connection.transaction():
        task = await connection.fetchrow(
            """
            select kind_id::text, after_node::text, before from rollout_task
            order by asked_ms limit 1 for update skip locked
            """
        )
        if task is None:
            return None
        kind_id: str = task["kind_id"]
        records = await connection.fetch(
            """
            select distinct node_id::text from workload
            where kind_id = $1 and node_id > $2 and retired_ms is null order by node_id limit $3
            """,
            kind_id,
            task["after_node"],
            nodes,
        )
        node_ids = [record[0] for record in records]
        if not node_ids:
            await connection.execute("delete from rollout_task where kind_id = $1", kind_id)
            return Worked(0, 0, 0)
        await connection.execute(
            "update rollout_task set after_node = $2 where kind_id = $1", kind_id, node_ids[-1]
        )
        before = msgspec.json.decode(task["before"], type=tuple[Offer, ...])
        return await _look_at(connection, kind_id, before, node_ids, now_ms)


async def _look_at(
    connection: Connection, kind_id: str, before: Sequence[Offer], node_ids: Sequence[str], now_ms: int
) -> Worked:
    nodes = await lock_nodes(connection, node_ids)
    kinds = await kinds_now(connection, {kind_id, *(one.kind_id for node in nodes for one in node.workloads)})
    changed = [
        node
        for node in nodes
        if node.resync
        != (_must_fetch(node, kinds) if node.desired_digest else _is_new_to(node, kind_id, before, kinds))
    ]
    of_kind = [one for node in nodes for one in node.workloads if one.kind_id == kind_id]
    below = await note_minimum(connection, of_kind, kinds[kind_id].minimum_version, now_ms)
    await _set_resync(connection, changed, now_ms)
    return Worked(len(nodes), len(changed), below)


def _must_fetch(node: NodeNow, kinds: Mapping[str, KindNow]) -> bool:
    """Whether what the manager fetched last, if it did, is no longer what is wanted."""
    return node.kind in MANAGED and node.desired_digest != digest_of_node(node, kinds)


def _is_new_to(node: NodeNow, kind_id: str, before: Sequence[Offer], kinds: Mapping[str, KindNow]) -> bool:
    """Whether a manager that never fetched is to be told: it was before, or the change made a difference."""
    then, now = desired(before, node.node_id), desired(kinds[kind_id].offers, node.node_id)
    differs = (then and then.version_id) != (now and now.version_id)
    return node.kind in MANAGED and (node.resync or differs)


async def _set_resync(connection: Connection, nodes: Sequence[NodeNow], now_ms: int) -> None:
    """Turn the flag of these nodes over, and tell the engines that know them."""
    if not nodes:
        return
    await connection.execute(
        "update node set resync = not resync where node_id = any($1::uuid[])",
        [node.node_id for node in nodes],
    )
    rows = [node.row for node in nodes if node.heard_by_engines]
    if rows:
        await announce(connection, rows, now_ms)


async def note_minimum(
    connection: Connection, workloads: Sequence[WorkloadNow], minimum: str | None, now_ms: int
) -> int:
    """Raise, or take back, that workloads of one kind are below its minimum; how many newly are."""
    below = [one for one in workloads if is_below(one.running_version, minimum)]
    fallen = [one for one in below if one.below_minimum_ms is None]
    stay = {one.workload_id for one in below}
    risen = [one for one in workloads if one.below_minimum_ms is not None and one.workload_id not in stay]
    for which, since_ms in ((fallen, now_ms), (risen, None)):
        if which:
            await connection.execute(
                "update workload set below_minimum_ms = $2 where workload_id = any($1::uuid[])",
                [one.workload_id for one in which],
                since_ms,
            )
    if fallen:
        await write_events(
            connection,
            [
                control_event(
                    BELOW_MINIMUM,
                    project_id=one.project_id,
                    node_id=one.node_id,
                    workload_id=one.workload_id,
                    now_ms=now_ms,
                    detail=f"runs {one.running_version}, at least {minimum} is asked for",
                )
                for one in fallen
            ],
        )
    return len(fallen)
