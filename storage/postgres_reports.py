"""What reports say, out of PostgreSQL: sealed rows summed up per day and operator, and who reads it.

A sealed day is read once per revision, whoever is told of it; the sums are kept for the pictures.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec

from engine.core.records import KINDS
from engine.core.reports import WORST_MAX, DaySum, Reader, Worst
from engine.core.sealed import DAY_MS
from storage.pool import Connection, Postgres

_NO_ID = "00000000-0000-0000-0000-000000000000"
_UNOBSERVED_AT = 4 * KINDS.index("unobserved") + 1  # in sealed_row.ms: four bytes a kind, counted from 1
_SUM_UP = f"""
insert into report_sum (project_id, day, scope_id, revision, workloads, nodes, window_ms, paid_ms,
  unobserved_ms, worst)
with per_node as (
  select node_id, operator_id, count(*) as workloads, sum(to_ms - from_ms)::bigint as window_ms,
    sum(paid_ms)::bigint as paid_ms,
    sum(('x' || encode(substring(ms from {_UNOBSERVED_AT} for 4), 'hex'))::bit(32)::bigint)::bigint
      as unobserved_ms
  from sealed_row where seal_no = $1 group by node_id, operator_id),
scoped as (
  select $2::uuid as scope_id, * from per_node
  union all select operator_id, * from per_node where operator_id is not null),
ranked as (
  select *, window_ms - unobserved_ms as payable_ms, row_number() over (
    partition by scope_id
    order by paid_ms::float8 / nullif(window_ms - unobserved_ms, 0) nulls last, node_id) as place
  from scoped)
select $2::uuid, $3, scope_id, $4, sum(workloads), count(distinct r.node_id), sum(window_ms), sum(paid_ms),
  sum(unobserved_ms), coalesce(jsonb_agg(jsonb_build_object('node_id', r.node_id,
    'name', coalesce(n.name, ''), 'paid_ms', paid_ms, 'payable_ms', payable_ms) order by place)
    filter (where place <= {WORST_MAX} and paid_ms < payable_ms), '[]')::text
from ranked r left join node n on place <= {WORST_MAX} and n.node_id = r.node_id
group by scope_id
on conflict (project_id, day, scope_id) do nothing
"""
_READERS = """
select a.user_id::text, a.name, a.email,
  array(select o.project_id::text from project_owner o join project p using (project_id)
    where o.user_id = a.user_id and p.retired_ms is null order by 1) as owns,
  array(select c.channel_id::text from channel c
    where c.user_id = a.user_id and c.kind = 'mail' and c.removed_ms is null and c.disabled_ms is null
      and (c.event_kinds = '{}' or 'report' = any(c.event_kinds)) order by 1) as channels
from account a left join notification_setting s using (user_id)
where a.user_id > $1 and a.retired_ms is null
  and case when $2 then coalesce(s.weekly_report, true) else coalesce(s.daily_report, false) end
  and (exists (select from project_owner o where o.user_id = a.user_id)
    or exists (select from node n where n.owner_id = a.user_id))
order by a.user_id limit $3
"""


class PostgresReports:
    """engine.core.reports.Reports on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def unsealed(self, from_day: str, to_day: str) -> list[str]:
        return await self._db.run(_unsealed, date.fromisoformat(from_day), date.fromisoformat(to_day))

    async def sum_up(self, from_day: str, to_day: str) -> bool:
        return await self._db.run(_sum_up, date.fromisoformat(from_day), date.fromisoformat(to_day))

    async def readers(self, *, weekly: bool, after: str | None, limit: int, now_ms: int) -> list[Reader]:
        return await self._db.run(_readers, weekly, after or _NO_ID, limit, now_ms)

    async def slugs(self) -> dict[str, str]:
        return await self._db.run(_slugs)

    async def sums(self, scope_ids: list[str], from_day: str, to_day: str) -> list[DaySum]:
        return await self._db.run(_sums, scope_ids, date.fromisoformat(from_day), date.fromisoformat(to_day))

    async def points(self, project_id: str, from_day: str, to_day: str) -> dict[str, int]:
        days = date.fromisoformat(from_day), date.fromisoformat(to_day)
        return await self._db.run(_points, project_id, *days)

    async def gaps(self, from_ms: int, to_ms: int) -> tuple[int, int]:
        return await self._db.run(_gaps, from_ms, to_ms)

    async def prune(self, *, now_ms: int, kept_ms: int, limit: int) -> int:
        before = datetime.fromtimestamp((now_ms - kept_ms) / 1000, UTC).date()
        return await self._db.run(_prune, before, limit)


