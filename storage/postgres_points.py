"""How the points ledger is read: totals, history, boards, what somebody earned, rows. No change is made here.

Of a day the commit with the highest revision counts. Lists that go by ids take, of each commit that counts,
no more rows than the page has: the first so many of the sums can only be among those.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from engine.core.ledger import (
    Changed,
    Commit,
    DayTotal,
    Difference,
    LedgerRow,
    PaidRow,
    Share,
    Total,
)
from storage.pool import Connection

READ_S = 60.0  # a board over years of a great project
_COMMIT = """
select c.commit_id::text, c.project_id::text, c.day::text, c.revision, coalesce(s.revision, 0),
  coalesce(s.root, ''), c.rows, c.total_micro_points, c.reason, c.actor, c.committed_ms, d.replaces::text,
  d.rows_changed, d.rows_added, d.rows_removed, d.total_before
from points_commit c left join seal s using (seal_no) left join points_correction d using (commit_id)
"""
_WITHIN = "($2::date is null or c.day >= $2) and ($3::date is null or c.day < $3)"
_COUNTS = """
not exists (
  select 1 from points_commit n
  where n.project_id = c.project_id and n.day = c.day and n.revision > c.revision
)
"""
_COUNTING = f"select commit_id from points_commit c where project_id = $1 and {_WITHIN} and {_COUNTS}"
_BY_BENEFICIARY = f"""
with sums as (
  select kind, beneficiary, sum(micro_points) as micro, sum(licence_micro_points) as licensed
  from points_total where commit_id in ({_COUNTING}) group by kind, beneficiary
), people as (
  select case when a.user_id is null then s.kind else 'user' end as kind,
    coalesce(a.user_id::text, s.beneficiary) as beneficiary, sum(micro) as micro, sum(licensed) as licensed
  from sums s left join account a on s.kind = 'wallet' and a.wallet = s.beneficiary
  where not $8 or s.kind in ('wallet', 'user')
  group by 1, 2
), ranked as (select *, rank() over (order by micro desc) as rank from people)
select rank, kind, beneficiary, a.user_id::text, coalesce(a.name, ''),
  case when kind = 'wallet' then beneficiary else a.wallet end, micro, licensed
