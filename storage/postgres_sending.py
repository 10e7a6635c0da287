"""The sending side of the outbox in PostgreSQL: claims, what came of them, budgets of mail.

A delivery belongs to who claimed it until its lease ends; nobody waits for anybody (skip locked). Writing
into the outbox is postgres_outbox.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.core.news import Notice
from engine.core.outbox import Channel, Delivery
from engine.core.sending import HOUR_MS, Settled
from storage.failpoint import reached
from storage.ids import is_id
from storage.pool import Connection, Postgres

# Of so many times the wanted number those are chosen that no bound forbids; so an endpoint with many due
# deliveries does not hide the others, and two workers that claim at once find different ones.
_LOOKED_AT = 4
HELD_MAX = 10_000  # in one statement; what is left over is skipped at each claim instead

_CLAIMED = """
  claimed as (
    update delivery d
    set due_ms = $2, attempts = d.attempts + 1, attempted_ms = coalesce(d.attempted_ms, $1)
    from due where d.delivery_id = due.delivery_id
    returning d.delivery_id, d.channel_id, d.notice_id, d.attempts, d.endpoint, d.circuit,
      due.due_ms as was_due_ms)
select d.delivery_id::text, d.attempts, d.was_due_ms, d.endpoint, d.circuit, c.unsubscribe_token, n.body,
  coalesce(c.project_id, c.user_id)::text, coalesce(a.email = lower(c.target), false),
  c.channel_id::text, c.project_id::text, c.kind, c.target, c.secret
from claimed d join channel c using (channel_id) join notice n using (notice_id)
  left join account a on a.user_id = c.user_id
order by d.was_due_ms, d.delivery_id
"""
_CLAIM = f"""
with seen as materialized (
    select delivery_id, due_ms, endpoint from delivery
    where state = 'due' and kind = $3 and due_ms <= $1
      and circuit <> all($5::text[]) and endpoint <> all($6::text[])
    order by due_ms, delivery_id limit $4 * {_LOOKED_AT}),
  ranked as (
    select s.*, row_number() over (partition by s.endpoint order by s.due_ms, s.delivery_id)
      + coalesce(f.count, 0) as place
    from seen s left join unnest($7::text[], $8::integer[]) as f (endpoint, count) using (endpoint)),
  due as (
    select d.delivery_id, d.due_ms from ranked r join delivery d using (delivery_id)
    where (r.endpoint = '' or $9 = 0 or r.place <= $9) and d.state = 'due' and d.due_ms <= $1
    order by d.due_ms, d.delivery_id limit $4 for update of d skip locked),
{_CLAIMED}"""
_PROBE = f"""
with due as (
    select d.delivery_id, d.due_ms from unnest($4::text[]) as asked (circuit)
    cross join lateral (
      select d.delivery_id, d.due_ms from delivery d
      where d.state = 'due' and d.circuit <> '' and d.circuit = asked.circuit and d.kind = $3
        and d.due_ms <= $1
      order by d.due_ms, d.delivery_id limit 1 for update skip locked) d),
{_CLAIMED}"""


class PostgresSending:
    """engine.core.sending.Sending on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def claim(
        self,
        *,
        kind: str,
        limit: int,
        now_ms: int,
        lease_ms: int,
        in_flight: Mapping[str, int] | None = None,
        in_flight_max: int = 0,
        without: Sequence[str] = (),
    ) -> list[Delivery]:
        flying = dict(in_flight or {})
        full = [name for name, count in flying.items() if in_flight_max and count >= in_flight_max]
        until_ms = now_ms + lease_ms
        found = await self._db.run(
            _fetch,
            _CLAIM,
            *(now_ms, until_ms, kind, limit, list(without), full),
            *(list(flying), list(flying.values()), in_flight_max),
        )
        if found:
            reached("delivery.claimed")
        return [_delivery(record, until_ms) for record in found]

    async def probe(
        self, *, kind: str, circuits: Sequence[str], now_ms: int, lease_ms: int
    ) -> list[Delivery]:
        until_ms = now_ms + lease_ms
        found = await self._db.run(_fetch, _PROBE, now_ms, until_ms, kind, list(circuits))
        return [_delivery(record, until_ms) for record in found]

    async def settle(self, settled: Sequence[Settled], *, now_ms: int) -> None:
        await self._db.run(_settle, settled, now_ms)
        reached("delivery.settled")

    async def hold(self, circuit: str, *, now_ms: int, until_ms: int) -> int:
        return await self._db.run(_hold, circuit, now_ms, until_ms)

    async def take_budget(
        self, address: str, *, owner: str, per_hour_max: int, now_ms: int
    ) -> tuple[bool, int]:
        return await self._db.run(_take_budget, address.lower(), owner, per_hour_max, now_ms)

    async def give_back_budget(self, address: str, *, owner: str, taken_ms: int) -> None:
        await self._db.run(_give_back_budget, address.lower(), owner, taken_ms)

    async def disable_channel(self, channel_id: str, *, now_ms: int, note: str) -> int:
        return await self._db.run(_disable_channel, channel_id, now_ms, note) if is_id(channel_id) else 0

    async def prune(self, *, now_ms: int, limit: int) -> int:
        return await self._db.run(_prune, now_ms, limit)


