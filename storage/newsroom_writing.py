"""What one step of the notifier writes to PostgreSQL: the difference of its state, notices, events, cursor.

All in the caller's transaction. Reading is newsroom_reading.py's.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from engine.core.newsroom import Decision, Group, Item, ItemKey, State, Telling
from storage.pool import Connection
from storage.postgres_events import write_events
from storage.postgres_outbox import put_notices

K = TypeVar("K")
V = TypeVar("V")


async def write(connection: Connection, before: State, decision: Decision, cursor: int, now_ms: int) -> int:
    """How many deliveries are new. The events come last: a lock is held from there to the commit."""
    after = decision.state
    await connection.execute("update notifier set cursor = greatest(cursor, $1)", cursor)
    deliveries = await put_notices(connection, decision.notices, now_ms)
    await _write_items(connection, *_difference(before.items, after.items))
    await _write_timed(connection, "subject", *_difference(before.subjects, after.subjects))
    await _write_timed(connection, "area", *_difference(before.areas, after.areas))
    await _write_degraded(connection, *_difference(before.degraded, after.degraded))
    await _write_telling(connection, *_difference(before.telling, after.telling))
    if decision.recorded:
        await write_events(connection, decision.recorded)
    return deliveries


def _difference(before: dict[K, V], after: dict[K, V]) -> tuple[dict[K, V], list[K]]:
    """What is new or changed, and which keys are gone."""
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    return changed, [key for key in before if key not in after]


async def _write_items(connection: Connection, changed: dict[ItemKey, Item], gone: list[ItemKey]) -> None:
    if gone:
        await connection.execute(
            """
            delete from news_item i using unnest($1::text[], $2::uuid[]) as g (subject, channel_id)
            where i.subject = g.subject and i.channel_id = g.channel_id
            """,
            [subject for subject, _ in gone],
            [channel for _, channel in gone],
        )
    if changed:
        await connection.execute(
            """
            insert into news_item (subject, channel_id, lane, held_ms, due_ms, body)
            select * from unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[])
            on conflict (subject, channel_id) do update
              set lane = excluded.lane, held_ms = excluded.held_ms, due_ms = excluded.due_ms,
                body = excluded.body
            """,
            [subject for subject, _ in changed],
            [channel for _, channel in changed],
            [item.lane for item in changed.values()],
            [item.held_ms for item in changed.values()],
            [item.due_ms for item in changed.values()],
            [msgspec.json.encode(item) for item in changed.values()],
        )


async def _write_timed(connection: Connection, what: str, changed: dict[str, Any], gone: list[str]) -> None:
    """Subjects and areas: tables of the same form."""
    if gone:
        await connection.execute(f"delete from news_{what} where {what} = any($1::text[])", gone)
    if changed:
        await connection.execute(
            f"""
            insert into news_{what} ({what}, due_ms, body)
            select * from unnest($1::text[], $2::bigint[], $3::bytea[])
            on conflict ({what}) do update set due_ms = excluded.due_ms, body = excluded.body
            """,
            list(changed),
            [each.due_ms for each in changed.values()],
            [msgspec.json.encode(each) for each in changed.values()],
        )


async def _write_degraded(connection: Connection, changed: dict[int, int], gone: list[int]) -> None:
    if gone:
        await connection.execute("delete from news_degraded where shard = any($1::integer[])", gone)
    if changed:
        await connection.execute(
            """
            insert into news_degraded (shard, since_ms) select * from unnest($1::integer[], $2::bigint[])
            on conflict (shard) do update set since_ms = excluded.since_ms
            """,
            list(changed),
            list(changed.values()),
        )


async def _write_telling(connection: Connection, changed: dict[Group, Telling], gone: list[Group]) -> None:
    if gone:
        await connection.executemany(
            "delete from news_telling where channel_id = $1 and (lane = 'reminder') = $2", gone
        )
    if changed:
        await connection.executemany(
            "insert into news_telling (channel_id, lane, notice_id, upto_ms) values ($1, $2, $3, $4)",
            [
                (channel, "reminder" if reminds else "digest", under.notice_id, under.upto_ms)
                for (channel, reminds), under in changed.items()
            ],
        )
