"""A real server on a free port, and a client of bare sockets that can be as rude as it likes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import trio

from tests.web.fakes import World
from web.main import serve_app
from web.settings import WebSettings


class Served(NamedTuple):
    world: World
    url: str
    port: int
    stop: trio.Event
    ended: trio.Event

    def figure(self, name: str) -> float:
        """One number of the connections' statistics."""
        return self.world.app.backend.statistics()["web_connections"]()[name]  # type: ignore[return-value]

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def serving(settings: WebSettings | None = None) -> AsyncIterator[Served]:
    settings = msgspec.structs.replace(settings or WebSettings(drain_s=0.0), port=0)
    world = World(settings=settings)
    stop, ended, urls = trio.Event(), trio.Event(), list[str]()
    told = trio.Event()

    def listening(url: str) -> None:
        urls.append(url)
        told.set()

    async def run() -> None:
        await serve_app(world.app, settings, listening=listening, stop=stop)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(10):
            await told.wait()
        port = int(urls[0].rsplit(":", 1)[1])
        yield Served(world, urls[0], port, stop, ended)
        stop.set()
        with trio.fail_after(settings.drain_s + settings.graceful_s + 5):
            await ended.wait()


async def until(true: Callable[[], bool], *, timeout_s: float = 10) -> None:
    """Wait for what only the server knows, and tells nobody."""
    with trio.fail_after(timeout_s):
        while not true():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.01)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def receive_reply(stream: trio.SocketStream, *, timeout_s: float = 10) -> Reply:
    """Read one answer with a content-length, or up to the end of the connection."""
    raw = b""
    with trio.fail_after(timeout_s):
        while b"\r\n\r\n" not in raw:
            chunk = await stream.receive_some()
            if not chunk:
                raise trio.BrokenResourceError(f"closed after {raw!r}")
            raw += chunk
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        wanted = int(headers["content-length"]) if "content-length" in headers else None
        while wanted is None or len(body) < wanted:
            chunk = await stream.receive_some()
            if not chunk:
                break
            body += chunk
    return Reply(int(lines[0].split(" ")[1]), headers, body)


async def is_closed(stream: trio.SocketStream, *, timeout_s: float = 5) -> bool:
    """Whether the other side closes the connection in time (what it still sends is thrown away)."""
    with trio.move_on_after(timeout_s):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            return True
        return True
    return False
