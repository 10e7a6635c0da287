"""How a resource module states its routes, and how the app and `/openapi.json` are both made from that.

A handler is an async function ``(backend, caller, **path parameters) -> Response``; it reads the request
from Quart's context, returns `reply(...)` and refuses by raising `RefusedError`. Which routes there are
stands in the resource modules; who the caller is is found in auth.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio

from engine.core.people import Principal, Role
from web.auth import ANYONE
from web.idempotency import once
from web.policy import POLICY, Policy, must_be_allowed, policy_of
from web.problems import RefusedError, bad_parameter, malformed

if TYPE_CHECKING:
    from web.backend import Backend

Handler = Callable[..., Awaitable[Response]]
T = TypeVar("T")
BODY_BYTES_MAX = 64 * 1024  # where a route says nothing else
ROUTE = "nodepulse.route"  # where the route's path is left in the ASGI scope, for metrics and the log
CALLER = "nodepulse.caller"  # ... and who called
RATE = "nodepulse.rate"  # ... and the headers that tell the caller's rate
_PARAMETER = re.compile(r"\{(\w+)\}")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # PostgreSQL's text cannot hold it


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter in the query or the header; those in the path are read off the path."""

    name: str
    description: str
    where: str = "query"  # query | header
    required: bool = False
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a route may answer. `type`: what its JSON is made from; None for other bodies."""

    description: str
    type: Any = None
    content_type: str = "application/json"
    other_content_types: tuple[str, ...] = ()  # that one may ask for instead


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path, with everything that its description is made from."""

    method: str
    path: str  # with {parameters}
    handler: Handler
    summary: str
    tag: str
    answers: dict[int, Answer]
    refusals: tuple[int, ...] = ()
    creates: bool = False  # takes an Idempotency-Key
    limited: bool = True  # counts for the caller's rate
    body: Any = None
    body_bytes_max: int = BODY_BYTES_MAX  # a longer body is refused before the handler is called
    spooled: bool = False  # its body may be far longer, and is read as a file (spool.py)
    body_content_types: tuple[str, ...] = ()  # beside JSON, which `body` describes
    parameters: tuple[Parameter, ...] = ()

    @property
    def path_parameters(self) -> list[str]:
        return _PARAMETER.findall(self.path)


def install(app: QuartTrio, backend: Backend, routes: tuple[Route, ...]) -> None:
    """Add the routes to the app, each behind its check of the key."""
    for route in routes:
        app.add_url_rule(
            _PARAMETER.sub(r"<\1>", route.path),
            endpoint=f"{route.method} {route.path}",
            view_func=_view(backend, route),
            methods=[route.method],
        )


def body_limits(routes: tuple[Route, ...], *, longest: int) -> Callable[[str, str], int]:
    """``limit_of(method, path)`` for the guard; a route's 0 stands for `longest`, in bytes."""
    patterns = [
        (
            route.method,
            re.compile(_PARAMETER.sub("[^/]+", route.path)),
            min(route.body_bytes_max or longest, longest),
        )
        for route in routes
        if route.body is not None
    ]

    def limit_of(method: str, path: str) -> int:
        for of_method, pattern, limit in patterns:
            if method == of_method and pattern.fullmatch(path):
                return limit
        return min(BODY_BYTES_MAX, longest)

    return limit_of


def spooled_routes(routes: tuple[Route, ...]) -> list[tuple[str, re.Pattern[str]]]:
    """(method, pattern of the path) of the routes whose bodies go to disk."""
    return [(each.method, re.compile(_PARAMETER.sub("[^/]+", each.path))) for each in routes if each.spooled]


