"""Announcements in PostgreSQL: recipients are found in one statement, whatever their number."""

from __future__ import annotations

import msgspec
import numpy as np

from engine.core.announcements import Announcement, Audience, Reach, TooManyAnnouncementsError
from engine.core.news import Notice
from engine.core.people import Act
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_outbox import put_notices

_DAY_MS = 86_400_000
_ONE_AT_A_TIME = 0x4E50_0007  # of pg_advisory_xact_lock: so that the bound per day holds
_MATCHING = """
matching as (
  select n.node_id, n.owner_id, n."row" from node n
  where n.kind = 'node' and n.retired_ms is null and n.revoked_ms is null
    and ($1::uuid is null or n.project_id = $1) and ($2::text is null or n.region = $2)
    and ($3::text is null and $4::text is null or exists (
      select from workload w left join workload_kind k using (kind_id)
      where w.node_id = n.node_id and w.retired_ms is null
        and ($3 is null or k.slug = $3) and ($4 is null or w.running_version = $4)))
    and ($5::bigint[] is null or n."row" = any($5)))
"""
_TAKERS = """
takers as (
  select c.channel_id, c.user_id
  from (select distinct owner_id from matching where owner_id is not null) o
    join channel c on c.user_id = o.owner_id
  where c.disabled_ms is null and c.removed_ms is null and c.no_announcements_ms is null
    and (c.event_kinds = '{}' or 'announcement' = any(c.event_kinds)))
"""
_REACH = f"""
with {_MATCHING}, {_TAKERS}
select (select count(*) from matching), (select count(distinct owner_id) from matching),
  (select count(distinct user_id) from takers), (select count(*) from takers)
"""
_CHANNELS = f"with {_MATCHING}, {_TAKERS} select channel_id::text from takers order by channel_id"
_ANNOUNCEMENTS = """
select a.announcement_id::text, a.project_id::text, p.slug, a.title, a.text, a.filter, a.actor, a.created_ms,
  a.nodes, a.people, a.channels, coalesce(d.sent, 0) as sent, coalesce(d.dead, 0) as dead
from announcement a left join project p using (project_id) cross join lateral (
  select count(*) filter (where state = 'sent') as sent, count(*) filter (where state = 'dead') as dead
  from delivery where notice_id = a.announcement_id::text) d
"""


class PostgresAnnouncements:
    """engine.core.announcements.Announcements on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def rows(self, audience: Audience) -> np.ndarray:
        return await self._db.run(_rows, audience)

    async def reach(self, audience: Audience, *, rows: np.ndarray | None) -> Reach:
        return await self._db.run(_reach, audience, rows)

    async def announce(
        self,
        audience: Audience,
        *,
        rows: np.ndarray | None,
        title: str,
        text: str,
        filter_json: str,
        per_day_max: int,
        act: Act,
    ) -> Announcement:
        words = (title, text, filter_json)
        return await self._db.run(_announce, audience, rows, words, per_day_max, act)

    async def announcements(
        self, projects: tuple[str, ...] | None, *, before: str | None, limit: int
    ) -> list[Announcement]:
        return await self._db.run(_announcements, projects, before, limit)


def _arguments(audience: Audience, rows: np.ndarray | None) -> tuple[object, ...]:
    listed = None if rows is None else rows.tolist()
    return audience.project_id, audience.region, audience.kind, audience.version, listed


async def _rows(connection: Connection, audience: Audience) -> np.ndarray:
    records = await connection.fetch(
        f'with {_MATCHING} select "row" from matching order by 1', *_arguments(audience, None)
    )
    return np.fromiter((record[0] for record in records), np.int64, len(records))


async def _reach(connection: Connection, audience: Audience, rows: np.ndarray | None) -> Reach:
    return Reach(*await connection.fetchrow(_REACH, *_arguments(audience, rows)))


async def _announce(
    connection: Connection,
    audience: Audience,
    rows: np.ndarray | None,
    words: tuple[str, str, str],
    per_day_max: int,
    act: Act,
) -> Announcement:
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _ONE_AT_A_TIME)
        found = await _one(connection, act.made_id)
        if found is not None:
            return found
        await _must_be_within_the_day(connection, audience.project_id, per_day_max, act.now_ms)
        title, text, filter_json = words
        reach = await _reach(connection, audience, rows)
        channels = await connection.fetch(_CHANNELS, *_arguments(audience, rows))
        await connection.execute(
            """
            insert into announcement
              (announcement_id, project_id, title, text, filter, actor, created_ms, nodes, people, channels)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            """,
            *(act.made_id, audience.project_id, title, text, filter_json, act.actor, act.now_ms),
            *(reach.nodes, reach.people, len(channels)),
        )
        notice = Notice(
            notice_id=act.made_id,
            form="announcement",
            kind="announcement",
            at_ms=act.now_ms,
            since_ms=act.now_ms,
            project_id=audience.project_id,
            title=title,
            text=text,
        )
        await put_notices(connection, [(notice, record[0]) for record in channels], act.now_ms)
        await write_audit(
            connection,
            act,
            action="announcement.make",
            subject=act.made_id,
            project_id=audience.project_id,
            detail={"title": title, "filter": filter_json, **msgspec.structs.asdict(reach)},
        )
        made = await _one(connection, act.made_id)
        assert made is not None, "it was just written"
    return made


async def _must_be_within_the_day(
    connection: Connection, project_id: str | None, per_day_max: int, now_ms: int
) -> None:
    today = await connection.fetchval(
        "select count(*) from announcement where project_id is not distinct from $1 and created_ms >= $2",
        project_id,
        now_ms - now_ms % _DAY_MS,
    )
    if today >= per_day_max:
        raise TooManyAnnouncementsError(f"{per_day_max} announcements were made today (UTC)")


async def _one(connection: Connection, announcement_id: str) -> Announcement | None:
    record = await connection.fetchrow(f"{_ANNOUNCEMENTS} where a.announcement_id = $1", announcement_id)
    return None if record is None else Announcement(*record)


async def _announcements(
    connection: Connection, projects: tuple[str, ...] | None, before: str | None, limit: int
) -> list[Announcement]:
    records = await connection.fetch(
        f"""
        {_ANNOUNCEMENTS}
        where ($1::uuid[] is null or a.project_id = any($1)) and ($2::uuid is null or a.announcement_id < $2)
        order by a.announcement_id desc limit $3
        """,
        None if projects is None else list(projects),
        before,
        limit,
    )
    return [Announcement(*record) for record in records]
