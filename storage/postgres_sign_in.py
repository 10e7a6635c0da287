"""Signing in, in PostgreSQL: challenges that work once, and the logins that they open.

Using a challenge up is one conditional update, so of two answers that arrive at once one is too late. How a
wallet's signature is checked is web/wallet.py's; the letter is sent by worker/letters.py.
"""

from __future__ import annotations

import msgspec

from engine.core.accounts import Account, Login, TakenError
from engine.core.people import Act
from storage.ids import new_id
from storage.pool import Connection, Postgres
from storage.postgres_accounts import find_account, insert_account
from storage.postgres_audit import write_audit

LETTERS_MAX = 3  # asked for to one address within the life of a challenge
LOGINS_KEPT_MS = 30 * 86_400_000  # after their end
_ADDRESS_LOCK = 0x4E50  # first key of pg_advisory_xact_lock(int, int); the second is the address's hash


class PostgresSignIn:
    """engine.core.accounts.SignIn on PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def open_wallet_challenge(self, nonce_sha256: bytes, *, now_ms: int, life_ms: int) -> None:
        await self._db.run(_open_challenge, nonce_sha256, None, now_ms, life_ms)

    async def sign_in_by_wallet(
        self, wallet: str, *, nonce_sha256: bytes, token_sha256: bytes, sign_up: bool, life_ms: int, act: Act
    ) -> Login | None:
        return await self._db.run(_by_wallet, wallet, nonce_sha256, token_sha256, sign_up, life_ms, act)

    async def open_mail_challenge(
        self,
        email: str,
        *,
        secret_sha256: bytes,
        subject: str,
        body: str,
        sign_up: bool,
        now_ms: int,
        life_ms: int,
    ) -> bool:
        return await self._db.run(
            _open_mail_challenge, email, secret_sha256, subject, body, sign_up, now_ms, life_ms
        )

    async def open_link(self, email: str, *, secret_sha256: bytes, life_ms: int, act: Act) -> bool:
        return await self._db.run(_open_link, email, secret_sha256, life_ms, act)

    async def sign_in_by_mail(
        self, secret_sha256: bytes, *, token_sha256: bytes, sign_up: bool, life_ms: int, act: Act
    ) -> Login | None:
        return await self._db.run(_by_mail, secret_sha256, token_sha256, sign_up, life_ms, act)

    async def sign_out(self, login_id: str, *, act: Act) -> bool:
        return await self._db.run(_sign_out, login_id, act)

    async def prune(self, *, now_ms: int, limit: int) -> int:
        return await self._db.run(_prune, now_ms, limit)


async def _open_challenge(
    connection: Connection, secret_sha256: bytes, email: str | None, now_ms: int, life_ms: int
) -> None:
    await connection.execute(
        """
        insert into challenge (secret_sha256, kind, email, created_ms, expires_ms)
        values ($1, $2, $3, $4, $5)
        """,
        secret_sha256,
        "wallet" if email is None else "mail",
        email,
        now_ms,
        now_ms + life_ms,
    )


async def _use_up(connection: Connection, secret_sha256: bytes, kind: str, now_ms: int) -> str | None:
    """The address of the challenge ('' of a wallet's); None when it does not work (any more)."""
    email: str | None = await connection.fetchval(
        """
        update challenge set used_ms = $3
        where secret_sha256 = $1 and kind = $2 and used_ms is null and expires_ms > $3
        returning coalesce(email, '')
        """,
        secret_sha256,
        kind,
        now_ms,
    )
    return email


async def _by_wallet(
    connection: Connection,
    wallet: str,
    nonce_sha256: bytes,
    token_sha256: bytes,
    sign_up: bool,
    life_ms: int,
    act: Act,
) -> Login | None:
    async with connection.transaction():
        if await _use_up(connection, nonce_sha256, "wallet", act.now_ms) is None:
            return None
        return await _open_login(connection, wallet, None, token_sha256, sign_up, life_ms, act)


async def _by_mail(
    connection: Connection, secret_sha256: bytes, token_sha256: bytes, sign_up: bool, life_ms: int, act: Act
) -> Login | None:
    async with connection.transaction():
        email = await _use_up(connection, secret_sha256, "mail", act.now_ms)
        if email is None:
            return None
        return await _open_login(connection, None, email, token_sha256, sign_up, life_ms, act)


async def _open_login(
    connection: Connection,
    wallet: str | None,
    email: str | None,
    token_sha256: bytes,
    sign_up: bool,
    life_ms: int,
    act: Act,
) -> Login | None:
    account = await find_account(connection, wallet=wallet, email=email)
    is_new = account is None and sign_up
    if is_new:
        account = await _sign_up(connection, wallet, email, act.now_ms)
    if account is None or account.retired_ms is not None:
        return None
    expires_ms = act.now_ms + life_ms
    await connection.execute(
        """
        insert into login (login_id, token_sha256, user_id, created_ms, expires_ms)
        values ($1, $2, $3, $4, $5)
        """,
        act.made_id,
        token_sha256,
        account.user_id,
        act.now_ms,
        expires_ms,
    )
    own = msgspec.structs.replace(act, actor=f"user:{account.user_id}")
    if is_new:
        detail = {"wallet": wallet, "email": email}
        await write_audit(connection, own, action="user.sign_up", subject=account.user_id, detail=detail)
    detail = {"by": "mail" if wallet is None else "wallet"}
    await write_audit(connection, own, action="login.open", subject=act.made_id, detail=detail)
    return Login(account, expires_ms)


async def _sign_up(
    connection: Connection, wallet: str | None, email: str | None, now_ms: int
) -> Account | None:
    made = Account(new_id(), "", wallet, email, False, now_ms, None)
    try:
        async with connection.transaction():
            await insert_account(connection, made)
    except TakenError:  # signed up at this very moment, in another request
        return await find_account(connection, wallet=wallet, email=email)
    return made


async def _open_mail_challenge(
    connection: Connection,
    email: str,
    secret_sha256: bytes,
    subject: str,
    body: str,
    sign_up: bool,
    now_ms: int,
    life_ms: int,
) -> bool:
    async with connection.transaction():
        # One at a time for an address, or those that are sent at once would all count too few.
        await connection.execute("select pg_advisory_xact_lock($1, hashtext($2))", _ADDRESS_LOCK, email)
        sent = await connection.fetchval(
            "select count(*) from challenge where email = $1 and created_ms > $2", email, now_ms - life_ms
        )
        account = await find_account(connection, email=email)
        welcome = sign_up if account is None else account.retired_ms is None
        if sent >= LETTERS_MAX:
            return False
        # Also for one who is not welcome, who never hears its secret: a commit that waits for the disk takes
        # its time, and by that a stranger could tell who has an account.
        await _open_challenge(connection, secret_sha256, email, now_ms, life_ms)
        if not welcome:
            return False
        await connection.execute(
            """
            insert into letter (letter_id, address, subject, body, due_ms, created_ms)
            values ($1, $2, $3, $4, $5, $5)
            """,
            new_id(),
            email,
            subject,
            body,
            now_ms,
        )
    return True


async def _open_link(
    connection: Connection, email: str, secret_sha256: bytes, life_ms: int, act: Act
) -> bool:
    async with connection.transaction():
        account = await find_account(connection, email=email)
        if account is None or account.retired_ms is not None:
            return False
        await _open_challenge(connection, secret_sha256, email, act.now_ms, life_ms)
        await write_audit(connection, act, action="login.link", subject=account.user_id)
    return True


async def _sign_out(connection: Connection, login_id: str, act: Act) -> bool:
    async with connection.transaction():
        ended = await connection.fetchval(
            """
            update login set revoked_ms = coalesce(revoked_ms, $2) where login_id = $1 returning true
            """,
            login_id,
            act.now_ms,
        )
        if not ended:
            return False
        await write_audit(connection, act, action="login.close", subject=login_id)
    return True


async def _prune(connection: Connection, now_ms: int, limit: int) -> int:
    gone = 0
    for table, ended in (("challenge", "expires_ms"), ("login", "expires_ms")):
        gone += await connection.fetchval(
            f"""
            with gone as (delete from {table} where ctid = any(array(
              select ctid from {table} where {ended} < $1 limit $2)) returning 1)
            select count(*) from gone
            """,
            now_ms if table == "challenge" else now_ms - LOGINS_KEPT_MS,
            limit,
        )
    return gone
