"""Settling licence leases in PostgreSQL: what was said becomes leases, standbys and events, all at once.

The rules are engine/core/settle.py's. One process at a time: the lock is taken or the step is left to whoever
has it. Nobody else writes `licence_lease`, `licence_settled` and those rows of `lease` that name a licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from engine.core.leases import Binding, LeaseSpan, Settling, StandbySpan
from engine.core.records import Event, event_id
from engine.core.settle import Said, Settled, Standing, settle
from storage.pool import Connection, Postgres
from storage.postgres_events import CONTROL_PLANE, write_events
from storage.postgres_leases import LEASE_FIELDS, lease_of
from storage.postgres_registry import announce

SAYS_MAX = 10_000  # of one step; all of one time go together, so it may be a few more
_SETTLE_LOCK = 0x4E50_0060  # of pg_try_advisory_xact_lock
_IDLE = Settling(says=0, changes=0, waiting=False)

_HORIZON = """
select (select min(at_ms) from lease_say) as oldest_ms,
  (select case when count(*) = $1 then min(leases_ms) else 0 end from shard_state
    where shard between 0 and $1 - 1) as told_ms
"""
# All says up to here are few enough for one step.
_CUT = """
select max(at_ms) as at_ms, count(*) as says
from (select at_ms from lease_say where at_ms <= $1 order by at_ms limit $2) s
"""
# Shards do not know the licence: it is the one that the workload was bound to at that time.
_SAYS = """
with said as (delete from lease_say where at_ms <= $1 returning licence_id, workload_id, at_ms, what)
select coalesce(s.licence_id, b.licence_id)::text as licence_id, s.at_ms, s.what,
  coalesce(s.workload_id::text, '') as workload_id
from said s left join licence_binding b on s.licence_id is null and b.workload_id = s.workload_id
  and b.from_ms <= s.at_ms and (b.to_ms is null or b.to_ms > s.at_ms)
order by 1
"""


class PostgresLeaseSettling:
    """engine.core.leases.LeaseSettling on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def settle(self, *, shards: int, now_ms: int) -> Settling:
        return await self._db.run(_settle, shards, now_ms)


class _Known(NamedTuple):
    """Everything about some licences, by licence."""

    leases: dict[str, LeaseSpan]
    claimed: dict[str, dict[str, int]]
    settled_ms: dict[str, int]
    bindings: dict[str, list[Binding]]


async def _settle(connection: Connection, shards: int, now_ms: int) -> Settling:
    oldest_ms, told_ms = await connection.fetchrow(_HORIZON, shards)
    if oldest_ms is None:
        return _IDLE
    if oldest_ms > told_ms:
        return Settling(says=0, changes=0, waiting=True)
    async with connection.transaction():
        if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", _SETTLE_LOCK):
            return Settling(says=0, changes=0, waiting=True)
        at_ms, count = await connection.fetchrow(_CUT, told_ms, SAYS_MAX)
        if not count:
            return _IDLE
        horizon_ms = at_ms if count == SAYS_MAX else told_ms
        records = await connection.fetch(_SAYS, horizon_ms)
        says = {
            licence_id: [Said(*record[1:]) for record in group]
            for licence_id, group in groupby((tuple(record) for record in records), key=lambda each: each[0])
            if licence_id is not None  # bound to nothing when it was said
        }
        if says:
            settled = await _settle_licences(connection, says, horizon_ms)
            await _write(connection, settled, now_ms)
        changes = sum(len(each.leases) for each in settled) if says else 0
    return Settling(says=len(records), changes=changes, waiting=told_ms > horizon_ms)


async def _settle_licences(
    connection: Connection, says: dict[str, list[Said]], horizon_ms: int
) -> list[Settled]:
    known = await _read(connection, list(says))
    return [
        settle(
            Standing(
                licence_id=licence_id,
                lease=known.leases.get(licence_id),
                claimed=known.claimed.get(licence_id, {}),
                settled_ms=known.settled_ms.get(licence_id, 0),
                bindings=tuple(known.bindings.get(licence_id, ())),
            ),
            said,
            horizon_ms,
        )
        for licence_id, said in says.items()
    ]


async def _read(connection: Connection, licence_ids: Sequence[str]) -> _Known:
    records = await connection.fetch(
        f"""
        select distinct on (licence_id) {LEASE_FIELDS} from licence_lease
        where licence_id = any($1::uuid[]) order by licence_id, epoch desc
        """,
        licence_ids,
    )
    leases = {record[0]: lease_of(record) for record in records}
    claimed: dict[str, dict[str, int]] = {}
    for licence_id, workload_id, at_ms in await connection.fetch(
        """
        select w.licence_id::text, w.workload_id::text, min(w.claimed_ms)
        from unnest($1::uuid[], $2::integer[]) as l (licence_id, epoch) join lease w using (licence_id, epoch)
        where w.claimed_ms is not null group by 1, 2
        """,
        [lease.licence_id for lease in leases.values()],
        [lease.epoch for lease in leases.values()],
    ):
        claimed.setdefault(licence_id, {})[workload_id] = at_ms
    settled_ms = await connection.fetch(
        "select licence_id::text, settled_ms from licence_settled where licence_id = any($1::uuid[])",
        licence_ids,
    )
    bindings: dict[str, list[Binding]] = {}
    for record in await connection.fetch(_BINDINGS, licence_ids):
        bindings.setdefault(record[1], []).append(Binding(*record))
    return _Known(leases, claimed, dict(settled_ms), bindings)


