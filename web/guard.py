"""The outer ASGI layer: reads every body whole before Quart is called, and finishes every answer.

Both parts cure one fault (FACTS.md, "Leak and hang"): an answer that leaves before the body has arrived makes
quart-trio cancel itself in the middle of closing the connection, which then stays open for ever; anybody
without a key could use up the descriptors. So bodies are read first, bounded in bytes, in time and in the sum
over all requests, and `send` is shielded. Request ids, headers for every answer and the count of requests are
added here as well, so that early refusals have them too. What a request means is not known here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from web.cors import Cors
from web.metrics import Requests
from web.problems import CONTENT_TYPE, REQUEST_ID, CutOffError, RefusedError, document, unavailable
from web.proxies import Proxies
from web.routing import CALLER, RATE, ROUTE
from web.spool import SPOOL, Spool, Spools

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

UNLOGGED = frozenset({"/livez", "/readyz", "/metrics"})  # asked by machines every few seconds
DISCARD_S = 1.0  # how long an oversized body is read and thrown away, so that its sender sees the refusal
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.ASCII)
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_NO_STORE = (b"cache-control", b"no-store")  # answers carry keys, tokens and what is so now
_log = structlog.get_logger("web")
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")


class _GoneError(Exception):
    """The client went away before its body was whole."""


class Guard:
    """Wraps an ASGI app. `limit_of(method, path)` is the largest body, in bytes, that a path takes."""

    def __init__(
        self,
        app: Application,
        *,
        limit_of: Callable[[str, str], int],
        body_s_max: float,
        bodies_bytes_max: int,
        spools: Spools,
        requests: Requests,
        cors: Cors,
        proxies: Proxies,
        access_log: bool = False,
    ) -> None:
        self._app = app
        self._cors = cors
        self._proxies = proxies
        self._access_log = access_log
        self._limit_of = limit_of
        self._body_s_max = body_s_max
        self._bodies_bytes_max = bodies_bytes_max
        self._spools = spools
        self._requests = requests
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # none are served here
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._proxies.see_through(scope)
        scope[REQUEST_ID] = _request_id(scope)
        # Every line that is logged for this request, by whomever, says which request and trace it was.
        structlog.contextvars.bind_contextvars(request_id=scope[REQUEST_ID], **_trace(scope))
        answer = _Answer(scope, send, self._cors)
        body = bytearray()
        spool: Spool | None = None
        began = trio.current_time()
        try:
            try:
                if (spool := self._spools.open(scope["method"], scope["path"])) is None:
                    await self._read(scope, receive, body)
                else:
                    await self._spool(scope, receive, body, spool)
                if self._cors.asks_before(scope):
                    await _preflight(answer)
                    return
            except _GoneError:
                return
            except RefusedError as problem:
                await _refuse(problem, scope, answer)
                return
            await self._pass_on(scope, _replay(body, receive), answer)
        finally:
            self._held_bytes -= len(body)
            bytes_in = len(body)
            if spool is not None:
                bytes_in += spool.bytes
                self._spools.close(spool)
            seconds = trio.current_time() - began
            self._requests.count(
                method=scope["method"], route=scope.get(ROUTE, ""), status=answer.status, seconds=seconds
            )
            if self._access_log and scope.get(ROUTE) not in UNLOGGED:
                _log.info("request", **_access(scope, answer, bytes_in, seconds))

    async def _pass_on(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """To the app. An answer that is not ended is cut off by the server: it must not look whole."""
        try:
            await self._app(scope, receive, answer)
        except* CutOffError:
            _log.warning("answer_cut_off", route=scope.get(ROUTE, ""), bytes_out=answer.body_bytes)

    async def _read(
        self, scope: Scope, receive: Receive, body: bytearray, *, refusal: RefusedError | None = None
    ) -> None:
        """Fill `body`. RefusedError 400, 413, 408 or 503; _GoneError.

        `refusal`: what is said instead of 413 to whoever will be refused anyway.
        """
        limit = self._limit_of(scope["method"], scope["path"])

        async def take(chunk: bytes) -> None:
            if self._held_bytes + len(chunk) > self._bodies_bytes_max:
                raise unavailable("too many large requests at once")
            body.extend(chunk)
            self._held_bytes += len(chunk)

        await self._receive(scope, receive, take, limit=limit, s_max=self._body_s_max, refusal=refusal)

    async def _spool(self, scope: Scope, receive: Receive, body: bytearray, spool: Spool) -> None:
        """Fill the spool, if the caller may do what the route does; else read a short body as always, so that
        the app refuses it."""
        try:
            await self._spools.admit(scope)
        except RefusedError as refusal:
            await self._read(scope, receive, body, refusal=refusal)
            return

        async def take(chunk: bytes) -> None:
            await self._spools.write(spool, chunk)

        limit, s_max = self._spools.bytes_max, self._spools.s_max
        await self._receive(scope, receive, take, limit=limit, s_max=s_max)
        await spool.end()
        scope[SPOOL] = spool

    async def _receive(
        self,
        scope: Scope,
        receive: Receive,
        take: Callable[[bytes], Awaitable[None]],
        *,
        limit: int,
        s_max: float,
        refusal: RefusedError | None = None,
    ) -> None:
        """Hand the body on, chunk by chunk."""
        if not _is_path(scope["path"]):
            raise RefusedError(400, "malformed", "the target of the request is no path")
        taken = 0
        with trio.move_on_after(s_max) as timely:
            more = _announced_bytes(scope) <= limit
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                chunk = message.get("body", b"")
                taken += len(chunk)
                if taken > limit:
                    break
                await take(chunk)
                if not message.get("more_body", False):
                    return
        if timely.cancelled_caught:
            raise RefusedError(408, "body_timeout", f"the body was not whole after {s_max:g} s")
        await _discard(receive)
        raise refusal or RefusedError(413, "body_too_large", f"a body may have {limit} bytes here")

    def statistics(self) -> dict[str, float]:
        return {"bodies_bytes": self._held_bytes, **self._spools.statistics()}


class _Answer:
    """`send` with what every answer carries, and shielded: once begun an answer is finished.

    A client that does not take its bytes is cut off below (server.py, send_s_max), so the shield ends.
    """

    def __init__(self, scope: Scope, send: Send, cors: Cors) -> None:
        self._scope = scope
        self._send = send
        self._cors = cors
        self.status = 0
        self.body_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            told = {name.lower() for name, _ in headers}
            # What an answer says itself stands: of two policies a browser follows the stricter of both.
            headers += [each for each in (*_HEADERS, _NO_STORE) if each[0] not in told]
            if self._scope.get("scheme") == "https":
                headers.append(_STRICT_TRANSPORT)
            headers.append((b"x-request-id", self._scope[REQUEST_ID].encode()))
            if self.status != 429:  # which tells them itself
                headers += [(n.encode(), v.encode()) for n, v in self._scope.get(RATE, {}).items()]
            headers += self._cors.headers(self._scope)
            message = {**message, "headers": headers}
        else:
            self.body_bytes += len(message.get("body", b""))
        with trio.CancelScope(shield=True):
            await self._send(message)


async def _preflight(answer: _Answer) -> None:
    await answer({"type": "http.response.start", "status": 204, "headers": []})
    await answer({"type": "http.response.body", "body": b"", "more_body": False})


def _access(scope: Scope, answer: _Answer, body_bytes: int, seconds: float) -> dict[str, Any]:
    """A request as it is logged: the route and never the query, whose values may be secrets."""
    client = scope.get("client")
    return {
        "method": scope["method"],
        "route": scope.get(ROUTE) or "none",
        "status": answer.status,
        "ms": round(seconds * 1000, 1),
        "bytes_in": body_bytes,
        "bytes_out": answer.body_bytes,
        "caller": scope.get(CALLER, ""),
        "address": str(client[0]) if client else "",
    }


def _replay(body: bytearray, receive: Receive) -> Receive:
    """A `receive` that gives the whole body first, and then what the connection has to say."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return replayed


async def _discard(receive: Receive) -> None:
    with trio.move_on_after(DISCARD_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            if not message.get("more_body", False):
                return


async def _refuse(problem: RefusedError, scope: Scope, answer: _Answer) -> None:
    body = document(problem, request_id=scope[REQUEST_ID])
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what follows on this connection may be the rest of the body
        *((name.encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await answer({"type": "http.response.start", "status": problem.status, "headers": headers})
    await answer({"type": "http.response.body", "body": body, "more_body": False})


def _is_path(target: str) -> bool:
    """Whether Quart can make a path of it: it takes ``http://host/path``, too, and fails on some."""
    if target.startswith("/"):
        return True
    try:
        return urlsplit(target).path.startswith("/")
    except ValueError:
        return False


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name.lower() == wanted:
            return str(value.decode("latin-1"))
    return ""


def _announced_bytes(scope: Scope) -> int:
    text = _header(scope, b"content-length")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0  # h11 has refused anything else


def _trace(scope: Scope) -> dict[str, str]:
    """The trace this request is part of, by W3C `traceparent`."""
    match = _TRACEPARENT.fullmatch(_header(scope, b"traceparent"))
    return {} if match is None or not int(match[1], 16) else {"trace_id": match[1]}


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
