"""What those who run the installation look at, out of PostgreSQL: by indices, and counted up to a bound."""

from __future__ import annotations

from typing import Any

from engine.core.installation import (
    ATTEMPTS_LOOKED_AT,
    COUNTED_MAX,
    DeadLetter,
    Outgoing,
    PublishedRoot,
)
from engine.core.records import Gap
from storage.ids import is_id
from storage.pool import Connection, Postgres

_COUNT = """
select '{kind}' as kind,
  (select count(*) from (
    select from {table} where state = 'due' {of} and due_ms <= $1 limit {most}) d) as due,
  (select count(*) from (
    select from {table} where state = 'due' {of} and due_ms > $1 limit {most}) d) as later,
  (select min(due_ms) from {table} where state = 'due' {of} and due_ms <= $1) as oldest_due_ms
"""
_OF_KIND = {kind: ("delivery", f"and kind = '{kind}'") for kind in ("webhook", "mail", "apprise")}
_OUTGOING = " union all ".join(
    _COUNT.format(kind=kind, table=table, of=of, most=COUNTED_MAX)
    for kind, (table, of) in {**_OF_KIND, "letter": ("letter", "")}.items()
)
_DEAD = f"""
select kind, count(*) as dead from (
  select kind from delivery where state = 'dead' order by delivery_id desc limit {COUNTED_MAX}) d
group by kind
union all
select 'letter', count(*) from (select from letter where state = 'dead' limit {COUNTED_MAX}) l
"""
# Deliveries have no time of the event; their notices do. What was sent again was not late because of that.
_LAGS = f"""
select greatest(0, d.attempted_ms - (convert_from(n.body, 'UTF8')::jsonb ->> 'at_ms')::bigint)
from (
  select notice_id, attempted_ms from delivery order by delivery_id desc limit {ATTEMPTS_LOOKED_AT}) d
  join notice n using (notice_id)
where d.attempted_ms is not null and n.form = 'event'
"""
_DEAD_LETTERS = """
select d.delivery_id::text, d.channel_id::text, c.project_id::text, c.user_id::text,
  coalesce(p.slug, nullif(a.name, ''), a.email, a.wallet, '') as owner, c.kind as channel_kind,
  c.name as channel_name, c.target, c.disabled_ms is not null or c.removed_ms is not null as off,
  n.kind as notice_kind, d.attempts, d.replays, d.note, d.created_ms, d.settled_ms
from delivery d join channel c using (channel_id) join notice n using (notice_id)
  left join project p on p.project_id = c.project_id left join account a on a.user_id = c.user_id
where d.state = 'dead'
"""
_GAP = '(to_ms, from_ms, shard, shards, cause collate "C")'
_ORDER = " desc, ".join(_GAP.strip("()").split(", ")) + " desc"
_ROOTS = """
select p.seal_no, j.slug as project, s.day::text, s.revision, p.target, p.state, p.attempts, p.due_ms, p.note,
  p.changed_ms
from root_publication p join seal s using (seal_no) join project j using (project_id)
where (not $1 or p.state = 'due')
  and ($2::bigint is null or p.seal_no < $2 or (p.seal_no = $2 and p.target > $3))
order by p.seal_no desc, p.target limit $4
"""


class PostgresInstallationBooks:
    """engine.core.installation.InstallationBooks on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def outgoing(self, *, now_ms: int) -> list[Outgoing]:
        return await self._db.run(_outgoing, now_ms)

    async def lags_ms(self) -> list[int]:
        return await self._db.run(_lags_ms)

    async def dead_letters(self, *, before: str | None, limit: int) -> list[DeadLetter]:
        return await self._db.run(_dead_letters, before, limit)

    async def dead_letter(self, delivery_id: str) -> DeadLetter | None:
        return await self._db.run(_dead_letter, delivery_id) if is_id(delivery_id) else None

    async def gaps(self, *, before: Gap | None, limit: int) -> list[Gap]:
        return await self._db.run(_gaps, before, limit)

    async def roots(
        self, *, due_only: bool, before: tuple[int, str] | None, limit: int
    ) -> list[PublishedRoot]:
        return await self._db.run(_roots, due_only, before, limit)


async def _outgoing(connection: Connection, now_ms: int) -> list[Outgoing]:
    dead = {record["kind"]: record["dead"] for record in await connection.fetch(_DEAD)}
    records = await connection.fetch(_OUTGOING, now_ms)
    lines = [Outgoing(**record, dead=dead.pop(record["kind"], 0)) for record in records]
    # Of those that were given up long ago no kind was kept.
    rest = [Outgoing(kind="other", due=0, later=0, oldest_due_ms=None, dead=sum(dead.values()))]
    return [line for line in lines + rest if line.due or line.later or line.dead]


async def _lags_ms(connection: Connection) -> list[int]:
    return [int(record[0]) for record in await connection.fetch(_LAGS)]


async def _dead_letters(connection: Connection, before: str | None, limit: int) -> list[DeadLetter]:
    records = await connection.fetch(
        f"{_DEAD_LETTERS} and ($1::uuid is null or d.delivery_id < $1) order by d.delivery_id desc limit $2",
        before,
        limit,
    )
    return [DeadLetter(**record) for record in records]


async def _dead_letter(connection: Connection, delivery_id: str) -> DeadLetter | None:
    record = await connection.fetchrow(f"{_DEAD_LETTERS} and d.delivery_id = $1", delivery_id)
    return DeadLetter(**record) if record else None


async def _gaps(connection: Connection, before: Gap | None, limit: int) -> list[Gap]:
    bound: tuple[Any, ...] = ()
    if before is not None:
        bound = (before.to_ms, before.from_ms, before.shard, before.shards, before.cause)
    records = await connection.fetch(
        f"""
        select shard, from_ms, to_ms, cause, shards from gap
        {f"where {_GAP} < ($2, $3, $4, $5, $6) and to_ms <= $2" if bound else ""}
        order by {_ORDER} limit $1
        """,
        limit,
        *bound,
    )
    return [Gap(*record) for record in records]


async def _roots(
    connection: Connection, due_only: bool, before: tuple[int, str] | None, limit: int
) -> list[PublishedRoot]:
    seal_no, target = before or (None, None)
    records = await connection.fetch(_ROOTS, due_only, seal_no, target, limit)
    return [PublishedRoot(**record) for record in records]
