"""History of deliveries and the tools over it in PostgreSQL: tests, dead letters, the link out of mails.

Claiming and settling is postgres_sending.py, over the same tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.consent import Question
from engine.core.news import Notice
from engine.core.notices import ChannelRecord
from engine.core.people import Act
from engine.core.sending import HOUR_MS
from engine.core.told import (
    OWNERS_TESTS_PER_HOUR_MAX,
    REPLAYED_MAX,
    TESTS_PER_HOUR_MAX,
    ChannelOffError,
    DeliveryRecord,
    DeliveryState,
    TooManyTestsError,
)
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit
from storage.postgres_consent import ask, refuse, standing, wait_for_recipient, welcome
from storage.postgres_notices import CHANNELS, OWNED, channel_of
from storage.postgres_outbox import put_notices
from storage.postgres_sending import end_channel

_DELIVERIES = """
select d.delivery_id::text, d.state, d.attempts, d.replays, d.note, d.created_ms, d.due_ms, d.attempted_ms,
  d.settled_ms, n.body
from delivery d join notice n using (notice_id)
where d.channel_id = $1 and ($2::uuid is null or d.delivery_id < $2) and ($3::text is null or d.state = $3)
order by d.delivery_id desc limit $4
"""


class PostgresTold:
    """engine.core.told.Told on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def channel(
        self, channel_id: str, *, project_id: str | None = None, user_id: str | None = None
    ) -> ChannelRecord | None:
        if not is_id(channel_id):
            return None
        return await self._db.run(_channel, f"{OWNED} and channel_id = $3", (project_id, user_id, channel_id))

    async def deliveries(
        self, channel_id: str, *, state: DeliveryState | None, before: str | None, limit: int
    ) -> list[DeliveryRecord]:
        return await self._db.run(_deliveries, channel_id, before, state, limit)

    async def send_test(self, channel: ChannelRecord, notice: Notice, *, act: Act) -> str:
        return await self._db.run(_send_test, channel, notice, act)

    async def replay(self, channel: ChannelRecord, delivery_id: str | None, *, act: Act) -> int:
        if delivery_id is not None and not is_id(delivery_id):
            return 0
        return await self._db.run(_replay, channel, delivery_id, act)

    async def enable(
        self, channel: ChannelRecord, *, question: Question | None = None, act: Act
    ) -> ChannelRecord:
        return await self._db.run(_enable, channel, question, act)

    async def disable(self, channel: ChannelRecord, *, act: Act) -> ChannelRecord:
        return await self._db.run(_disable, channel, act)

    async def channel_of_link(self, token: str) -> ChannelRecord | None:
        return await self._db.run(_channel, "unsubscribe_token = $1", (token,))

    async def unsubscribe(self, token: str, *, announcements_only: bool, act: Act) -> bool:
        return await self._db.run(_unsubscribe, token, announcements_only, act)


async def _channel(connection: Connection, which: str, arguments: Sequence[object]) -> ChannelRecord | None:
    record = await connection.fetchrow(f"{CHANNELS} where {which} and removed_ms is null", *arguments)
    return None if record is None else channel_of(record)


async def _deliveries(
    connection: Connection, channel_id: str, before: str | None, state: str | None, limit: int
) -> list[DeliveryRecord]:
    records = await connection.fetch(_DELIVERIES, channel_id, before, state, limit)
    return [_delivery(record) for record in records]


def _delivery(record: Any) -> DeliveryRecord:
    *fields, body = record
    notice = msgspec.json.decode(body, type=Notice)
    return DeliveryRecord(*[*fields, notice])


async def _must_be_on(connection: Connection, channel: ChannelRecord) -> None:
    """With a lock until the commit, so that nothing becomes due that nobody would ever send."""
    on, unconfirmed = await connection.fetchrow(
        """
        select disabled_ms is null and removed_ms is null, unconfirmed_ms is not null
        from channel where channel_id = $1 for share
        """,
        channel.channel_id,
    )
    if unconfirmed:
        raise ChannelOffError("nothing goes there: its recipient has not confirmed it yet")
    if not on:
        raise ChannelOffError("this channel is disabled: enable it first")


async def _send_test(connection: Connection, channel: ChannelRecord, notice: Notice, act: Act) -> str:
    async with connection.transaction():
        await connection.execute(
            "select from channel where channel_id = $1 for no key update", channel.channel_id
        )
        found = await _test(connection, channel, notice)
        if found is not None:
            return found
        await _must_be_on(connection, channel)
        await _must_not_be_too_many(connection, channel, act.now_ms)
        await put_notices(connection, [(notice, channel.channel_id)], act.now_ms)
        await write_audit(
            connection, act, action="channel.test", subject=channel.channel_id, project_id=channel.project_id
        )
        made = await _test(connection, channel, notice)
        assert made is not None, "it was just put there"
        return made


