"""Two managers on one node key in PostgreSQL, seen when they open sessions in turns.

Which turns make a case is engine/core/clones.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from engine.core.clones import WITHIN_MS, Manager, clone_of_managers
from storage.pool import Connection
from storage.postgres_events import CONTROL_PLANE, record_event


async def tell_clones(connection: Connection, node_ids: Sequence[str]) -> None:
    """Record node.clone for those of the nodes whose newest session makes a case. The caller's transaction
    has opened that session and holds the nodes' locks, so two at once cannot both tell."""
    records = await connection.fetch(
        """
        select n.node_id::text, n.project_id::text, n.clone_told_until_ms, s.opened_ms, s.client_address,
          s.manager_version
        from (select node_id, project_id, "row", clone_told_until_ms,
            (select max(opened_ms) from session l where l."row" = m."row") - $2::bigint as from_ms
          from node m where node_id = any($1::uuid[])) n
        cross join lateral (
          (select * from session e where e."row" = n."row" and e.opened_ms < n.from_ms
            order by e.opened_ms desc limit 1)
          union all
          select * from session e where e."row" = n."row" and e.opened_ms >= n.from_ms) s
        order by n.node_id, s.opened_ms
        """,
        node_ids,
        WITHIN_MS,
    )
    for node_id, sessions in groupby(records, key=itemgetter("node_id")):
        found = list(sessions)
        told_until_ms = found[0]["clone_told_until_ms"]
        event, told_now_ms = clone_of_managers(
            [(one["opened_ms"], Manager(one["client_address"], one["manager_version"])) for one in found],
            told_until_ms,
            node_id=node_id,
            project_id=found[0]["project_id"],
            shard=CONTROL_PLANE,
        )
        if told_now_ms != told_until_ms:
            await connection.execute(
                "update node set clone_told_until_ms = $2 where node_id = $1", node_id, told_now_ms
            )
        if event is not None:
            await record_event(connection, event)