from ranked left join account a on kind = 'user' and a.user_id::text = beneficiary
where $4::numeric is null or micro < $4 or (micro = $4 and (kind, beneficiary) > ($5, $6))
order by micro desc, kind, beneficiary limit $7
"""


def day_of(text: str | None) -> datetime.date | None:
    return None if text is None else datetime.date.fromisoformat(text)


async def commits(
    connection: Connection,
    project_id: str,
    from_day: str | None,
    to_day: str | None,
    before: tuple[str, int] | None,
    limit: int,
) -> list[Commit]:
    records = await connection.fetch(
        f"{_COMMIT} where c.project_id = $1 and {_WITHIN}"
        " and ($4::date is null or (c.day, c.revision) < ($4, $5))"
        " order by c.day desc, c.revision desc limit $6",
        project_id,
        day_of(from_day),
        day_of(to_day),
        *((None, None) if before is None else (day_of(before[0]), before[1])),
        limit,
    )
    return [_commit(record) for record in records]


async def commit_of(connection: Connection, project_id: str, commit_id: str) -> Commit | None:
    record = await connection.fetchrow(
        f"{_COMMIT} where c.project_id = $1 and c.commit_id = $2", project_id, commit_id
    )
    return None if record is None else _commit(record)


def _commit(record: Any) -> Commit:
    *own, replaces, changed, added, removed, total_before = record
    commit_id, project_id, day, revision, sealed, root, rows_, total, reason, actor, committed_ms = own
    difference = (
        None if replaces is None else Difference(replaces, changed, added, removed, int(total_before))
    )
    return Commit(
        commit_id=commit_id,
        project_id=project_id,
        day=day,
        revision=revision,
        seal_revision=sealed,
        seal_root=bytes(root),
        rows=rows_,
        total_micro_points=int(total),
        reason=reason,
        actor=actor,
        committed_ms=committed_ms,
        difference=difference,
    )


async def differences(
    connection: Connection, commit: Commit, after: tuple[str, str] | None, limit: int
) -> list[Changed]:
    if commit.difference is None:
        return []
    records = await connection.fetch(
        """
        select kind, beneficiary, coalesce(old.micro_points, 0), coalesce(new.micro_points, 0)
        from (select * from points_total where commit_id = $1) old
          full join (select * from points_total where commit_id = $2) new using (kind, beneficiary)
        where coalesce(old.micro_points, 0) <> coalesce(new.micro_points, 0)
          and ($3::text is null or (kind, beneficiary) > ($3, $4))
        order by kind, beneficiary limit $5
        """,
        commit.difference.replaces,
        commit.commit_id,
        *(after or (None, None)),
        limit,
        timeout=READ_S,
    )
    return [Changed(kind, who, int(before), int(now)) for kind, who, before, now in records]


async def window_total(
    connection: Connection, project_id: str, from_day: str | None, to_day: str | None
) -> int:
    total = await connection.fetchval(
        f"select coalesce(sum(total_micro_points), 0) from points_commit where commit_id in ({_COUNTING})",
        project_id,
        day_of(from_day),
        day_of(to_day),
    )
    return int(total)


async def by_beneficiary(
    connection: Connection,
    project_id: str,
    from_day: str | None,
    to_day: str | None,
    after: tuple[int, str, str] | None,
    limit: int,
    people_only: bool,
) -> list[Total]:
    records = await connection.fetch(
        _BY_BENEFICIARY,
        project_id,
        day_of(from_day),
        day_of(to_day),
        *((None, None, None) if after is None else (Decimal(after[0]), *after[1:])),
        limit,
        people_only,
        timeout=READ_S,
    )
    return [
        Total(rank, kind, who, user_id, name, wallet, int(micro), int(licensed))
        for rank, kind, who, user_id, name, wallet, micro, licensed in records
    ]


async def by_licence(
    connection: Connection,
    project_id: str,
    from_day: str | None,
    to_day: str | None,
    after: str | None,
    limit: int,
) -> list[tuple[str, int]]:
    return await _by_id(connection, "points_share", "licence_id", project_id, from_day, to_day, after, limit)


async def by_workload(
    connection: Connection,
    project_id: str,
    from_day: str | None,
    to_day: str | None,
    after: str | None,
    limit: int,
) -> list[tuple[str, int]]:
    return await _by_id(connection, "points", "workload_id", project_id, from_day, to_day, after, limit)


async def _by_id(
    connection: Connection,
    table: str,
    column: str,
    project_id: str,
    from_day: str | None,
    to_day: str | None,
    after: str | None,
    limit: int,
) -> list[tuple[str, int]]:
    records = await connection.fetch(
        f"""
        select p.id::text, sum(p.micro) from ({_COUNTING}) counting cross join lateral (
          select {column} as id, sum(micro_points) as micro from {table} t
          where t.commit_id = counting.commit_id and {column} is not null
            and ($4::uuid is null or {column} > $4)
          group by {column} order by {column} limit $5
        ) p group by p.id order by p.id limit $5
        """,
        project_id,
        day_of(from_day),
        day_of(to_day),
        after,
        limit,
        timeout=READ_S,
    )
    return [(each, int(micro)) for each, micro in records]


async def by_day(
    connection: Connection,
    project_id: str,
    from_day: str | None,
    to_day: str | None,
    after: str | None,
    limit: int,
) -> list[Commit]:
    records = await connection.fetch(
        f"{_COMMIT} where c.project_id = $1 and {_WITHIN} and ($4::date is null or c.day > $4) and {_COUNTS}"
        " order by c.day limit $5",
        project_id,
        day_of(from_day),
        day_of(to_day),
        day_of(after),
        limit,
    )
    return [_commit(record) for record in records]


async def earned(
    connection: Connection,
    user_id: str,
    wallet: str | None,
    from_day: str | None,
    to_day: str | None,
    before: tuple[str, str] | None,
    limit: int,
) -> list[DayTotal]:
    records = await connection.fetch(
        f"""
        select c.day::text, c.project_id::text, p.slug, c.revision, sum(t.micro_points),
          sum(t.licence_micro_points)
        from points_total t join points_commit c using (commit_id) join project p using (project_id)
        where (t.kind, t.beneficiary) in (('user', $1), ('wallet', $4)) and {_WITHIN} and {_COUNTS}
          and ($5::date is null or (c.day, c.project_id) < ($5, $6::uuid))
        group by c.day, c.project_id, p.slug, c.revision order by c.day desc, c.project_id desc limit $7
        """,
        user_id,
        day_of(from_day),
        day_of(to_day),
        wallet or "",
        *((None, None) if before is None else (day_of(before[0]), before[1])),
        limit,
    )
    return [
        DayTotal(day, of, slug, revision, int(micro), int(licensed))
        for day, of, slug, revision, micro, licensed in records
    ]


async def rows(connection: Connection, commit_id: str, after: str | None, limit: int) -> list[LedgerRow]:
    found = await connection.fetch(
        """
        select workload_id::text, micro_points from points
        where commit_id = $1 and ($2::uuid is null or workload_id > $2) order by workload_id limit $3
        """,
        commit_id,
        after,
        limit,
    )
    if not found:
        return []
    shares: dict[str, list[Share]] = {}
    for workload_id, *share in await connection.fetch(
        """
        select workload_id::text, kind, beneficiary, licence_id::text, micro_points from points_share
        where commit_id = $1 and workload_id between $2 and $3 order by workload_id, micro_points desc
        """,
        commit_id,
        found[0][0],
        found[-1][0],
    ):
        shares.setdefault(workload_id, []).append(Share(*share))
    return [LedgerRow(each, micro, tuple(shares.get(each, ()))) for each, micro in found]


async def paid(connection: Connection, seal_no: int, after_place: int, limit: int) -> list[PaidRow]:
    records = await connection.fetch(
        """
        select place, workload_id::text, kind, paid_ms, (
          select coalesce(sum((h ->> 'paid_ms')::bigint), 0)::bigint from jsonb_array_elements(held::jsonb) h)
        from sealed_row
        where seal_no = $1 and place > $2 order by place limit $3
        """,
        seal_no,
        after_place,
        limit,
    )
    return [PaidRow(*record) for record in records]
