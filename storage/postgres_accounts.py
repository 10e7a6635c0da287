"""People and API keys in PostgreSQL. Signing in: postgres_sign_in.py; whom a key speaks for:
postgres_principals.py.

Nobody is deleted. Retiring somebody revokes their keys and logins, so that taking it back gives none of them
back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import msgspec

from engine.core.accounts import (
    Account,
    AccountChange,
    KeyEndedError,
    KeyRecord,
    NamelessError,
    NewKey,
    OwnProject,
    TakenError,
)
from engine.core.people import Act
from storage.ids import is_id
from storage.pool import Connection, Postgres
from storage.postgres_audit import write_audit

_FIRST = "00000000-0000-0000-0000-000000000000"
_FIELDS = "user_id::text, name, wallet, email, admin, created_ms, retired_ms"
_UNIQUE = {"account_wallet_key": "wallet", "account_email_key": "email"}
_KEYS = """
select key_id::text, scope, project_id::text, user_id::text, name, permissions, created_ms, expires_ms,
  last_used_ms, revoked_ms, prefix, made_by, replaces::text from api_key
"""


class PostgresAccounts:
    """engine.core.accounts.Accounts on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def account(self, user_id: str) -> Account | None:
        return await self._db.run(read_account, user_id) if is_id(user_id) else None

    async def accounts(
        self, *, after: str | None, limit: int, wallet: str | None = None, email: str | None = None
    ) -> list[Account]:
        return await self._db.run(_accounts, after or _FIRST, limit, wallet, email)

    async def create_account(
        self, *, name: str, wallet: str | None, email: str | None, admin: bool, act: Act
    ) -> Account:
        made = Account(act.made_id, name, wallet, email, admin, act.now_ms, None)
        return await self._db.run(_create_account, made, act)

    async def change_account(self, user_id: str, change: AccountChange, *, act: Act) -> Account | None:
        return await self._db.run(_change_account, user_id, change, act) if is_id(user_id) else None

    async def own_projects(self, project_ids: tuple[str, ...]) -> list[OwnProject]:
        return await self._db.run(_own_projects, project_ids) if project_ids else []

    async def key(self, key_id: str) -> KeyRecord | None:
        return await self._db.run(_key, key_id) if is_id(key_id) else None

    async def keys(
        self,
        *,
        user_id: str | None,
        project_ids: tuple[str, ...],
        everyones: bool = False,
        after: str | None,
        limit: int,
    ) -> list[KeyRecord]:
        return await self._db.run(_keys, user_id, project_ids, everyones, after or _FIRST, limit)

    async def create_key(self, new: NewKey, *, key_sha256: bytes, prefix: str = "", act: Act) -> KeyRecord:
        return await self._db.run(_create_key, new, key_sha256, prefix, act)

    async def rotate_key(
        self, old: KeyRecord, *, key_sha256: bytes, prefix: str, ends_ms: int, act: Act
    ) -> KeyRecord:
        return await self._db.run(_rotate_key, old, key_sha256, prefix, ends_ms, act)

    async def revoke_key(self, key_id: str, *, act: Act) -> bool:
        return await self._db.run(_revoke_key, key_id, act) if is_id(key_id) else False


async def read_account(connection: Connection, user_id: str) -> Account | None:
    record = await connection.fetchrow(f"select {_FIELDS} from account where user_id = $1", user_id)
    return Account(*record) if record else None


async def find_account(
    connection: Connection, *, wallet: str | None = None, email: str | None = None
) -> Account | None:
    """The one with this wallet, or with this address."""
    record = await connection.fetchrow(
        f"select {_FIELDS} from account where wallet = $1 or email = $2", wallet, email
    )
    return Account(*record) if record else None


async def _accounts(
    connection: Connection, after: str, limit: int, wallet: str | None, email: str | None
) -> list[Account]:
    records = await connection.fetch(
        f"""
        select {_FIELDS} from account where user_id > $1
          and ($3::text is null or wallet = $3) and ($4::text is null or email = $4)
        order by user_id limit $2
        """,
        after,
        limit,
        wallet,
        email,
    )
    return [Account(*record) for record in records]


@contextmanager
def _taken() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name not in _UNIQUE:
            raise
        raise TakenError(_UNIQUE[error.constraint_name]) from error


async def insert_account(connection: Connection, made: Account) -> bool:
    """Whether it was not there yet. TakenError, NamelessError."""
    if made.wallet is None and made.email is None:
        raise NamelessError("an account needs a wallet or a mail address")
    with _taken():
        return bool(
            await connection.fetchval(
                """
                insert into account (user_id, name, wallet, email, admin, created_ms)
                values ($1, $2, $3, $4, $5, $6) on conflict (user_id) do nothing returning true
                """,
                made.user_id,
                made.name,
                made.wallet,
                made.email,
                made.admin,
                made.created_ms,
            )
        )


async def _create_account(connection: Connection, made: Account, act: Act) -> Account:
    async with connection.transaction():
        if await insert_account(connection, made):
            detail = {"name": made.name, "wallet": made.wallet, "email": made.email, "admin": made.admin}
            await write_audit(connection, act, action="user.create", subject=made.user_id, detail=detail)
            return made
    found = await read_account(connection, made.user_id)
    assert found is not None
    return found


async def _change_account(
    connection: Connection, user_id: str, change: AccountChange, act: Act
) -> Account | None:
    async with connection.transaction():
        record = await connection.fetchrow(
            f"select {_FIELDS} from account where user_id = $1 for update", user_id
        )
        if record is None:
            return None
        before = Account(*record)
        after = _changed(before, change, act.now_ms)
        if after == before:
            return before
        if after.wallet is None and after.email is None:
            raise NamelessError("an account needs a wallet or a mail address")
        await _update_account(connection, after)
        if after.retired_ms is not None and before.retired_ms is None:
            await _end_credentials(connection, user_id, act.now_ms)
        await write_audit(
            connection, act, action="user.change", subject=user_id, detail=_difference(before, after)
        )
    return after