async def _fetch(connection: Connection, statement: str, *arguments: object) -> list[Any]:
    return list(await connection.fetch(statement, *arguments))


def _delivery(record: Any, due_ms: int) -> Delivery:
    delivery_id, attempts, wanted_ms, endpoint, circuit, token, body, owner, own_address, *channel = record
    return Delivery(
        delivery_id=delivery_id,
        channel=Channel(*channel),
        notice=msgspec.json.decode(body, type=Notice),
        attempts=attempts,
        due_ms=due_ms,
        wanted_ms=wanted_ms,
        endpoint=endpoint,
        circuit=circuit,
        unsubscribe_token=token,
        owner=owner,
        own_address=own_address,
    )


async def _settle(connection: Connection, settled: Sequence[Settled], now_ms: int) -> None:
    # In order of the key, so that two workers that write the same rows cannot lock each other out.
    await connection.execute(
        """
        with told as (
          select s.* from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::boolean[])
            as s (delivery_id, state, note, retry_at_ms, attempted)
          join delivery d using (delivery_id) where d.state = 'due' order by s.delivery_id for update of d)
        update delivery d set state = t.state, note = t.note,
          settled_ms = case when t.state = 'due' then null else $6::bigint end,
          due_ms = case when t.state = 'due' then t.retry_at_ms else d.due_ms end,
          attempts = d.attempts - (not t.attempted)::integer,
          attempted_ms = case when d.attempts = 1 and not t.attempted then null else d.attempted_ms end
        from told t where d.delivery_id = t.delivery_id
        """,
        [one.delivery_id for one in settled],
        [one.state for one in settled],
        [one.note for one in settled],
        [one.retry_at_ms for one in settled],
        [one.attempted for one in settled],
        now_ms,
    )


async def _hold(connection: Connection, circuit: str, now_ms: int, until_ms: int) -> int:
    status = await connection.execute(
        f"""
        update delivery set due_ms = $3 where delivery_id = any(array(
          select delivery_id from delivery
          where state = 'due' and circuit <> '' and circuit = $1 and due_ms <= $2
          limit {HELD_MAX} for update skip locked))
        """,
        circuit,
        now_ms,
        until_ms,
    )
    return int(status.rsplit(" ", 1)[1])


async def _take_budget(
    connection: Connection, address: str, owner: str, per_hour_max: int, now_ms: int
) -> tuple[bool, int]:
    # Never the same millisecond twice, so that what is given back is one. The newest `per_hour_max` are kept.
    taken = await connection.fetchval(
        """
        insert into mail_budget as b (address, owner, sent_ms) values ($1, $5, array[$2::bigint])
        on conflict (address, owner) do update
        set sent_ms = (b.sent_ms || greatest($2::bigint, b.sent_ms[cardinality(b.sent_ms)] + 1))
          [greatest(1, cardinality(b.sent_ms) + 2 - $3::integer):]
        where cardinality(b.sent_ms) < $3
          or b.sent_ms[cardinality(b.sent_ms) + 1 - $3] <= $2 - $4::bigint
        returning sent_ms[cardinality(sent_ms)]
        """,
        address,
        now_ms,
        per_hour_max,
        HOUR_MS,
        owner,
    )
    if taken is not None:
        return True, int(taken)
    oldest = await connection.fetchval(
        """
        select sent_ms[cardinality(sent_ms) + 1 - $2::integer] from mail_budget
        where address = $1 and owner = $3
        """,
        address,
        per_hour_max,
        owner,
    )
    return False, now_ms + 1_000 if oldest is None else int(oldest) + HOUR_MS


async def _give_back_budget(connection: Connection, address: str, owner: str, taken_ms: int) -> None:
    await connection.execute(
        """
        update mail_budget set sent_ms = array_remove(sent_ms, $3::bigint) where address = $1 and owner = $2
        """,
        address,
        owner,
        taken_ms,
    )


async def _prune(connection: Connection, now_ms: int, limit: int) -> int:
    status = await connection.execute(
        """
        delete from mail_budget where ctid = any(array(
          select ctid from mail_budget
          where coalesce(sent_ms[cardinality(sent_ms)], 0) <= $1 limit $2 for update skip locked))
        """,
        now_ms - HOUR_MS,
        limit,
    )
    return int(status.rsplit(" ", 1)[1])


async def _disable_channel(connection: Connection, channel_id: str, now_ms: int, note: str) -> int:
    async with connection.transaction():
        return await end_channel(connection, channel_id, now_ms, note)


async def end_channel(connection: Connection, channel_id: str, now_ms: int, note: str) -> int:
    """In a transaction: nothing more is told there, and what was due dies; how many."""
    await connection.execute(
        """
        update channel set disabled_ms = coalesce(disabled_ms, $2),
          disabled_note = case when disabled_ms is null then $3 else disabled_note end
        where channel_id = $1
        """,
        channel_id,
        now_ms,
        note,
    )
    return int(
        await connection.fetchval(
            """
            with died as (
              update delivery set state = 'dead', settled_ms = $2, note = $3
              where channel_id = $1 and state = 'due' returning 1)
            select count(*) from died
            """,
            channel_id,
            now_ms,
            note,
        )
    )