async def _must_not_be_too_many(connection: Connection, channel: ChannelRecord, now_ms: int) -> None:
    """Removed channels count, too: whoever makes one anew would else begin to count anew."""
    there, in_all = await connection.fetchrow(
        """
        select count(*) filter (where o.kind = c.kind and o.target = c.target), count(*)
        from channel c join channel o on o.project_id = c.project_id or o.user_id = c.user_id
          join delivery d on d.channel_id = o.channel_id join notice n using (notice_id)
        where c.channel_id = $1 and n.form = 'test' and n.created_ms > $2
        """,
        channel.channel_id,
        now_ms - HOUR_MS,
    )
    if there >= TESTS_PER_HOUR_MAX:
        raise TooManyTestsError(f"{TESTS_PER_HOUR_MAX} tests were sent there within the hour")
    if in_all >= OWNERS_TESTS_PER_HOUR_MAX:
        raise TooManyTestsError(f"{OWNERS_TESTS_PER_HOUR_MAX} tests were sent within the hour")


async def _test(connection: Connection, channel: ChannelRecord, notice: Notice) -> str | None:
    found: str | None = await connection.fetchval(
        "select delivery_id::text from delivery where notice_id = $1 and channel_id = $2",
        notice.notice_id,
        channel.channel_id,
    )
    return found


async def _replay(connection: Connection, channel: ChannelRecord, delivery_id: str | None, act: Act) -> int:
    async with connection.transaction():
        await _must_be_on(connection, channel)
        status = await connection.execute(
            f"""
            update delivery set state = 'due', attempts = 0, due_ms = $3, settled_ms = null,
              replays = replays + 1
            where delivery_id = any(array(
              select delivery_id from delivery
              where channel_id = $1 and ($2::uuid is null or delivery_id = $2) and state = 'dead'
              order by delivery_id limit {REPLAYED_MAX} for update))
            """,
            channel.channel_id,
            delivery_id,
            act.now_ms,
        )
        count = int(status.rsplit(" ", 1)[1])
        if count:
            await write_audit(
                connection,
                act,
                action="channel.replay",
                subject=channel.channel_id,
                project_id=channel.project_id,
                detail={"deliveries": count},
            )
    return count


async def _enable(
    connection: Connection, channel: ChannelRecord, question: Question | None, act: Act
) -> ChannelRecord:
    async with connection.transaction():
        keep_ms = None
        if channel.kind == "mail":
            stands = await standing(connection, channel, question.maker_id if question is not None else None)
            if stands.own:
                await welcome(connection, channel)
            elif stands.refused_ms is not None or channel.unconfirmed_ms is not None:
                if channel.unconfirmed_ms is None:
                    await wait_for_recipient(connection, channel, question, act.now_ms)
                    await _note(connection, channel, "channel.enable", act, {"asks": True})
                return await _again(connection, channel)
            elif (keep_ms := stands.no_announcements_ms) is not None and question is not None:
                await ask(connection, channel, question, act.now_ms, announcements=True)
        changed = await connection.fetchval(
            """
            update channel set disabled_ms = null, disabled_note = '', unconfirmed_ms = null,
              no_announcements_ms = $2
            where channel_id = $1
              and (disabled_ms is not null or no_announcements_ms is distinct from $2::bigint)
            returning true
            """,
            channel.channel_id,
            keep_ms,
        )
        if changed:
            await _note(connection, channel, "channel.enable", act, {})
        return await _again(connection, channel)


async def _disable(connection: Connection, channel: ChannelRecord, act: Act) -> ChannelRecord:
    async with connection.transaction():
        on = await connection.fetchval(
            "select disabled_ms is null from channel where channel_id = $1 for no key update",
            channel.channel_id,
        )
        if on:
            await end_channel(connection, channel.channel_id, act.now_ms, "switched off by its owner")
            await _note(connection, channel, "channel.disable", act, {})
        return await _again(connection, channel)


async def _again(connection: Connection, channel: ChannelRecord) -> ChannelRecord:
    """As it is now."""
    return await _channel(connection, "channel_id = $1", (channel.channel_id,)) or channel


async def _note(
    connection: Connection, channel: ChannelRecord, action: str, act: Act, detail: dict[str, object]
) -> None:
    await write_audit(
        connection,
        act,
        action=action,
        subject=channel.channel_id,
        project_id=channel.project_id,
        detail=detail,
    )


async def _unsubscribe(connection: Connection, token: str, announcements_only: bool, act: Act) -> bool:
    async with connection.transaction():
        channel = await _channel(connection, "unsubscribe_token = $1", (token,))
        if channel is None:
            return False
        every = await refuse(connection, channel, act.now_ms, announcements_only=announcements_only)
        for channel_id in every:
            if announcements_only:
                await connection.execute(
                    "update channel set no_announcements_ms = coalesce(no_announcements_ms, $2)"
                    " where channel_id = $1",
                    channel_id,
                    act.now_ms,
                )
            else:
                await end_channel(connection, channel_id, act.now_ms, "its recipient unsubscribed")
        before = channel.no_announcements_ms if announcements_only else channel.disabled_ms
        if before is None:
            detail: dict[str, object] = {"announcements_only": announcements_only}
            await _note(connection, channel, "channel.unsubscribe", act, detail)
    return True
