"""Taking a licence from other people's machines, when whoever owns it binds it on a machine of theirs.

After a sale the seller's run stays bound, and the buyer may not touch that machine: so the bindings of that
licence elsewhere end with the buyer's own (docs/decisions/0077). Only the present owner takes; whoever runs
the project binds beside. Parts of the transactions that bind: `reserve` first, `take` once it is known that
the binding stands, `tell` at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from engine.core.people import Act
from engine.core.registration import Asker
from storage.pool import Connection
from storage.postgres_audit import write_audit
from storage.postgres_bindings import unbind
from storage.postgres_registry import announce

_LICENCE_LOCK = 0x4E52  # first key of pg_advisory_xact_lock(int, int); the second is of the licence
_NAMED_MAX = 100  # runs in an audit entry: more than one or two are bound to a licence by mistake only
# In the order of ids, so that two who take from each other do not wait for each other.
_LOCK_NODES = """
select 1 from node where node_id = $3 or node_id in (
  select w.node_id from licence_binding b join workload w using (workload_id)
    join licence l on l.licence_id = b.licence_id join account a on a.wallet = l.owner
  where b.licence_id = any($1::uuid[]) and b.to_ms is null and a.user_id = $2)
order by node_id for update
"""
_TAKE = """
update workload w set licence_id = null
from licence_binding b, licence l, account a, node n
where b.licence_id = any($1::uuid[]) and b.to_ms is null and b.workload_id = w.workload_id
  and l.licence_id = b.licence_id and a.wallet = l.owner and a.user_id = $2
  and n.node_id = w.node_id and n.owner_id is distinct from $2
returning l.licence_id::text, l.project_id::text, w.workload_id::text, n."row",
  n.generation > 0 or n.capability_generation > 0
"""


class Taken(NamedTuple):
    """A run that is no longer bound. `told`: engines know its row."""

    licence_id: str
    project_id: str
    workload_id: str
    row: int
    told: bool


async def reserve(
    connection: Connection, licence_ids: Sequence[str], asker: Asker, *, node_id: str | None = None
) -> None:
    """Let nobody else bind these licences before the transaction ends; lock the machines that are affected,
    the asker's `node_id` with them. Before any node is locked otherwise."""
    # Not the licence's row: who brings in what the chain says locks many of these, in an order of its own.
    for key in sorted({int(one[-8:], 16) - 2**31 for one in licence_ids}):
        await connection.execute("select pg_advisory_xact_lock($1, $2)", _LICENCE_LOCK, key)
    if licence_ids and asker.user_id is not None:
        await connection.execute(_LOCK_NODES, licence_ids, asker.user_id, node_id)


async def take(
    connection: Connection, licence_ids: Sequence[str], asker: Asker, *, operator_id: str | None, now_ms: int
) -> list[Taken]:
    """End the bindings of those of these licences that the asker owns to machines that are not theirs, if the
    machine that they bind them on, `operator_id`'s, is."""
    if not licence_ids or asker.user_id is None or asker.user_id != operator_id:
        return []
    taken = [Taken(*record) for record in await connection.fetch(_TAKE, licence_ids, asker.user_id)]
    await unbind(connection, [one.workload_id for one in taken], "unbound", now_ms)
    return taken


async def tell(connection: Connection, taken: Sequence[Taken], act: Act, *, by: str) -> None:
    """Engines hear of it, and the audit log, each licence. `by`: the workload or node it was bound to."""
    rows = sorted({one.row for one in taken if one.told})
    if rows:
        await announce(connection, rows, act.now_ms)
    for (licence_id, project_id), group in groupby(sorted(taken), key=lambda one: one[:2]):
        runs = [one.workload_id for one in group]
        await write_audit(
            connection,
            act,
            action="licence.take",
            subject=licence_id,
            project_id=project_id,
            detail={"bound_by": by, "runs": len(runs), "workload_ids": runs[:_NAMED_MAX]},
        )
