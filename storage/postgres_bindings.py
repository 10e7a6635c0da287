"""Which workload runs under which licence, as people change it: the history of bindings, and what it says.

Parts of the transactions that make, change and retire workloads, and of those that find a licence sold. Each
writes what leases are settled from (postgres_settle.py), before any event, announcement or audit entry.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.pool import Connection


async def bind(connection: Connection, bindings: Sequence[tuple[str, str]], now_ms: int) -> None:
    """Pairs of (workload, licence), of workloads that are bound to none."""
    if not bindings:
        return
    await connection.execute(
        """
        with bound as (
          insert into licence_binding (workload_id, licence_id, from_ms)
          select b.workload_id, b.licence_id, greatest($3, coalesce(
            (select max(to_ms) from licence_binding o where o.workload_id = b.workload_id), 0))
          from unnest($1::uuid[], $2::uuid[]) as b (workload_id, licence_id)
          returning licence_id, workload_id, from_ms)
        insert into lease_say (licence_id, workload_id, at_ms, what)
        select licence_id, workload_id, from_ms, 'bound' from bound order by workload_id
        on conflict do nothing
        """,
        [workload_id for workload_id, _ in bindings],
        [licence_id for _, licence_id in bindings],
        now_ms,
    )


async def unbind(connection: Connection, workload_ids: Sequence[str], why: str, now_ms: int) -> None:
    """`why`: unbound | retired. Those that are bound to none are passed over."""
    await connection.execute(
        """
        with ended as (
          update licence_binding set to_ms = greatest($3, from_ms + 1)
          where workload_id = any($1::uuid[]) and to_ms is null
          returning licence_id, workload_id, to_ms)
        insert into lease_say (licence_id, workload_id, at_ms, what)
        select licence_id, workload_id, to_ms, $2 from ended order by workload_id
        on conflict do nothing
        """,
        workload_ids,
        why,
        now_ms,
    )


async def say_sold(connection: Connection, licence_ids: Sequence[str], now_ms: int) -> None:
    """Licences that others own now, or nobody. Of those that no workload runs under nothing is said."""
    await connection.execute(
        """
        insert into lease_say (licence_id, at_ms, what)
        select l.licence_id, $2, 'sold' from unnest($1::uuid[]) as l (licence_id)
        where exists (
          select from licence_binding b where b.licence_id = l.licence_id and b.to_ms is null)
        order by l.licence_id on conflict do nothing
        """,
        licence_ids,
        now_ms,
    )
