"""Whom the points of a commit belong to, for all its rows at once (docs/decisions/0068).

Reads `judged_points`: the rows of the commit under way beside what the seal says of them, in order of
workloads. postgres_ledger.py makes it in the same transaction.
"""

from __future__ import annotations

import re

from storage.pool import Connection

PREVIEW = "preview_"  # before the names of temporary tables that are written instead

# Without a licence: the operator's, else the machine's own.
_PLAIN = """
insert into points_share (commit_id, workload_id, licence_id, kind, beneficiary, micro_points)
select $1, workload_id, null, case when operator_id is null then 'node' else 'user' end,
  coalesce(operator_id, node_id)::text, micro_points
from judged_points where held is null and micro_points > 0
"""
# One owner to whom all of the paid time falls: nothing to be split. Almost everybody, almost every day.
_WHOLE = """
jsonb_array_length(held) = 1 and paid_ms > 0 and (held -> 0 ->> 'paid_ms')::bigint = paid_ms
"""
_ONE = f"""
insert into points_share (commit_id, workload_id, licence_id, kind, beneficiary, micro_points)
select $1, workload_id, (held -> 0 ->> 'licence_id')::uuid, 'wallet', held -> 0 ->> 'owner', micro_points
from judged_points where held is not null and {_WHOLE} and micro_points > 0
"""
# By paid time, or by held time where nothing was paid; what nobody held is nobody's, unless only time under
# licences counts: then there is no amount for it. Largest remainder: each
# gets the floor of the exact share, what is left goes one by one to those with the largest remainders, to the
# earlier span where two are equal. numeric, because points times milliseconds outgrow 64 bits.
_SPLIT = f"""
insert into points_share (commit_id, workload_id, licence_id, kind, beneficiary, micro_points)
with owned as (
  select j.workload_id, h.licence_id, h.owner, sum(h.paid_ms) as paid_ms, sum(h.to_ms - h.from_ms) as span_ms,
    min(h.nth) as nth
  from (
    select * from judged_points where held is not null and not ({_WHOLE}) and micro_points > 0
  ) j cross join lateral rows from (
    jsonb_to_recordset(j.held) as (licence_id uuid, owner text, from_ms bigint, to_ms bigint, paid_ms bigint)
  ) with ordinality as h (licence_id, owner, from_ms, to_ms, paid_ms, nth)
  group by j.workload_id, h.licence_id, h.owner
), claim as (
  select workload_id, licence_id, 'wallet' as kind, owner, paid_ms, span_ms, nth from owned
  union all
  select j.workload_id, null, 'nobody', '', greatest(j.paid_ms - o.paid_ms, 0),
    greatest(j.span_ms - o.span_ms, 0), 1 << 30
  from judged_points j join (
    select workload_id, sum(paid_ms) as paid_ms, sum(span_ms) as span_ms from owned group by workload_id
  ) o using (workload_id)
  where not $2::boolean
), weighed as (
  select c.*, j.micro_points,
    case when sum(c.paid_ms) over (partition by workload_id) > 0 then c.paid_ms else c.span_ms end as weight
  from claim c join judged_points j using (workload_id)
), part as (
  select *, div(micro_points::numeric * weight, whole) as amount,
    mod(micro_points::numeric * weight, whole) as rest
  from (select *, sum(weight) over (partition by workload_id) as whole from weighed) w where whole > 0
), ranked as (
  select *, micro_points - sum(amount) over (partition by workload_id) as left_over,
    row_number() over (partition by workload_id order by rest desc, nth) as place
  from part
)
select $1, workload_id, licence_id, kind, owner, amount + case when place <= left_over then 1 else 0 end
from ranked where amount > 0 or place <= left_over order by workload_id
"""
_TOTALS = """
insert into points_total (commit_id, kind, beneficiary, micro_points, licence_micro_points)
select $1, kind, beneficiary, sum(micro_points),
  coalesce(sum(micro_points) filter (where licence_id is not null), 0)
from points_share where commit_id = $1 group by kind, beneficiary order by kind, beneficiary
"""
_SUMS = """
select (select coalesce(sum(micro_points), 0) from points where commit_id = $1),
  (select coalesce(sum(micro_points), 0) from points_share where commit_id = $1),
  (select coalesce(sum(micro_points), 0) from points_total where commit_id = $1)
"""


async def write_shares(
    connection: Connection, commit_id: str, *, licensed_only: bool, timeout_s: float, into: str = ""
) -> None:
    """Shares and totals of the rows that were just written, inside their transaction.

    `into`: PREVIEW has the same done with temporary tables.
    """
    plain, one, split, totals, sums = (
        re.sub(r"\b(points|points_share|points_total)\b", rf"{into}\1", each)
        for each in (_PLAIN, _ONE, _SPLIT, _TOTALS, _SUMS)
    )
    for statement in (plain, one):
        await connection.execute(statement, commit_id, timeout=timeout_s)
    await connection.execute(split, commit_id, licensed_only, timeout=timeout_s)
    await connection.execute(totals, commit_id, timeout=timeout_s)
    in_rows, in_shares, in_totals = await connection.fetchrow(sums, commit_id, timeout=timeout_s)
    assert in_rows == in_shares == in_totals, (
        f"{in_rows} points in rows, {in_shares} in shares, {in_totals} in totals"
    )
