"""The manager's own small HTTP server: a port on loopback for reports, a Unix socket for reports and people.

One request per connection, bounded in size and in the time that reading and sending take; what is asked for
is handled by the function that `LocalServer` is given, and takes what it takes. A request that carries
`Origin` comes from a page in a browser, which has no business here, and is refused.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import trio

HEAD_BYTES_MAX = 8_192
BODY_BYTES_MAX = 16_384
REQUEST_S = 5.0
CONNECTIONS_MAX = 64  # at once; who comes then is closed on
BACKLOG = 64


class Request(NamedTuple):
    """`private`: it came by the Unix socket, so from the manager's own user or root."""

    method: str
    path: str
    body: bytes
    private: bool


class LocalRefusalError(Exception):
    """Answered with this status and text."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


Handler = Callable[[Request], Awaitable[Any]]


class LocalServer:
    """Answers what `handler` returns, as JSON. Under ``nursery.start`` it counts as started when it listens.

    port: on `host`, 0 for none. socket_path: mode 0600.
    """

    def __init__(self, handler: Handler, *, host: str, port: int, socket_path: Path) -> None:
        self._handler = handler
        self._host, self._port, self._socket_path = host, port, socket_path
        self._connections = 0
        self.refused_connections = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """OSError when the port is taken or the socket cannot be made."""
        listening = [self._listen_unix()]
        if self._port:
            try:
                found = await trio.open_tcp_listeners(self._port, host=self._host, backlog=BACKLOG)
            except OSError as error:
                where = f"health_port {self._port} on {self._host}"
                raise OSError(error.errno, f"{where}: {error.strerror}") from error
            listening += [listener.socket for listener in found]
        try:
            async with trio.open_nursery() as nursery:
                for one in listening:
                    private = one.family == socket.AF_UNIX
                    nursery.start_soon(self._accept, trio.SocketListener(one), private, nursery)
                task_status.started()
        finally:
            self._socket_path.unlink(missing_ok=True)

    def _listen_unix(self) -> trio.socket.SocketType:
        self._socket_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._socket_path.unlink(missing_ok=True)  # of a manager that was killed: the lock says it is gone
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            made.bind(str(self._socket_path))
        finally:
            os.umask(mask)
        made.listen(BACKLOG)
        return trio.socket.from_stdlib_socket(made)

    async def _accept(self, listener: trio.SocketListener, private: bool, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                stream = await listener.accept()
                if self._connections >= CONNECTIONS_MAX:
                    self.refused_connections += 1
                    await trio.aclose_forcefully(stream)
                    continue
                self._connections += 1
                nursery.start_soon(self._serve, stream, private)

    async def _serve(self, stream: trio.SocketStream, private: bool) -> None:
        try:
            async with stream:
                # Only what a stranger can draw out is bounded in time: a restart takes what a workload takes.
                reply = await self._answer(stream, private)
                with trio.move_on_after(REQUEST_S):
                    await stream.send_all(reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it went away, and with it who could be told
        finally:
            self._connections -= 1

    async def _answer(self, stream: trio.SocketStream, private: bool) -> bytes:
        """Empty for a request that was not whole in time."""
        request = None
        try:
            with trio.move_on_after(REQUEST_S):
                request = await _read(stream, private)
            return b"" if request is None else _reply(200, await self._handler(request))
        except LocalRefusalError as refusal:
            return _reply(refusal.status, {"detail": refusal.detail})


async def _read(stream: trio.SocketStream, private: bool) -> Request:
    """One request. LocalRefusalError for what is none."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > HEAD_BYTES_MAX:
            raise LocalRefusalError(431, f"the head is longer than {HEAD_BYTES_MAX} bytes")
        more = await stream.receive_some(4_096)
        if not more:
            raise LocalRefusalError(400, "the request is not whole")
        data += more
    if end > HEAD_BYTES_MAX:
        raise LocalRefusalError(431, f"the head is longer than {HEAD_BYTES_MAX} bytes")
    first, *lines = bytes(data[:end]).decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise LocalRefusalError(400, "not HTTP/1.1")
    headers = {name.strip().lower(): value.strip() for name, _, value in (at.partition(":") for at in lines)}
    if "origin" in headers:
        raise LocalRefusalError(403, "not for pages in a browser")
    if "transfer-encoding" in headers:
        raise LocalRefusalError(411, "send a content-length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:9]) > BODY_BYTES_MAX:
        raise LocalRefusalError(413, f"the body is longer than {BODY_BYTES_MAX} bytes")
    if headers.get("expect", "").lower() == "100-continue":
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = data[end + 4 :]
    while len(body) < int(length):
        more = await stream.receive_some(4_096)
        if not more:
            raise LocalRefusalError(400, "the body is not whole")
        body += more
    return Request(words[0], words[1].partition("?")[0], bytes(body[: int(length)]), private)


def _reply(status: int, answer: Any) -> bytes:
    body = json.dumps(answer, ensure_ascii=False).encode(errors="replace") + b"\n"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