async def _unsealed(connection: Connection, from_day: date, to_day: date) -> list[str]:
    records = await connection.fetch(
        """
        select distinct p.slug from project p
        cross join generate_series($1::date, $2::date, interval '1 day') as d (day)
        where p.retired_ms is null
          and not exists (select from seal s where s.project_id = p.project_id and s.day = d.day::date)
          and exists (select from workload w where w.project_id = p.project_id
            and w.created_ms < (d.day::date - date '1970-01-01' + 1) * $3::bigint
            and (w.retired_ms is null or w.retired_ms > (d.day::date - date '1970-01-01') * $3::bigint))
        order by 1
        """,
        from_day,
        to_day,
        DAY_MS,
    )
    return [record["slug"] for record in records]


async def _sum_up(connection: Connection, from_day: date, to_day: date) -> bool:
    newest = await connection.fetchrow(
        """
        select s.seal_no, s.project_id::text, s.day, s.revision from seal s
        where s.day between $1 and $2 and s."rows" > 0
          and s.revision > coalesce((select r.revision from report_sum r
            where (r.project_id, r.day, r.scope_id) = (s.project_id, s.day, s.project_id)), 0)
          and not exists (select from seal n
            where n.project_id = s.project_id and n.day = s.day and n.revision > s.revision)
        order by s.day, s.project_id limit 1
        """,
        from_day,
        to_day,
    )
    if newest is None:
        return False
    project_id, day, revision = newest["project_id"], newest["day"], newest["revision"]
    async with connection.transaction():
        await connection.execute(
            "delete from report_sum where project_id = $1 and day = $2 and revision < $3",
            project_id,
            day,
            revision,
        )
        await connection.execute(_SUM_UP, newest["seal_no"], project_id, day, revision)
    return True


async def _readers(connection: Connection, weekly: bool, after: str, limit: int, now_ms: int) -> list[Reader]:
    records = await connection.fetch(_READERS, after, weekly, limit)
    without = [record for record in records if not record["channels"] and record["email"]]
    made = {
        record["user_id"]: record["channel_id"]
        for record in await connection.fetch(
            """
            insert into channel (channel_id, user_id, kind, target, name, event_kinds, created_ms)
            select md5('report' || u.user_id::text)::uuid, u.user_id, 'mail', u.email, 'Reports', '{report}',
              $3
            from unnest($1::uuid[], $2::text[]) as u (user_id, email)
            on conflict (channel_id) do nothing
            returning user_id::text, channel_id::text
            """,
            [record["user_id"] for record in without],
            [record["email"] for record in without],
            now_ms,
        )
    }
    return [
        Reader(
            user_id=record["user_id"],
            name=record["name"],
            owns=tuple(record["owns"]),
            channels=tuple(record["channels"] or filter(None, [made.get(record["user_id"])])),
        )
        for record in records
    ]


async def _slugs(connection: Connection) -> dict[str, str]:
    records = await connection.fetch("select project_id::text, slug from project")
    return {record["project_id"]: record["slug"] for record in records}


async def _sums(connection: Connection, scope_ids: list[str], from_day: date, to_day: date) -> list[DaySum]:
    records = await connection.fetch(
        """
        select project_id::text, scope_id::text, day::text, revision, workloads, nodes, window_ms, paid_ms,
          unobserved_ms, worst
        from report_sum where scope_id = any($1::uuid[]) and day between $2 and $3
        order by project_id, scope_id, day
        """,
        scope_ids,
        from_day,
        to_day,
    )
    return [
        DaySum(**{**record, "worst": msgspec.json.decode(record["worst"], type=tuple[Worst, ...])})
        for record in records
    ]


async def _points(connection: Connection, project_id: str, from_day: date, to_day: date) -> dict[str, int]:
    records = await connection.fetch(
        """
        select distinct on (day) day::text, total_micro_points from points_commit
        where project_id = $1 and day between $2 and $3 order by day, revision desc
        """,
        project_id,
        from_day,
        to_day,
    )
    return {record["day"]: int(record["total_micro_points"]) for record in records}


async def _gaps(connection: Connection, from_ms: int, to_ms: int) -> tuple[int, int]:
    record = await connection.fetchrow(
        """
        select count(*) as gaps, coalesce(sum(least(to_ms, $2) - greatest(from_ms, $1)), 0)::bigint as ms
        from gap where to_ms > $1 and from_ms < $2
        """,
        from_ms,
        to_ms,
    )
    return record["gaps"], record["ms"]


async def _prune(connection: Connection, before: date, limit: int) -> int:
    return int(
        await connection.fetchval(
            """
            with gone as (delete from report_sum where ctid = any(array(
              select ctid from report_sum where day < $1 limit $2)) returning 1)
            select count(*) from gone
            """,
            before,
            limit,
        )
    )
