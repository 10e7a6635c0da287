"""Hypercorn's connections under our own roof: a cap on them, a bound on slow readers, an ordered end.

Hypercorn's `worker_serve` has no cap, closes the listener at once on shutdown and cannot cut off a client
that stopped reading (it shields the write). So the loop around its `TCPServer` is ours; HTTP itself is
Hypercorn's. What is served is no business of this file.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from web.settings import WebSettings

PIECE_BYTES = 64 * 1024  # written under one send_s_max
CLOSE_S = 1.0  # for connections to go after they were cut off
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
)
_log = structlog.get_logger("web")


class Server:
    """Serves one ASGI app on one listening socket."""

    def __init__(self, app: Any, *, settings: WebSettings) -> None:
        self._app = ASGIWrapper(app)
        self._settings = settings
        self._config = _config(settings)
        self._context = WorkerContext(None)
        self._streams: set[_BoundedStream] = set()
        self._accepted = self._turned_away = self._crashed = 0
        self._empty = trio.Event()
        self._empty.set()

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        *,
        stop: trio.Event,
        listening: Callable[[], None],
        before_close: Callable[[], Awaitable[None]],
    ) -> None:
        """Serve until `stop`, then end in order. `listening` is called once connections are accepted.

        The order: `before_close` (still accepting), no more connections, idle ones closed, others given
        graceful_s, what is left cut off, the app's own shutdown.
        """
        async with self._lifespan() as state, trio.open_nursery() as connections:

            async def handle(stream: trio.SocketStream) -> None:
                await self._handle(stream, state)

            async with trio.open_nursery() as accepting:
                await accepting.start(
                    partial(trio.serve_listeners, handle, listeners, handler_nursery=connections)
                )
                listening()
                await stop.wait()
                await before_close()
                accepting.cancel_scope.cancel()
            await self._context.terminated.set()  # idle connections close themselves
            with trio.move_on_after(self._settings.graceful_s):
                await self._empty.wait()
            await self._cut_off()
            connections.cancel_scope.cancel()

    async def _handle(self, stream: trio.SocketStream, state: dict[str, Any]) -> None:
        if len(self._streams) >= self._settings.connections_max:
            await self._turn_away(stream)
            return
        self._accepted += 1
        bounded = _BoundedStream(stream, send_s_max=self._settings.send_s_max)
        self._streams.add(bounded)
        self._empty = trio.Event() if self._empty.is_set() else self._empty
        try:
            await _Connection(self._app, self._config, self._context, ConnectionState(state), bounded)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001
            # What a client sends must not be able to end the process: its own connection is all it may lose.
            self._crashed += 1
            _log.exception("connection_crashed")
            await trio.aclose_forcefully(stream)
        finally:
            self._streams.discard(bounded)
            if not self._streams:
                self._empty.set()

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        """Above the cap a connection is told so and closed, not left waiting in the backlog."""
        self._turned_away += 1
        try:
            with trio.move_on_after(CLOSE_S):
                await stream.send_all(_FULL)
        except (trio.BrokenResourceError, OSError):
            pass  # it is gone, which is what was wanted
        await trio.aclose_forcefully(stream)

    async def _cut_off(self) -> None:
        """Close what is left under its users' feet: cancelling does not reach Hypercorn's shielded write."""
        if self._streams:
            _log.warning("connections_cut_off", connections=len(self._streams))
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)
        with trio.move_on_after(CLOSE_S):
            await self._empty.wait()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[dict[str, Any]]:
        """The app's startup and shutdown around what is inside."""
        state: dict[str, Any] = {}
        lifespan = Lifespan(self._app, self._config, state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            yield state
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()

    def statistics(self) -> dict[str, float]:
        return {
            "open": len(self._streams),
            "accepted_total": self._accepted,
            "turned_away_total": self._turned_away,
            "crashed_total": self._crashed,
        }


def _config(settings: WebSettings) -> Config:
    config = Config()
    config.backlog = settings.backlog
    config.keep_alive_timeout = settings.keep_alive_s
    # Not 1,000, after which Hypercorn closes: a proxy that has kept a connection for long may be sending.
    config.keep_alive_max_requests = 1 << 62
    # Not 30 s, as one would set it elsewhere: Hypercorn counts it while an answer is being made or streamed,
    # too, and would cut every event stream (tried: set to 0.5 s, a quiet stream ended after 0.5 s). A slow
    # header runs into keep_alive_s, a slow body into the guard's body_s_max.
    config.read_timeout = None
    config.graceful_timeout = settings.graceful_s
    config.include_server_header = False
    config.websocket_max_message_size = 1024
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")  # the default writes past our JSON lines
    return config


class _Connection(TCPServer):
    """Hypercorn's connection, HTTP/1 only, ended as soon as the client has ended it."""

    async def run(self) -> None:
        """As Hypercorn's, without TLS and without HTTP/2.

        Cleartext HTTP/2 is nothing a proxy needs, and here it has no idle timer before its first stream, and
        an `http2-settings` header that is not base64 ends the whole server (both tried).
        """
        try:
            socket = self.stream.socket
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as tasks:
                self._task_group = tasks
                self.protocol = _Http1(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    ConnectionState(self.state.copy()),
                    False,
                    client,
                    server,
                    self.protocol_send,
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
                # The idle timer lives in the same nursery: whoever opens and closes connections would hold a
                # descriptor for keep_alive_s with each, and soon all of them (tried).
                await self.idle_task.stop()
        except OSError:
            pass  # the peer is gone; closing is all that is left to do
        finally:
            await self._close()


class _Http1(H11Protocol):
    """HTTP/1.1 and 1.0 as Hypercorn speaks it; an upgrade to HTTP/2 is not taken up."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection = _OneAtATime(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn would change to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        if not request.http_version.startswith(b"1."):  # `PRI * HTTP/2.0`, too
            await self._send_error_response(400)
            await self.send(Closed())
            return
        await super()._create_stream(request)


class _OneAtATime(h11.Connection):
    """Looks at what follows a request that was the last (`connection: close`) only after its answer.

    h11 raises at once, and Hypercorn then closes the connection under the answer that is being written:
    whoever sent one byte too many got none half of the time.
    """

    def next_event(self) -> Any:
        answering = self.our_state in {h11.SEND_RESPONSE, h11.SEND_BODY}
        if answering and self.their_state is h11.MUST_CLOSE and self.trailing_data[0]:
            return h11.PAUSED
        return super().next_event()


class _BoundedStream(trio.abc.HalfCloseableStream):
    """A connection whose writes have a bound: whoever takes no byte for so long is gone."""

    def __init__(self, stream: trio.SocketStream, *, send_s_max: float) -> None:
        self._stream = stream
        self._send_s_max = send_s_max
        self._sending = trio.Lock()  # Hypercorn may close its side while an answer is being written
        self.socket = stream.socket  # Hypercorn asks it for both addresses

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        async with self._sending:
            # In pieces, so that a long answer to a slow but living client is not cut.
            for start in range(0, len(view), PIECE_BYTES):
                with trio.move_on_after(self._send_s_max) as timely:
                    await self._stream.send_all(view[start : start + PIECE_BYTES])
                if timely.cancelled_caught:
                    await trio.aclose_forcefully(self._stream)  # its reader must end as well
                    raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        async with self._sending:
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
