"""The newsroom in PostgreSQL: the notifier's steps, each one transaction.

What keeps two notifiers apart is the notifier's row, locked for each step (the advisory lock of the outbox
only saves them the same work). What a step reads and writes: newsroom_reading.py, newsroom_writing.py.
"""

from __future__ import annotations

from engine.core.newsroom import Decided, Policy, Step, Waiting
from storage.failpoint import reached
from storage.newsroom_reading import read
from storage.newsroom_writing import write
from storage.pool import Connection, Postgres

TOTALS_MS = 600_000  # how old the count of all nodes may be; counting takes a second in ten million


class PostgresNewsroom:
    """engine.core.newsroom.Newsroom on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db
        self._totals: dict[str, int] = {}
        self._totals_ms: int | None = None  # when they were counted

    async def decide(self, step: Step, *, policy: Policy, now_ms: int, limit: int) -> Decided:
        if self._totals_ms is None or not 0 <= now_ms - self._totals_ms < TOTALS_MS:
            self._totals = await self._db.run(_totals)
            self._totals_ms = now_ms
        decided = await self._db.run(_decide, step, policy, self._totals, now_ms, limit)
        if decided.notices:
            reached("decide.after_commit")
        return decided

    async def waiting(self) -> Waiting:
        return await self._db.run(_waiting)

    async def prune(self, *, now_ms: int, limit: int) -> int:
        return await self._db.run(_prune, limit)


async def _decide(
    connection: Connection, step: Step, policy: Policy, totals: dict[str, int], now_ms: int, limit: int
) -> Decided:
    async with connection.transaction():
        await connection.execute("select from notifier for update")
        reading = await read(connection, policy, totals, now_ms, limit)
        decision = step(reading.state, reading.facts, policy)
        notices = await write(connection, reading.state, decision, reading.cursor, now_ms)
        if notices:
            reached("decide.before_commit")
        next_due_ms = await connection.fetchval(
            """
            select least((select min(due_ms) from news_item), (select min(due_ms) from news_subject),
              (select min(due_ms) from news_area))
            """
        )
    events = reading.facts.events
    return Decided(
        cursor=reading.cursor,
        events=len(events),
        lag_ms=max(0, now_ms - events[-1].at_ms) if reading.events_full else 0,
        more=reading.full or bool(decision.state.telling),
        next_due_ms=next_due_ms,
        notices=notices,
        digests=sum(notice.form == "digest" for notice, _ in decision.notices),
        reminders=decision.reminders,
        dropped=decision.dropped,
    )


async def _totals(connection: Connection) -> dict[str, int]:
    """Living nodes by area: of each region, and of each shard its even share."""
    records = await connection.fetch(
        "select region, count(*) from node where revoked_ms is null and retired_ms is null group by region"
    )
    shards = await connection.fetch("select shard from shard_state")
    everywhere = sum(count for _, count in records)
    regions = {f"region:{region}": count for region, count in records if region}
    return regions | {f"ingress:{shard}": everywhere // len(shards) for (shard,) in shards}


async def _waiting(connection: Connection) -> Waiting:
    held, flapping = await connection.fetchrow(
        """
        select (select count(*) from news_item where lane <> 'reminder'),
          (select count(*) from news_subject where body like '%"flaps":true%')
        """
    )
    return Waiting(held, flapping)


async def _prune(connection: Connection, limit: int) -> int:
    # The ids of events, under which news waits, and the names of shards are no ids of nodes.
    status = await connection.execute(
        """
        delete from news_item where (subject, channel_id) in (
          select i.subject, i.channel_id
          from (select subject, channel_id, case when subject ~ $2 then subject::uuid end as id
              from news_item where lane is null) i
            join channel c using (channel_id)
            left join node n on n.node_id = i.id
            left join workload w on w.workload_id = i.id left join node of on of.node_id = w.node_id
          where c.removed_ms is not null or n.retired_ms is not null or n.revoked_ms is not null
            or w.retired_ms is not null or of.retired_ms is not null or of.revoked_ms is not null
          limit $1)
        """,
        limit,
        "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    )
    return int(status.rsplit(" ", 1)[1])
