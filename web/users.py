"""`/v1/users`: people, as admins enter and change them, and as one sees oneself.

Nobody is deleted: who is retired may do nothing more, within a second, and their name stays on what they did.
Oneself is me.py's, signing in sign_in.py's, keys keys.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, TypeVar

import msgspec
from quart import Response, request

from engine.core.accounts import Account, AccountChange, NamelessError, TakenError
from engine.core.mail_address import ADDRESS_CHARS_MAX, account_address
from engine.core.people import Principal
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.problems import Fault, RefusedError, bad_parameter
from web.routing import Answer, Parameter, Route, read_body, reply
from web.times import format_rfc3339
from web.wallet import checked_address, with_checksum

Name = Annotated[str, msgspec.Meta(max_length=200)]
WalletText = Annotated[str, msgspec.Meta(pattern="^0x[0-9A-Fa-f]{40}$")]
MailText = Annotated[str, msgspec.Meta(min_length=3, max_length=ADDRESS_CHARS_MAX)]
_WALLET = "0x52908400098527886e0f7030069857d2e4169ee7"
T = TypeVar("T")


class UserAnswer(msgspec.Struct, frozen=True):
    """A person. `wallet`: with its checksum (EIP-55). Retired: may do nothing more."""

    user_id: str
    name: str
    wallet: str | None
    email: str | None
    admin: bool
    created_at: str
    retired_at: str | None


class UsersAnswer(msgspec.Struct, frozen=True):
    """A page of people, by id."""

    items: list[UserAnswer]
    next_cursor: str | None


class NewUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person to be entered, with a wallet, a mail address, or both. A wallet of mixed case is checked."""

    name: Name = ""
    wallet: WalletText | None = None
    email: MailText | None = None
    admin: bool = False
    EXAMPLES: ClassVar[dict[str, object]] = {"wallet": _WALLET}


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays. `retired` true ends all keys and logins, for good."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    wallet: WalletText | msgspec.UnsetType | None = msgspec.UNSET
    email: MailText | msgspec.UnsetType | None = msgspec.UNSET
    admin: bool | msgspec.UnsetType = msgspec.UNSET
    retired: bool | msgspec.UnsetType = msgspec.UNSET
    EXAMPLES: ClassVar[dict[str, object]] = {"wallet": _WALLET}


def user_answer(account: Account) -> UserAnswer:
    """A person as they are served."""
    return UserAnswer(
        user_id=account.user_id,
        name=account.name,
        wallet=None if account.wallet is None else with_checksum(account.wallet),
        email=account.email,
        admin=account.admin,
        created_at=format_rfc3339(account.created_ms),
        retired_at=None if account.retired_ms is None else format_rfc3339(account.retired_ms),
    )


async def list_users(backend: Backend, _caller: Principal) -> Response:
    limit = limit_parameter()
    found = await backend.stores.accounts.accounts(
        after=id_cursor(), limit=limit + 1, wallet=_wallet_parameter(), email=_email_parameter()
    )
    page, next_cursor = cut(found, limit, lambda account: account.user_id)
    answer = UsersAnswer(items=[user_answer(account) for account in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


def _wallet_parameter() -> str | None:
    text = request.args.get("wallet")
    try:
        return None if text is None else checked_address(text)
    except ValueError as error:
        raise bad_parameter("wallet", str(error)) from error


def _email_parameter() -> str | None:
    text = request.args.get("email")
    try:
        return None if text is None else account_address(text)
    except ValueError as error:
        raise bad_parameter("email", str(error)) from error


async def create_user(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NewUser)
    wallet, email = _wallet(asked.wallet), _email(asked.email)
    try:
        made = await backend.stores.accounts.create_account(
            name=asked.name, wallet=wallet, email=email, admin=asked.admin, act=act_of(backend, caller)
        )
    except (TakenError, NamelessError) as error:
        raise _refusal(error) from error
    return reply(user_answer(made), 201, {"location": f"/v1/users/{made.user_id}"})


async def get_user(backend: Backend, caller: Principal, *, user_id: str) -> Response:
    return reply(user_answer(await sight.user(backend, caller, user_id)))


async def change_user(backend: Backend, caller: Principal, *, user_id: str) -> Response:
    account = await sight.user(backend, caller, user_id)
    asked, _ = await read_body(UserChange)
    if account.user_id == caller.user_id and (asked.admin is False or asked.retired is True):
        raise RefusedError(409, "oneself", "another admin must do that: one could lock everybody out")
    change = AccountChange(
        name=asked.name,
        wallet=_wallet(asked.wallet),
        email=_email(asked.email),
        admin=asked.admin,
        retired=asked.retired,
    )
    try:
        changed = await backend.stores.accounts.change_account(
            account.user_id, change, act=act_of(backend, caller)
        )
    except (TakenError, NamelessError) as error:
        raise _refusal(error) from error
    assert changed is not None  # nobody is deleted
    return reply(user_answer(changed))


def _wallet(given: str | T) -> str | T:
    """A wallet of a body in lower case. RefusedError 422."""
    return _checked(given, checked_address, "/wallet")


def _email(given: str | T) -> str | T:
    """An address of a body in lower case. RefusedError 422."""
    return _checked(given, account_address, "/email")


def _checked(given: str | T, check: Callable[[str], str], pointer: str) -> str | T:
    if not isinstance(given, str):
        return given
    try:
        return check(given)
    except ValueError as error:
        raise RefusedError(422, "invalid", str(error), errors=[Fault(str(error), pointer)]) from error


def _refusal(error: TakenError | NamelessError) -> RefusedError:
    if isinstance(error, NamelessError):
        return RefusedError(422, "invalid", str(error), errors=[Fault(str(error), "/wallet")])
    return RefusedError(409, "taken", str(error), errors=[Fault(str(error), f"/{error.field}")])


ROUTES = (
    Route(
        method="GET",
        path="/v1/users",
        handler=list_users,
        summary="People, by cursor",
        tag="users",
        parameters=(
            *PARAMETERS,
            Parameter(name="wallet", description="Only who has this wallet"),
            Parameter(name="email", description="Only who has this mail address"),
        ),
        answers={200: Answer(description="A page of people", type=UsersAnswer)},
        refusals=(400,),
    ),
    Route(
        method="POST",
        path="/v1/users",
        handler=create_user,
        summary="Enter a person, who can then sign in by wallet or by mail",
        tag="users",
        body=NewUser,
        creates=True,
        answers={201: Answer(description="The person", type=UserAnswer)},
        refusals=(400, 409, 422),
    ),
    Route(
        method="GET",
        path="/v1/users/{user_id}",
        handler=get_user,
        summary="A person; admins see everybody, others themselves",
        tag="users",
        answers={200: Answer(description="The person", type=UserAnswer)},
        refusals=(404,),
    ),
    Route(
        method="PATCH",
        path="/v1/users/{user_id}",
        handler=change_user,
        summary="Change or retire a person",
        tag="users",
        body=UserChange,
        answers={200: Answer(description="The person as changed", type=UserAnswer)},
        refusals=(400, 404, 409, 422),
    ),
)
