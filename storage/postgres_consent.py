"""Consent to mail in PostgreSQL: who was asked, confirmed, refused; and the letters that ask.

Locks are taken in this order: the address, its row of consent, channels. What changes channels for other
reasons is in postgres_notices.py and postgres_told.py, which ask here first.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.consent import (
    LETTER_EVERY_MS,
    LINK_LIFE_MS,
    OWNERS_LETTERS_MAX,
    Asked,
    NothingToConfirmError,
    Question,
    TooManyLettersError,
)
from engine.core.notices import ChannelRecord
from engine.core.people import Act
from storage.ids import new_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit

UNCONFIRMED = "its recipient has not confirmed it yet"
NOT_ASKED = "its recipient could not be asked yet: letters that ask are few, have it asked again tomorrow"
_ADDRESS_LOCK = 0x4E51  # first key of pg_advisory_xact_lock(int, int); the second is the address's hash
# Of an owner's mail channels to an address, those that are not removed.
OF_ADDRESS = """
coalesce(project_id, user_id) = $1::uuid and kind = 'mail' and lower(target) = $2 and removed_ms is null
"""


class Standing(NamedTuple):
    """`own`: it is the address of the account of who acts. The others: what its recipient said."""

    own: bool
    confirmed_ms: int | None
    refused_ms: int | None
    no_announcements_ms: int | None


class PostgresConsent:
    """engine.core.consent.Consent on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def asked(self, token_sha256: bytes, *, now_ms: int) -> Asked | None:
        return await self._db.run(_asked, token_sha256, now_ms)

    async def confirm(self, token_sha256: bytes, *, act: Act) -> Asked | None:
        return await self._db.run(_confirm, token_sha256, act)

    async def ask_again(self, channel: ChannelRecord, question: Question, *, act: Act) -> ChannelRecord:
        return await self._db.run(_ask_again, channel, question, act)

    async def prune(self, *, now_ms: int, limit: int) -> int:
        return await self._db.run(_prune, now_ms, limit)


def owner_and_address(channel: ChannelRecord) -> tuple[str, str]:
    owner = channel.project_id or channel.user_id
    assert owner is not None, "a channel has an owner"
    return owner, channel.target.lower()


async def standing(connection: Connection, channel: ChannelRecord, maker_id: str | None) -> Standing:
    record = await connection.fetchrow(
        """
        select exists (select from account where user_id = $3 and email = $2 and retired_ms is null),
          c.confirmed_ms, c.refused_ms, c.no_announcements_ms
        from (values (1)) as one left join mail_consent c on c.owner_id = $1 and c.address = $2
        """,
        *owner_and_address(channel),
        maker_id,
    )
    return Standing(*record)


async def ask(
    connection: Connection,
    channel: ChannelRecord,
    question: Question,
    now_ms: int,
    *,
    announcements: bool = False,
) -> bool:
    """In a transaction: write the letter, unless there were enough of them."""
    owner, address = owner_and_address(channel)
    # One at a time, or those that ask at once would all count too few.
    for key in sorted((owner, address)):
        await connection.execute("select pg_advisory_xact_lock($1, hashtext($2))", _ADDRESS_LOCK, key)
    there, by_owner = await connection.fetchrow(
        """
        select count(*) filter (where c.address = $2), count(*) filter (where c.owner_id = $1)
        from mail_consent c left join letter l using (letter_id)
        where (c.address = $2 or c.owner_id = $1) and c.asked_ms > $3 and l.state is distinct from 'dead'
        """,
        owner,
        address,
        now_ms - LETTER_EVERY_MS,
    )
    if there or by_owner >= OWNERS_LETTERS_MAX:
        return False
    letter_id = new_id()
    await connection.execute(
        """
        insert into letter (letter_id, address, subject, body, due_ms, created_ms)
        values ($1, $2, $3, $4, $5, $5)
        """,
        *(letter_id, channel.target, question.subject, question.body, now_ms),
    )
    await connection.execute(
        """
        insert into mail_consent (owner_id, address, token_sha256, letter_id, asked_ms, asked_announcements)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (owner_id, address) do update
          set token_sha256 = $3, letter_id = $4, asked_ms = $5, asked_announcements = $6
        """,
        *(owner, address, question.token_sha256, letter_id, now_ms, announcements),
    )
    return True


async def wait_for_recipient(
    connection: Connection, channel: ChannelRecord, question: Question | None, now_ms: int
) -> None:
    """In a transaction: the channel waits, and its recipient is asked if that may be."""
    asked = question is not None and await ask(connection, channel, question, now_ms)
    await connection.execute(
        """
        update channel set unconfirmed_ms = coalesce(unconfirmed_ms, $2),
          disabled_ms = coalesce(disabled_ms, $2), disabled_note = $3
        where channel_id = $1
        """,
        channel.channel_id,
        now_ms,
        UNCONFIRMED if asked else NOT_ASKED,
    )