def _changed(account: Account, change: AccountChange, now_ms: int) -> Account:
    given = {
        name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET
    }
    if (retired := given.pop("retired", None)) is not None:
        given["retired_ms"] = (account.retired_ms or now_ms) if retired else None
    return msgspec.structs.replace(account, **given)


def _difference(before: Account, after: Account) -> dict[str, Any]:
    """What changed, as it is now."""
    was = msgspec.structs.asdict(before)
    return {name: value for name, value in msgspec.structs.asdict(after).items() if value != was[name]}


async def _update_account(connection: Connection, account: Account) -> None:
    with _taken():
        await connection.execute(
            """
            update account set name = $2, wallet = $3, email = $4, admin = $5, retired_ms = $6
            where user_id = $1
            """,
            account.user_id,
            account.name,
            account.wallet,
            account.email,
            account.admin,
            account.retired_ms,
        )


async def _end_credentials(connection: Connection, user_id: str, now_ms: int) -> None:
    for table in ("api_key", "login"):
        await connection.execute(
            f"update {table} set revoked_ms = $2 where user_id = $1 and revoked_ms is null", user_id, now_ms
        )


async def _own_projects(connection: Connection, project_ids: tuple[str, ...]) -> list[OwnProject]:
    records = await connection.fetch(
        "select project_id::text, slug from project where project_id = any($1::uuid[]) order by slug",
        list(project_ids),
    )
    return [OwnProject(*record) for record in records]


def _key_record(record: Any) -> KeyRecord:
    return KeyRecord(**{**record, "permissions": tuple(record["permissions"])})


async def _key(connection: Connection, key_id: str) -> KeyRecord | None:
    record = await connection.fetchrow(f"{_KEYS} where key_id = $1", key_id)
    return _key_record(record) if record else None


async def _keys(
    connection: Connection,
    user_id: str | None,
    project_ids: tuple[str, ...],
    everyones: bool,
    after: str,
    limit: int,
) -> list[KeyRecord]:
    records = await connection.fetch(
        f"""{_KEYS}
        where key_id > $4 and ($3 or user_id = $1 or project_id = any($2::uuid[]))
        order by key_id limit $5
        """,
        user_id,
        list(project_ids),
        everyones,
        after,
        limit,
    )
    return [_key_record(record) for record in records]


async def _create_key(
    connection: Connection, new: NewKey, key_sha256: bytes, prefix: str, act: Act
) -> KeyRecord:
    async with connection.transaction():
        if await _write_key(connection, new, key_sha256, prefix, None, act):
            detail = msgspec.structs.asdict(new)
            await write_audit(
                connection,
                act,
                action="key.create",
                subject=act.made_id,
                project_id=new.project_id,
                detail=detail,
            )
        made = await _key(connection, act.made_id)
    assert made is not None
    return made


async def _write_key(
    connection: Connection, new: NewKey, key_sha256: bytes, prefix: str, replaces: str | None, act: Act
) -> bool:
    """Whether it was not there before. Somebody whose request died before it was answered never saw the
    secret: it is replaced."""
    return bool(
        await connection.fetchval(
            """
            insert into api_key as k (key_id, key_sha256, scope, project_id, user_id, name, permissions,
              created_ms, expires_ms, prefix, made_by, replaces)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            on conflict (key_id) do update set key_sha256 = excluded.key_sha256, prefix = excluded.prefix
            returning xmax = 0
            """,
            act.made_id,
            key_sha256,
            new.scope,
            new.project_id,
            new.user_id,
            new.name,
            list(new.permissions),
            act.now_ms,
            new.expires_ms,
            prefix,
            act.actor,
            replaces,
        )
    )


async def _rotate_key(
    connection: Connection, old: KeyRecord, key_sha256: bytes, prefix: str, ends_ms: int, act: Act
) -> KeyRecord:
    new = NewKey(
        scope=old.scope,
        project_id=old.project_id,
        user_id=old.user_id,
        name=old.name,
        permissions=old.permissions,
        expires_ms=old.expires_ms,
    )
    async with connection.transaction():
        works = await connection.fetchval(
            """
            select revoked_ms is null and (expires_ms is null or expires_ms > $2) from api_key
            where key_id = $1 for update
            """,
            old.key_id,
            act.now_ms,
        )
        if not works and await _key(connection, act.made_id) is None:
            raise KeyEndedError("this key does not work any more: make a new one")
        if await _write_key(connection, new, key_sha256, prefix, old.key_id, act):
            await connection.execute(
                "update api_key set expires_ms = least(coalesce(expires_ms, $2), $2) where key_id = $1",
                old.key_id,
                ends_ms,
            )
            await write_audit(
                connection,
                act,
                action="key.rotate",
                subject=old.key_id,
                project_id=old.project_id,
                detail={"made": act.made_id, "ends_ms": ends_ms},
            )
        made = await _key(connection, act.made_id)
    assert made is not None
    return made


async def _revoke_key(connection: Connection, key_id: str, act: Act) -> bool:
    async with connection.transaction():
        revoked = await connection.fetchrow(
            """
            update api_key set revoked_ms = $2 where key_id = $1 and revoked_ms is null
            returning project_id::text
            """,
            key_id,
            act.now_ms,
        )
        if revoked is None:
            return False
        await write_audit(
            connection, act, action="key.revoke", subject=key_id, project_id=revoked["project_id"]
        )
    return True