def admission(
    backend: Backend, routes: tuple[Route, ...]
) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    """``admit(scope)``: whether this caller's body is worth reading. RefusedError 401, 403, 429."""
    policies = [
        (re.compile(_PARAMETER.sub("[^/]+", each.path)), policy_of(each.method, each.path))
        for each in routes
        if each.spooled
    ]

    async def admit(scope: MutableMapping[str, Any]) -> None:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        caller = await backend.keys.caller(given[0].decode("latin-1") if given else None)
        for pattern, policy in policies:
            if pattern.fullmatch(scope["path"]):
                must_be_allowed(caller, policy)

    return admit


def _view(backend: Backend, route: Route) -> Handler:
    policy = policy_of(route.method, route.path)

    async def view(**parameters: str) -> Response:
        request.scope[ROUTE] = route.path  # type: ignore[literal-required]
        request.scope[POLICY] = policy  # type: ignore[literal-required]
        caller = await _caller(backend, policy, limited=route.limited)
        if route.creates:
            return await once(backend, caller, partial(route.handler, backend, caller, **parameters))
        return await route.handler(backend, caller, **parameters)

    return view


async def _caller(backend: Backend, policy: Policy, *, limited: bool) -> Principal:
    """Who calls, counted and allowed to. RefusedError 401, 403, 429."""
    if Role.PUBLIC in policy.roles:
        if limited:
            tell_rate(backend.address_rate.take(client_address()))
        return ANYONE
    try:
        caller = await backend.keys.caller(request.headers.get("authorization"))
    except RefusedError:
        backend.address_rate.take(client_address())  # whoever guesses is soon told to slow down
        raise
    request.scope[CALLER] = caller.actor  # type: ignore[literal-required]
    if limited:
        tell_rate(backend.key_rate.take(caller.key_id))
    must_be_allowed(caller, policy)
    return caller


def client_address() -> str:
    """Where the present request comes from, for rates."""
    client = request.scope.get("client")
    return str(client[0]) if client else ""


def tell_rate(headers: dict[str, str]) -> None:
    """Have these headers in the answer of the present request."""
    request.scope[RATE] = headers  # type: ignore[literal-required]


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of a msgspec type."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), content_type="application/json")


def content_tag(value: Any) -> str:
    """An ETag of what a value says."""
    return f'"{hashlib.blake2b(msgspec.json.encode(value), digest_size=16).hexdigest()}"'


def reply_polled(value: Any, *, etag: str | None = None) -> Response:
    """A JSON answer with an ETag, of its content if none is given; 304 when the client has just that."""
    body = msgspec.json.encode(value)
    etag = etag or content_tag(value)
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if etag.removeprefix("W/") in known or known == ["*"]:
        return Response(b"", 304, headers, content_type="application/json")
    return Response(body, 200, headers, content_type="application/json")


async def read_body(kind: type[T]) -> tuple[T, bytes]:
    """The request's JSON body as `kind`, and its bytes. RefusedError 400 `malformed` with a pointer."""
    raw = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    if b"\\u0000" in raw and _NUL.search(raw):
        raise malformed("a text has a NUL character")
    try:
        if len(raw) > BODY_BYTES_MAX:
            return await trio.to_thread.run_sync(partial(msgspec.json.decode, raw, type=kind)), raw
        return msgspec.json.decode(raw, type=kind), raw
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(error if isinstance(error, msgspec.MsgspecError) else "not UTF-8") from error
    except RecursionError as error:
        raise malformed("nested too deeply") from error


def integer_parameter(name: str, *, default: int, least: int, most: int) -> int:
    """A whole decimal number from the query. RefusedError 400 when it is none or out of its bounds."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise bad_parameter(name, f"must be a whole number from {least} to {most}")
    return int(text)


def in_haste() -> bool:
    """Whether the client would rather have what is known than wait for the newest (RFC 7240: `wait=0`)."""
    given = request.headers.get("prefer", "").split(",")
    return any(each.partition(";")[0].replace(" ", "") == "wait=0" for each in given)


def boolean_parameter(name: str) -> bool:
    """``true`` or ``false`` from the query; absent is false."""
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise bad_parameter(name, "must be true or false")
    return text == "true"
