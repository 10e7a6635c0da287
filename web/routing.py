"""How a resource module states its routes, and how the app and `/openapi.json` are both made from that.

A handler is an async function ``(backend, caller, **path parameters) -> Response``; it reads the request
from Quart's context, returns `reply(...)` and refuses by raising `RefusedError`. Which routes there are
stands in the resource modules; who the caller is is found in auth.py.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio

from engine.core.ports import Principal
from web.auth import ANYONE
from web.problems import bad_parameter, malformed

if TYPE_CHECKING:
    from web.backend import Backend

Handler = Callable[..., Awaitable[Response]]
T = TypeVar("T")
BODY_BYTES_MAX = 64 * 1024  # where a route says nothing else
ROUTE = "nodepulse.route"  # where the route's path is left in the ASGI scope, for the metrics
_PARAMETER = re.compile(r"\{(\w+)\}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


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


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path, with everything that its description is made from."""

    method: str
    path: str  # with {parameters}
    handler: Handler
    summary: str
    tag: str
    answers: dict[int, Answer]
    refusals: tuple[int, ...] = ()
    open: bool = False  # no API key asked for
    body: Any = None
    body_bytes_max: int = BODY_BYTES_MAX  # a longer body is refused before the handler is called
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


def _view(backend: Backend, route: Route) -> Handler:
    async def view(**parameters: str) -> Response:
        request.scope[ROUTE] = route.path  # type: ignore[literal-required]
        caller: Principal = ANYONE
        if not route.open:
            caller = await backend.keys.caller(request.headers.get("authorization"))
        return await route.handler(backend, caller, **parameters)

    return view


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of a msgspec type."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), content_type="application/json")


async def read_body(kind: type[T]) -> tuple[T, bytes]:
    """The request's JSON body as `kind`, and its bytes. RefusedError 400 `malformed` with a pointer."""
    raw = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    try:
        if len(raw) > BODY_BYTES_MAX:
            return await trio.to_thread.run_sync(partial(msgspec.json.decode, raw, type=kind)), raw
        return msgspec.json.decode(raw, type=kind), raw
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(error if isinstance(error, msgspec.MsgspecError) else "not UTF-8") from error


def canonical_uuid(text: str) -> str | None:
    """The canonical form of an id, or None: what is no UUID never reaches a store."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None


def integer_parameter(name: str, *, default: int, least: int, most: int) -> int:
    """A whole decimal number from the query. RefusedError 400 when it is none or out of its bounds."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise bad_parameter(name, f"must be a whole number from {least} to {most}")
    return int(text)


def boolean_parameter(name: str) -> bool:
    """``true`` or ``false`` from the query; absent is false."""
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise bad_parameter(name, "must be true or false")
    return text == "true"