async def refuse(
    connection: Connection, channel: ChannelRecord, now_ms: int, *, announcements_only: bool
) -> list[str]:
    """In a transaction: remember it; the ids of the channels that it is about.

    Of a person's own channel to their own account's address nothing is kept: it is theirs to switch on.
    """
    owner, address = owner_and_address(channel)
    own = await connection.fetchval(
        "select true from account where user_id = $1 and email = $2", channel.user_id, address
    )
    if own:
        return [channel.channel_id]
    what = "no_announcements_ms" if announcements_only else "refused_ms"
    await connection.execute(
        f"""
        insert into mail_consent as c (owner_id, address, {what}) values ($1, $2, $3)
        on conflict (owner_id, address) do update
          set {what} = coalesce(c.{what}, $3), token_sha256 = null
        """,
        owner,
        address,
        now_ms,
    )
    found = await connection.fetch(f"select channel_id::text from channel where {OF_ADDRESS}", owner, address)
    return [record["channel_id"] for record in found]


async def welcome(connection: Connection, channel: ChannelRecord) -> None:
    """In a transaction: whoever has this address switches it on, so what was refused there is over."""
    await connection.execute(
        """
        update mail_consent set refused_ms = null, no_announcements_ms = null
        where owner_id = $1 and address = $2
        """,
        *owner_and_address(channel),
    )


_OF_LINK = """
select c.owner_id::text, c.address, p.slug, c.asked_announcements
from mail_consent c left join project p on p.project_id = c.owner_id
where c.token_sha256 = $1 and c.asked_ms > $2
"""


async def _asked(connection: Connection, token_sha256: bytes, now_ms: int) -> Asked | None:
    record = await connection.fetchrow(_OF_LINK, token_sha256, now_ms - LINK_LIFE_MS)
    return None if record is None else Asked(*record[1:])


async def _confirm(connection: Connection, token_sha256: bytes, act: Act) -> Asked | None:
    async with connection.transaction():
        record = await connection.fetchrow(
            f"{_OF_LINK} for update of c", token_sha256, act.now_ms - LINK_LIFE_MS
        )
        if record is None:
            return None
        owner, asked = record[0], Asked(*record[1:])
        await connection.execute(
            """
            update mail_consent set token_sha256 = null, asked_announcements = false,
              confirmed_ms = case when $4 then confirmed_ms else $3 end,
              refused_ms = case when $4 then refused_ms end,
              no_announcements_ms = case when not $4 then no_announcements_ms end
            where owner_id = $1 and address = $2
            """,
            *(owner, asked.address, act.now_ms, asked.announcements_only),
        )
        changes = "unconfirmed_ms = null, disabled_ms = null, disabled_note = ''"
        which = "unconfirmed_ms is not null"
        if asked.announcements_only:
            changes, which = "no_announcements_ms = null", "no_announcements_ms is not null"
        changed = await connection.fetch(
            f"""
            update channel set {changes} where {OF_ADDRESS} and {which}
            returning channel_id::text, project_id::text
            """,
            owner,
            asked.address,
        )
        for channel_id, project_id in changed:
            await write_audit(
                connection,
                act,
                action="channel.confirm",
                subject=channel_id,
                project_id=project_id,
                detail={"announcements_only": asked.announcements_only},
            )
    return asked


async def _ask_again(
    connection: Connection, channel: ChannelRecord, question: Question, act: Act
) -> ChannelRecord:
    async with connection.transaction():
        stands = await standing(connection, channel, None)
        announcements = channel.unconfirmed_ms is None and stands.no_announcements_ms is not None
        if channel.kind != "mail" or (channel.unconfirmed_ms is None and not announcements):
            raise NothingToConfirmError("this channel waits for nobody's confirmation")
        if not await ask(connection, channel, question, act.now_ms, announcements=announcements):
            raise TooManyLettersError("one letter a day may ask an address, and an owner may send 20")
        if not announcements:
            await connection.execute(
                "update channel set disabled_note = $2 where channel_id = $1 and unconfirmed_ms is not null",
                channel.channel_id,
                UNCONFIRMED,
            )
        await write_audit(
            connection,
            act,
            action="channel.confirm_again",
            subject=channel.channel_id,
            project_id=channel.project_id,
        )
    return channel


async def _prune(connection: Connection, now_ms: int, limit: int) -> int:
    status = await connection.execute(
        """
        delete from mail_consent where (owner_id, address) in (
          select owner_id, address from mail_consent
          where asked_ms <= $1 and confirmed_ms is null and refused_ms is null
            and no_announcements_ms is null
          limit $2)
        """,
        now_ms - LINK_LIFE_MS,
        limit,
    )
    return int(status.rsplit(" ", 1)[1])
