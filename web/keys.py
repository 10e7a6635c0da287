"""`/v1/keys`: API keys, shown once when they are made.

A project's owner makes keys of the project, a person keys for themselves, an admin any. Nobody gives away
more than they have: the permissions of a key are at most its maker's, and a key that ends makes none that
ends later.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from quart import Response, request

from engine.core.accounts import KeyEndedError, KeyRecord, NewKey
from engine.core.people import PERMISSIONS, Principal, Scope
from storage.tokens import new_api_key, shown_of
from web import sight
from web.acts import act_of
from web.backend import Backend
from web.ids import SLUG
from web.paging import PARAMETERS, cut, id_cursor, limit_parameter, link_headers
from web.policy import Permission
from web.problems import Fault, RefusedError
from web.routing import Answer, Parameter, Route, boolean_parameter, read_body, reply
from web.times import format_rfc3339, parse_rfc3339

OVERLAP_S_MAX = 7 * 86_400
KeyScope = Literal["admin", "project", "user"]


class KeyAnswer(msgspec.Struct, frozen=True):
    """A key, without its secret, of which `prefix` is the beginning. `last_used_at` is at most a minute
    behind; null times: never. `made_by`: user:<id> or key:<id>, empty where nobody knows; `replaces`: the key
    whose place this one took."""

    key_id: str
    scope: Scope
    project_id: str | None
    user_id: str | None
    name: str
    permissions: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None
    prefix: str
    made_by: str
    replaces: str | None


class KeysAnswer(msgspec.Struct, frozen=True):
    """A page of keys, by id; those that were revoked are among them."""

    items: list[KeyAnswer]
    next_cursor: str | None


class NewKeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made. Scope project names the `project` by its slug; scope user may name a `user_id` (an
    admin only), else it is the caller's own. `permissions`: all that the caller has, if left out.
    `expires_at`: never, if left out; when the caller is a key that ends: then, and not later."""

    scope: KeyScope
    project: Annotated[str, msgspec.Meta(pattern=f"^{SLUG.pattern}$")] | None = None
    user_id: Annotated[str, msgspec.Meta(max_length=36)] | None = None
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    permissions: Annotated[list[Permission], msgspec.Meta(min_length=1, max_length=3)] | None = None
    expires_at: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    EXAMPLES: ClassVar[dict[str, object]] = {"scope": "project", "user_id": None, "expires_at": None}


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`overlap_s`: how long the old key still works, so that nothing stands still meanwhile."""

    overlap_s: Annotated[int, msgspec.Meta(ge=0, le=OVERLAP_S_MAX)] = 86_400


class MadeKey(msgspec.Struct, frozen=True):
    """The new key. `api_key` is the secret itself: it is told here and never again."""

    key: KeyAnswer
    api_key: str


async def list_keys(backend: Backend, caller: Principal) -> Response:
    limit = limit_parameter()
    project_ids, user_id, everyones = caller.owned_projects, caller.user_id, caller.scope == "admin"
    if (slug := request.args.get("project")) is not None:
        project_ids = ((await sight.project(backend, caller, slug)).project_id,)
        user_id, everyones = None, False
    elif boolean_parameter("mine"):
        project_ids, everyones = (), False
    found = await backend.stores.accounts.keys(
        user_id=user_id,
        project_ids=project_ids,
        everyones=everyones,
        after=id_cursor(),
        limit=limit + 1,
    )
    page, next_cursor = cut(found, limit, lambda key: key.key_id)
    answer = KeysAnswer(items=[_answer(key) for key in page], next_cursor=next_cursor)
    return reply(answer, headers=link_headers(next_cursor))


def _answer(key: KeyRecord) -> KeyAnswer:
    return KeyAnswer(
        key_id=key.key_id,
        scope=key.scope,
        project_id=key.project_id,
        user_id=key.user_id,
        name=key.name,
        permissions=list(key.permissions),
        created_at=format_rfc3339(key.created_ms),
        expires_at=_time(key.expires_ms),
        last_used_at=_time(key.last_used_ms),
        revoked_at=_time(key.revoked_ms),
        prefix=key.prefix,
        made_by=key.made_by,
        replaces=key.replaces,
    )


def _time(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else format_rfc3339(unix_ms)


async def create_key(backend: Backend, caller: Principal) -> Response:
    asked, _ = await read_body(NewKeyRequest)
    act = act_of(backend, caller)
    project_id, user_id = await _whose(backend, caller, asked)
    new = NewKey(
        scope=asked.scope,
        project_id=project_id,
        user_id=user_id,
        name=asked.name,
        permissions=_permissions(caller, asked),
        expires_ms=_expires_ms(caller, asked.expires_at, act.now_ms),
    )
    secret, secret_sha256 = new_api_key()
    made = await backend.stores.accounts.create_key(
        new, key_sha256=secret_sha256, prefix=shown_of(secret), act=act
    )
    return reply(MadeKey(key=_answer(made), api_key=secret), 201, {"location": f"/v1/keys/{made.key_id}"})


async def _whose(backend: Backend, caller: Principal, asked: NewKeyRequest) -> tuple[str | None, str | None]:
    """(project, person) that the key is to speak for. RefusedError 403, 404, 422."""
    if (asked.project is not None) != (asked.scope == "project"):
        raise _invalid("scope project, and only that, names a project", "/project")
    if asked.user_id is not None and asked.scope != "user":
        raise _invalid("only scope user names a person", "/user_id")
    if asked.project is not None:
        return (await sight.project(backend, caller, asked.project)).project_id, None
    if asked.scope == "admin":
        if caller.scope != "admin":
            raise RefusedError(403, "forbidden", "only an admin makes keys of the installation")
        return None, None
    user_id = asked.user_id or caller.user_id
    if user_id is None:
        raise _invalid("this credential is no person's: say whose key it is", "/user_id")
    account = await sight.user(backend, caller, user_id)
    if account.retired_ms is not None:
        raise _invalid("this person is retired", "/user_id")
    return None, account.user_id


def _permissions(caller: Principal, asked: NewKeyRequest) -> tuple[str, ...]:
    if asked.permissions is None:
        return caller.permissions
    more = set(asked.permissions) - set(caller.permissions)
    if more:
        detail = f"you cannot give what you do not have: {', '.join(sorted(more))}"
        raise RefusedError(403, "forbidden", detail, errors=[Fault(detail, "/permissions")])
    return tuple(permission for permission in PERMISSIONS if permission in asked.permissions)


def _expires_ms(caller: Principal, text: str | None, now_ms: int) -> int | None:
    if text is None:
        return caller.expires_ms
    try:
        expires_ms = parse_rfc3339(text)
    except ValueError as error:
        raise _invalid(str(error), "/expires_at") from error
    if expires_ms <= now_ms:
        raise _invalid("must be in the future", "/expires_at")
    if caller.expires_ms is not None and expires_ms > caller.expires_ms:
        detail = (
            f"you cannot give what you do not have: your own key ends {format_rfc3339(caller.expires_ms)}"
        )
        raise RefusedError(403, "forbidden", detail, errors=[Fault(detail, "/expires_at")])
    return expires_ms


def _invalid(detail: str, pointer: str) -> RefusedError:
    return RefusedError(422, "invalid", detail, errors=[Fault(detail, pointer)])


async def rotate_key(backend: Backend, caller: Principal, *, key_id: str) -> Response:
    """Another key in the place of one: it may the same, and ends when that one would have."""
    asked, _ = await read_body(Rotation)
    old, act = await sight.api_key(backend, caller, key_id), act_of(backend, caller)
    more = set(old.permissions) - set(caller.permissions)
    later = caller.expires_ms is not None and (old.expires_ms is None or old.expires_ms > caller.expires_ms)
    if more or later:
        raise RefusedError(403, "forbidden", "you cannot give what you do not have: this key may more")
    secret, secret_sha256 = new_api_key()
    try:
        made = await backend.stores.accounts.rotate_key(
            old,
            key_sha256=secret_sha256,
            prefix=shown_of(secret),
            ends_ms=act.now_ms + asked.overlap_s * 1_000,
            act=act,
        )
    except KeyEndedError as error:
        raise RefusedError(409, "key_ended", str(error)) from error
    return reply(MadeKey(key=_answer(made), api_key=secret), 201, {"location": f"/v1/keys/{made.key_id}"})


async def revoke_key(backend: Backend, caller: Principal, *, key_id: str) -> Response:
    key = await sight.api_key(backend, caller, key_id)
    await backend.stores.accounts.revoke_key(key.key_id, act=act_of(backend, caller))
    return Response(b"", 204)


ROUTES = (
    Route(
        method="GET",
        path="/v1/keys",
        handler=list_keys,
        summary="Keys that one may revoke: one's own and those of one's projects; an admin's are all",
        tag="keys",
        parameters=(
            *PARAMETERS,
            Parameter(name="project", description="Only keys of this project (slug)"),
            Parameter(name="mine", description="Only those that speak for me", schema={"type": "boolean"}),
        ),
        answers={200: Answer(description="A page of keys", type=KeysAnswer)},
        refusals=(400, 404),
    ),
    Route(
        method="POST",
        path="/v1/keys",
        handler=create_key,
        summary="Make a key; its secret is in this answer and nowhere else",
        tag="keys",
        body=NewKeyRequest,
        creates=True,
        answers={201: Answer(description="The key and its secret", type=MadeKey)},
        refusals=(400, 403, 404, 409, 422),
    ),
    Route(
        method="POST",
        path="/v1/keys/{key_id}/rotate",
        handler=rotate_key,
        summary="Make a key in the place of another, which works on for a while",
        tag="keys",
        body=Rotation,
        creates=True,
        answers={201: Answer(description="The new key and its secret", type=MadeKey)},
        refusals=(400, 403, 404, 409, 422),
    ),
    Route(
        method="DELETE",
        path="/v1/keys/{key_id}",
        handler=revoke_key,
        summary="Revoke a key: it is refused everywhere within a second; once more changes nothing",
        tag="keys",
        answers={204: Answer(description="It is revoked")},
        refusals=(404,),
    ),
)
