"""The HTTP beat listener: accepts on a socket that the shards share, on the host loop and not on trio.

It runs on the loop that trio is a guest of, in the same thread (DESIGN.md, decisions 1 and 5), so that the
door can be called directly. Here: accepting, the limit on connections, the sweep of those that take too
long, and an orderly end. A connection's own life stands in http_connection.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import NamedTuple

from engine.core.keys import MasterSecrets
from engine.door import Door
from engine.http_connection import Connection
from engine.http_requests import PlainRequests
from engine.http_routes import Forward, Routes
from engine.settings import IngestSettings

BACKLOG_MAX = 1_024  # connections waiting to be accepted
SWEEP_S = 1.0
DRAIN_S_MAX = 10.0  # how long `close` waits for what was accepted; then it cuts


class HttpStatistics(NamedTuple):
    """What the listener has seen since it was started."""

    requests: dict[tuple[str, int], int]  # by (route, status); route "none": no path of ours, or not HTTP
    connections_open: int
    connections_accepted: int
    connections_rejected: int  # above the limit: told 503 and closed
    credentials_cached: dict[str, int]


class HttpListener:
    """A running listener; made by `serve_http`."""

    def __init__(
        self, *, door: Door, plain: PlainRequests, forwarder: Forward | None, settings: IngestSettings
    ) -> None:
        self._door = door
        self._plain = plain
        self._settings = settings
        self._routes = Routes(
            door=door, plain=plain, forwarder=forwarder, busy_retry_ms=settings.busy_retry_ms
        )
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._accepted = 0
        self._rejected = 0
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self.answered: Counter[tuple[str, int]] = Counter()
        self.draining = False
        self.now_ms = door.now_ms
        self.time_s = self._loop.time

    async def listen(self, listening: socket.socket) -> None:
        """Start accepting."""
        self._server = await self._loop.create_server(self._connection, sock=listening, backlog=BACKLOG_MAX)
        self._sweep()

    def statistics(self) -> HttpStatistics:
        """Counters and what is open now."""
        return HttpStatistics(
            requests=dict(self.answered),
            connections_open=len(self._connections),
            connections_accepted=self._accepted,
            connections_rejected=self._rejected,
            credentials_cached=self._plain.statistics(),
        )

    async def close(self) -> None:
        """Stop accepting, answer what was accepted, close; after `DRAIN_S_MAX` cut what is left."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=DRAIN_S_MAX)
        if self._connections and self._emptied is not None:
            for connection in list(self._connections):
                connection.abort()
            await self._emptied
        if self._sweeping is not None:
            self._sweeping.cancel()

    def accept(self, connection: Connection) -> bool:
        """Count a connection in, unless there are too many."""
        if self.draining or len(self._connections) >= self._settings.http_connections_max:
            self._rejected += 1
            return False
        self._accepted += 1
        self._connections.add(connection)
        return True

    def lost(self, connection: Connection) -> None:
        """Count it out."""
        self._connections.discard(connection)
        if not self._connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _connection(self) -> Connection:
        return Connection(
            self,
            self._routes,
            body_max=self._settings.http_body_bytes_max,
            idle_s_max=self._settings.http_idle_s_max,
            allow_plaintext=self._settings.allow_plaintext,
        )

    def _sweep(self) -> None:
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        now_s = self._loop.time()
        for connection in list(self._connections):
            connection.sweep(now_s)


async def serve_http(
    listening: socket.socket,
    *,
    door: Door,
    secrets: MasterSecrets,
    settings: IngestSettings,
    plain: PlainRequests | None = None,
    forwarder: Forward | None = None,
) -> HttpListener:
    """Serve beats on a socket that is bound (several shards may share it); call it on the host loop.

    TLS is a proxy's on the same machine: what it hands on comes from loopback, where tokens may travel.

    `plain` is the one that the forwarder of this shard hands its requests to, if there is one: they then
    share what they remember of credentials. The socket belongs to the listener from here on. OSError.
    """
    listener = HttpListener(
        door=door,
        plain=plain or PlainRequests(door=door, secrets=secrets),
        forwarder=forwarder,
        settings=settings,
    )
    await listener.listen(listening)
    return listener
