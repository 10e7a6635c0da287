"""How a page asks the API: the very routes that everybody calls, in this process and as the visitor.

So who may see or do what is decided in one place (policy.py, sight.py), and a page can show nothing that its
visitor could not ask for. No rule of any resource is written in the pages a second time.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import trio
from quart import request

from storage.ids import new_id
from web.problems import REQUEST_ID
from web.spool import SPOOL, Spool

_COPIED = ("http_version", "scheme", "client", "server", "root_path", "asgi")
Application = Callable[..., Any]
Message = Mapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class ApiError(Exception):
    """The API refused; `problem` is its document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status, self.problem = status, problem

    @property
    def detail(self) -> str:
        return str(self.problem.get("detail") or self.problem.get("title") or "")


class Asking:
    """The API as one visitor sees it; `token` is their credential, empty for nobody."""

    def __init__(self, app: Application, token: str) -> None:
        self.app, self._token = app, token

    async def get(self, path: str, **query: object) -> Any:
        """The JSON of a GET. A parameter that is None is left out. ApiError."""
        return _checked(await self.ask("GET", path, query=query)).json

    async def known(self, path: str, **query: object) -> Any:
        """As `get`, but of what is known at once, some tenths of a second old. ApiError."""
        return _checked(await self.ask("GET", path, query=query, prefer="wait=0")).json

    async def find(self, path: str, **query: object) -> Any:
        """As `get`; None for what does not exist (yet) or is not there to see. ApiError for anything else."""
        answered = await self.ask("GET", path, query=query)
        if answered.status in (403, 404, 409):
            return None
        return _checked(answered).json

    async def send(self, method: str, path: str, body: object = None, *, key: str = "") -> Any:
        """The JSON of a request that changes something; `key`: its Idempotency-Key. ApiError."""
        return _checked(await self.ask(method, path, body=body, key=key or new_id())).json

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        key: str = "",
        spool: Spool | None = None,
        content_type: str = "application/json",
        prefer: str = "",
    ) -> Answered:
        """One request, whatever becomes of it. `spool`: its body instead, on a route that spools."""
        call = self.call(
            method,
            path,
            query=query,
            body=body,
            key=key,
            spool=spool,
            content_type=content_type,
            prefer=prefer,
        )
        status, headers, raw = 500, {}, bytearray()

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {
                    name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]
                }
            elif message["type"] == "http.response.body":
                raw.extend(message.get("body", b""))

        await call(send)
        return Answered(status, headers, bytes(raw))

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        key: str = "",
        spool: Spool | None = None,
        content_type: str = "application/json",
        prefer: str = "",
    ) -> Callable[[Send], Awaitable[None]]:
        """A request that is ready to be made, perhaps after the visitor's own has been answered."""
        words = {name.rstrip("_"): str(value) for name, value in (query or {}).items() if value is not None}
        given = urlsplit(path)
        text = "&".join(part for part in (given.query, urlencode(words)) if part)
        raw = b"" if body is None else json.dumps(body).encode()
        headers = [(b"host", request.headers.get("host", "localhost").encode())]
        if self._token:
            headers.append((b"authorization", f"Bearer {self._token}".encode("utf-8", "surrogateescape")))
        if body is not None or spool is not None:
            length = len(raw) if spool is None else 0  # what is spooled is not in the request itself
            headers += [(b"content-type", content_type.encode()), (b"content-length", b"%d" % length)]
        if key:
            headers.append((b"idempotency-key", key.encode()))
        if prefer:
            headers.append((b"prefer", prefer.encode()))
        outer: Mapping[str, Any] = dict(request.scope)
        scope = {name: outer[name] for name in _COPIED if name in outer} | {
            "type": "http",
            "method": method,
            "path": given.path,
            "raw_path": given.path.encode(),
            "query_string": text.encode(),
            "headers": headers,
            REQUEST_ID: outer.get(REQUEST_ID, ""),
        }
        if spool is not None:
            scope[SPOOL] = spool
        return partial(_run, self.app, scope, raw)


async def _run(app: Application, scope: dict[str, Any], raw: bytes, send: Send) -> None:
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await trio.sleep_forever()  # a disconnect would cut the answer off
        sent = True
        return {"type": "http.request", "body": raw, "more_body": False}

    await app(scope, receive, send)


def _checked(answered: Answered) -> Answered:
    if not answered.ok:
        problem = answered.json if "json" in answered.headers.get("content-type", "") else {}
        raise ApiError(answered.status, problem)
    return answered