# Those of times before the newest lease no longer matter: what was decided then stays.
_BINDINGS = """
select b.workload_id::text, b.licence_id::text, b.from_ms, b.to_ms from licence_binding b
where b.licence_id = any($1::uuid[]) and (b.to_ms is null or b.to_ms > coalesce(
  (select from_ms from licence_lease l where l.licence_id = b.licence_id order by epoch desc limit 1), 0))
order by b.workload_id, b.from_ms
"""


async def _write(connection: Connection, settled: Sequence[Settled], now_ms: int) -> None:
    await _write_leases(connection, [lease for each in settled for lease in each.leases])
    epochs = [(each.standing.licence_id, epoch) for each in settled for epoch in each.epochs]
    if epochs:
        await _write_standbys(connection, epochs, [span for each in settled for span in each.standbys])
    await connection.execute(
        """
        insert into licence_settled (licence_id, settled_ms) select * from unnest($1::uuid[], $2::bigint[])
        on conflict (licence_id) do update set settled_ms = excluded.settled_ms
        """,
        [each.standing.licence_id for each in settled],
        [each.standing.settled_ms for each in settled],
    )
    conflicts = [span for each in settled for span in each.conflicts]
    if conflicts:
        await write_events(connection, await _events(connection, conflicts, now_ms))
    moved = [each.standing.licence_id for each in settled if each.moved]
    if moved:
        await _announce(connection, moved, now_ms)


async def _write_leases(connection: Connection, leases: Sequence[LeaseSpan]) -> None:
    # In order of epochs: of two that are open only the later one may stay so.
    await connection.executemany(
        """
        insert into licence_lease (licence_id, epoch, holder, from_ms, to_ms, ended)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (licence_id, epoch) do update set to_ms = excluded.to_ms, ended = excluded.ended
        """,
        [(one.licence_id, one.epoch, one.holder_id, one.from_ms, one.to_ms, one.ended) for one in leases],
    )


async def _write_standbys(
    connection: Connection, epochs: Sequence[tuple[str, int]], standbys: Sequence[StandbySpan]
) -> None:
    await connection.execute(
        """
        delete from lease w using unnest($1::uuid[], $2::integer[]) as e (licence_id, epoch)
        where w.licence_id = e.licence_id and w.epoch = e.epoch
        """,
        [licence_id for licence_id, _ in epochs],
        [epoch for _, epoch in epochs],
    )
    await connection.executemany(
        """
        insert into lease (workload_id, from_ms, to_ms, licence_id, epoch, claimed_ms)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (workload_id, from_ms) do update set to_ms = excluded.to_ms,
          licence_id = excluded.licence_id, epoch = excluded.epoch, claimed_ms = excluded.claimed_ms
        """,
        [
            (one.workload_id, one.from_ms, one.to_ms, one.licence_id, one.epoch, one.claimed_ms)
            for one in standbys
        ],
    )


async def _events(connection: Connection, conflicts: Sequence[StandbySpan], now_ms: int) -> list[Event]:
    """One for each run that claimed what another one holds."""
    records = await connection.fetch(
        """
        select workload_id::text, project_id::text, node_id::text from workload
        where workload_id = any($1::uuid[])
        """,
        [one.workload_id for one in conflicts],
    )
    of = {record[0]: record for record in records}
    return [
        Event(
            event_id=event_id("licence.conflict", one.workload_id, one.from_ms),
            kind="licence.conflict",
            shard=CONTROL_PLANE,
            project_id=of[one.workload_id][1],
            node_id=of[one.workload_id][2],
            workload_id=one.workload_id,
            since_ms=one.from_ms,
            at_ms=now_ms,
            workloads=(one.workload_id,),
            detail=f"licence {one.licence_id} is held by workload {one.holder_id} (epoch {one.epoch})",
        )
        for one in conflicts
    ]


async def _announce(connection: Connection, licence_ids: Sequence[str], now_ms: int) -> None:
    """Let engines hear of everyone who runs under these licences."""
    records = await connection.fetch(
        """
        select distinct n."row" from workload w join node n using (node_id)
        where w.licence_id = any($1::uuid[]) and w.retired_ms is null
          and (n.generation > 0 or n.capability_generation > 0)
        order by 1
        """,
        licence_ids,
    )
    if records:
        await announce(connection, [record[0] for record in records], now_ms)
