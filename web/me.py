"""`/v1/me`: who one is, one's name, and when one wants to be told.

One's channels are channels.py's. A wallet or a mail address is what one signs in with, so an admin changes it
(users.py): nobody may claim one without proof.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar
from zoneinfo import available_timezones

import msgspec
from quart import Response

from engine.core.accounts import Account, AccountChange, OwnProject
from engine.core.notices import NotificationSetting
from engine.core.people import Principal, Scope
from web.acts import act_of
from web.backend import Backend
from web.problems import Fault, RefusedError
from web.routing import Answer, Route, read_body, reply
from web.users import Name, UserAnswer, user_answer

DOWN_DELAY_S_MAX = 86_400
TimeOfDay = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class MeAnswer(msgspec.Struct, frozen=True):
    """The credential that asks. `user` is null for a key that is no person's; `projects`: those it owns."""

    credential_id: str
    scope: Scope
    permissions: list[str]
    user: UserAnswer | None
    projects: list[OwnProject]


class MeChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one changes of oneself."""

    name: Name


class Notifications(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one is told: seconds that something must be down first, and quiet hours (``HH:MM``, local time of
    `time_zone`, both or neither; they may go over midnight)."""

    down_delay_s: Annotated[int, msgspec.Meta(ge=0, le=DOWN_DELAY_S_MAX)] = 300
    quiet_from: TimeOfDay | None = None
    quiet_to: TimeOfDay | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    daily_report: bool = False
    weekly_report: bool = True
    EXAMPLES: ClassVar[dict[str, object]] = {"quiet_from": "22:00", "quiet_to": "07:00"}


async def myself(backend: Backend, caller: Principal) -> Account:
    """The person who calls. RefusedError 409 for a key that is no person's."""
    found = None if caller.user_id is None else await backend.stores.accounts.account(caller.user_id)
    if found is None:
        raise RefusedError(409, "no_person", "this key is no person's: sign in, or use a person's key")
    return found


async def get_me(backend: Backend, caller: Principal) -> Response:
    accounts = backend.stores.accounts
    found = None if caller.user_id is None else await accounts.account(caller.user_id)
    return reply(
        MeAnswer(
            credential_id=caller.key_id,
            scope=caller.scope,
            permissions=list(caller.permissions),
            user=None if found is None else user_answer(found),
            projects=await accounts.own_projects(caller.owned_projects),
        )
    )


async def change_me(backend: Backend, caller: Principal) -> Response:
    account = await myself(backend, caller)
    asked, _ = await read_body(MeChange)
    changed = await backend.stores.accounts.change_account(
        account.user_id, AccountChange(name=asked.name), act=act_of(backend, caller)
    )
    assert changed is not None  # nobody is deleted
    return reply(user_answer(changed))


@cache
def time_zones() -> frozenset[str]:
    """The names of all time zones; reading their directory takes many milliseconds."""
    return frozenset(available_timezones())


async def get_notifications(backend: Backend, caller: Principal) -> Response:
    account = await myself(backend, caller)
    setting = await backend.stores.notices.setting(account.user_id)
    return reply(msgspec.convert(setting, Notifications, from_attributes=True))


async def put_notifications(backend: Backend, caller: Principal) -> Response:
    account = await myself(backend, caller)
    asked, _ = await read_body(Notifications)
    if (asked.quiet_from is None) != (asked.quiet_to is None):
        raise _invalid("quiet hours have a beginning and an end, or are left out", "/quiet_to")
    if asked.time_zone not in time_zones():
        raise _invalid("not a time zone such as Europe/Lisbon", "/time_zone")
    setting = msgspec.convert(asked, NotificationSetting, from_attributes=True)
    await backend.stores.notices.change_setting(account.user_id, setting, act=act_of(backend, caller))
    return reply(asked)


def _invalid(detail: str, pointer: str) -> RefusedError:
    return RefusedError(422, "invalid", detail, errors=[Fault(detail, pointer)])


ROUTES = (
    Route(
        method="GET",
        path="/v1/me",
        handler=get_me,
        summary="Who one is, and what one may do",
        tag="me",
        answers={200: Answer(description="The credential and its person", type=MeAnswer)},
    ),
    Route(
        method="PATCH",
        path="/v1/me",
        handler=change_me,
        summary="Change one's name",
        tag="me",
        body=MeChange,
        answers={200: Answer(description="Oneself as changed", type=UserAnswer)},
        refusals=(400, 409),
    ),
    Route(
        method="GET",
        path="/v1/me/notifications",
        handler=get_notifications,
        summary="When one is told",
        tag="me",
        answers={200: Answer(description="The settings", type=Notifications)},
        refusals=(409,),
    ),
    Route(
        method="PUT",
        path="/v1/me/notifications",
        handler=put_notifications,
        summary="Say when one wants to be told",
        tag="me",
        body=Notifications,
        answers={200: Answer(description="The settings as they are now", type=Notifications)},
        refusals=(400, 409, 422),
    ),
)
