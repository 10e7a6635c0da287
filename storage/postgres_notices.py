"""Channels and notification settings in PostgreSQL, as their owners change them.

What the worker needs of channels is in postgres_outbox.py, over the same table.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.apprise_url import shown
from engine.core.consent import Question
from engine.core.notices import CHANNELS_MAX, ChannelRecord, NotificationSetting, TooManyChannelsError
from engine.core.people import Act
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_consent import standing, wait_for_recipient
from storage.postgres_sending import end_channel

CHANNELS = """
select channel_id::text, project_id::text, user_id::text, kind, target, secret, name, event_kinds, created_ms,
  disabled_ms, disabled_note, no_announcements_ms, unconfirmed_ms from channel
"""
# Of an owner the other id is null, and null equals nothing: `is not distinct from` compares both at once.
OWNED = "project_id is not distinct from $1 and user_id is not distinct from $2"
_LEFT_OUT_IN_AUDIT = (
    *("secret", "channel_id", "created_ms"),
    *("disabled_ms", "disabled_note", "no_announcements_ms", "unconfirmed_ms"),
)


class PostgresNotices:
    """engine.core.notices.Notices on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def channels(
        self, *, project_id: str | None = None, user_id: str | None = None
    ) -> list[ChannelRecord]:
        return await self._db.run(_channels, project_id, user_id)

    async def create_channel(
        self,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        kind: str,
        target: str,
        secret: str,
        name: str,
        event_kinds: tuple[str, ...],
        question: Question | None = None,
        act: Act,
    ) -> ChannelRecord:
        made = ChannelRecord(
            act.made_id, project_id, user_id, kind, target, secret, name, event_kinds, act.now_ms, None
        )
        return await self._db.run(_create_channel, made, question, act)

    async def remove_channel(
        self, channel_id: str, *, project_id: str | None = None, user_id: str | None = None, act: Act
    ) -> bool:
        if not is_id(channel_id):
            return False
        return await self._db.run(_remove_channel, channel_id, project_id, user_id, act)

    async def setting(self, user_id: str) -> NotificationSetting:
        return await self._db.run(_setting, user_id)

    async def change_setting(self, user_id: str, setting: NotificationSetting, *, act: Act) -> None:
        await self._db.run(_change_setting, user_id, setting, act)


def channel_of(record: Any) -> ChannelRecord:
    """Of a record of CHANNELS."""
    return ChannelRecord(**{**record, "event_kinds": tuple(record["event_kinds"])})


async def _channels(
    connection: Connection, project_id: str | None, user_id: str | None
) -> list[ChannelRecord]:
    records = await connection.fetch(
        f"{CHANNELS} where {OWNED} and removed_ms is null order by channel_id", project_id, user_id
    )
    return [channel_of(record) for record in records]


async def _create_channel(
    connection: Connection, made: ChannelRecord, question: Question | None, act: Act
) -> ChannelRecord:
    async with connection.transaction():
        first = await connection.fetchval(
            f"""
            insert into channel
              (project_id, user_id, channel_id, kind, target, secret, name, event_kinds, created_ms)
            select $1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8, $9
            where (select count(*) from channel where {OWNED} and removed_ms is null) < $10
            on conflict (channel_id) do nothing returning true
            """,
            made.project_id,
            made.user_id,
            made.channel_id,
            made.kind,
            made.target,
            made.secret,
            made.name,
            list(made.event_kinds),
            made.created_ms,
            CHANNELS_MAX,
        )
        if first and made.kind == "mail":
            await _look_for_consent(connection, made, question)
        found = await connection.fetchrow(f"{CHANNELS} where channel_id = $1", made.channel_id)
        if found is None:
            raise TooManyChannelsError(f"{CHANNELS_MAX} channels are there already: remove one")
        if first:
            # A service's URL is a secret as a whole.
            target = shown(made.target) if made.kind == "apprise" else made.target
            fields = (msgspec.structs.asdict(made) | {"target": target}).items()
            await write_audit(
                connection,
                act,
                action="channel.create",
                subject=made.channel_id,
                project_id=made.project_id,
                detail={name: value for name, value in fields if name not in _LEFT_OUT_IN_AUDIT},
            )
    return channel_of(found)


async def _look_for_consent(connection: Connection, made: ChannelRecord, question: Question | None) -> None:
    """Have the new channel wait for its recipient, if they have to be asked."""
    stands = await standing(connection, made, question.maker_id if question is not None else None)
    if stands.own:
        return
    unknown = stands.confirmed_ms is None and question is not None
    if unknown or stands.refused_ms is not None:
        await wait_for_recipient(connection, made, question, made.created_ms)
    if stands.no_announcements_ms is not None:
        await connection.execute(
            "update channel set no_announcements_ms = $2 where channel_id = $1",
            made.channel_id,
            stands.no_announcements_ms,
        )


async def _remove_channel(
    connection: Connection, channel_id: str, project_id: str | None, user_id: str | None, act: Act
) -> bool:
    async with connection.transaction():
        removed = await connection.fetchval(
            f"""
            update channel set removed_ms = $4
            where {OWNED} and channel_id = $3 and removed_ms is null returning true
            """,
            project_id,
            user_id,
            channel_id,
            act.now_ms,
        )
        if not removed:
            return False
        await end_channel(connection, channel_id, act.now_ms, "the channel was removed")
        await write_audit(connection, act, action="channel.remove", subject=channel_id, project_id=project_id)
    return True


async def _setting(connection: Connection, user_id: str) -> NotificationSetting:
    record = await connection.fetchrow(
        """
        select down_delay_s, quiet_from, quiet_to, time_zone, daily_report, weekly_report
        from notification_setting where user_id = $1
        """,
        user_id,
    )
    return NotificationSetting(**record) if record else NotificationSetting()


async def _change_setting(
    connection: Connection, user_id: str, setting: NotificationSetting, act: Act
) -> None:
    fields = msgspec.structs.asdict(setting)
    async with connection.transaction():
        await connection.execute(
            """
            insert into notification_setting
              (user_id, down_delay_s, quiet_from, quiet_to, time_zone, daily_report, weekly_report)
            values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (user_id) do update set down_delay_s = $2, quiet_from = $3, quiet_to = $4,
              time_zone = $5, daily_report = $6, weekly_report = $7
            """,
            user_id,
            *fields.values(),
        )
        await write_audit(connection, act, action="notifications.change", subject=user_id, detail=fields)
