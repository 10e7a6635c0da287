"""People and their API keys as records and as a port; signing in as another.

Every change takes the `Act` it is part of and writes its audit entry in its own transaction. What a
credential may do is web/policy.py's; how a secret is made, storage/tokens.py's: here only its SHA-256 is
known.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.core.people import Act, Scope


class Account(msgspec.Struct, frozen=True):
    """A person. `wallet` and `email` in lower case; one of them is there. Retired: may do nothing more."""

    user_id: str
    name: str
    wallet: str | None
    email: str | None
    admin: bool
    created_ms: int
    retired_ms: int | None


class AccountChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be changed of a person; what is left out stays as it is. Retiring ends keys and logins."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    wallet: str | msgspec.UnsetType | None = msgspec.UNSET
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    admin: bool | msgspec.UnsetType = msgspec.UNSET
    retired: bool | msgspec.UnsetType = msgspec.UNSET


class KeyRecord(msgspec.Struct, frozen=True):
    """An API key, without its secret. `last_used_ms` is written down once a minute at most. `prefix`: how the
    secret begins; `replaces`: the key that this one took the place of."""

    key_id: str
    scope: Scope
    project_id: str | None
    user_id: str | None
    name: str
    permissions: tuple[str, ...]
    created_ms: int
    expires_ms: int | None
    last_used_ms: int | None
    revoked_ms: int | None
    prefix: str
    made_by: str
    replaces: str | None


class KeyEndedError(Exception):
    """The key was revoked or has ended: there is nothing to take the place of."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key to be made. `project_id` with scope project, `user_id` with scope user, neither with admin."""

    scope: Scope
    project_id: str | None = None
    user_id: str | None = None
    name: str = ""
    permissions: tuple[str, ...]
    expires_ms: int | None = None


class OwnProject(msgspec.Struct, frozen=True):
    """A project as its owner refers to it."""

    project_id: str
    slug: str


class TakenError(Exception):
    """Another account has this `field` (wallet or email)."""

    def __init__(self, field: str) -> None:
        super().__init__(f"another account has this {field}")
        self.field = field


class NamelessError(Exception):
    """An account needs a wallet or a mail address."""


class Accounts(Protocol):
    """People and API keys."""

    async def account(self, user_id: str) -> Account | None: ...
    async def accounts(
        self, *, after: str | None, limit: int, wallet: str | None = None, email: str | None = None
    ) -> list[Account]:
        """By id, also those that are retired; the one with this wallet or address."""
        ...

    async def create_account(
        self, *, name: str, wallet: str | None, email: str | None, admin: bool, act: Act
    ) -> Account:
        """The account `act.made_id`, made when absent. TakenError, NamelessError."""
        ...

    async def change_account(self, user_id: str, change: AccountChange, *, act: Act) -> Account | None:
        """The account as it is then; None when there is none. TakenError, NamelessError."""
        ...

    async def own_projects(self, project_ids: tuple[str, ...]) -> list[OwnProject]:
        """Those of the ids that exist, by slug."""
        ...

    async def key(self, key_id: str) -> KeyRecord | None: ...
    async def keys(
        self,
        *,
        user_id: str | None,
        project_ids: tuple[str, ...],
        everyones: bool = False,
        after: str | None,
        limit: int,
    ) -> list[KeyRecord]:
        """Keys of this person and of these projects, or everyone's, by id; revoked ones are among them."""
        ...

    async def create_key(self, new: NewKey, *, key_sha256: bytes, prefix: str = "", act: Act) -> KeyRecord:
        """The key `act.made_id`. Made already by a run that was never answered, it gets this secret."""
        ...

    async def rotate_key(
        self, old: KeyRecord, *, key_sha256: bytes, prefix: str, ends_ms: int, act: Act
    ) -> KeyRecord:
        """The key `act.made_id`, which may what the old one may; that one ends then. KeyEndedError."""
        ...

    async def revoke_key(self, key_id: str, *, act: Act) -> bool:
        """Whether it was revoked just now."""
        ...


class Login(msgspec.Struct, frozen=True):
    """Somebody signed in."""

    account: Account
    expires_ms: int


class SignIn(Protocol):
    """Challenges, and the logins that answering them opens. Each challenge works once."""

    async def open_wallet_challenge(self, nonce_sha256: bytes, *, now_ms: int, life_ms: int) -> None: ...
    async def sign_in_by_wallet(
        self, wallet: str, *, nonce_sha256: bytes, token_sha256: bytes, sign_up: bool, life_ms: int, act: Act
    ) -> Login | None:
        """Use the nonce up and open a login that the token stands for; a new account when `sign_up`.

        None, with the nonce used up: it does not (or no longer) work, nobody has the wallet, or who has it
        is retired.
        """
        ...

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
        """Whether a letter to this address waits now.

        None waits after three within `life_ms`, and none for somebody who could not sign in anyway.
        """
        ...

    async def open_link(self, email: str, *, secret_sha256: bytes, life_ms: int, act: Act) -> bool:
        """A challenge as of a letter, whose secret somebody else hands over; an entry in the audit log.

        False: nobody has this address, or who has it is retired.
        """
        ...

    async def sign_in_by_mail(
        self, secret_sha256: bytes, *, token_sha256: bytes, sign_up: bool, life_ms: int, act: Act
    ) -> Login | None:
        """As by wallet, with the secret of a letter."""
        ...

    async def sign_out(self, login_id: str, *, act: Act) -> bool:
        """End a login; False when there is none of this id."""
        ...

    async def prune(self, *, now_ms: int, limit: int) -> int:
        """Delete challenges that expired and logins that ended long ago, `limit` of each; how many."""
        ...
