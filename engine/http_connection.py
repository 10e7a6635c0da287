"""One connection of the beat listener: requests in, answers out in the order of the requests.

Everything a client may hold open is bounded here: unanswered requests, answers it does not read, and the
time each of these may take. Cutting bytes into requests is http_reader.py's, their meaning http_routes.py's,
accepting and closing ingest_http.py's.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, deque
from typing import Any, Protocol, cast

from engine.core.clones import source_of
from engine.http_reader import RequestReader
from engine.http_reply import CONTINUE, TIMED_OUT, Reply, busy, render
from engine.http_routes import Head, Route, Routes

PIPELINE_MAX = 16  # unanswered requests of one connection; above it its socket is not read
WRITE_BYTES_MAX = 262_144  # answers the client has not taken; above it its socket is not read
REQUEST_S_MAX = 30.0  # from the first byte of a request to its last; above it 408
ANSWER_S_MAX = 30.0  # how long the door or the client may hold an answer up; above it the connection is cut
LINGER_S_MAX = 5.0  # an end may take this: the last answer is written out, what still comes in thrown away
_CROWDED_RETRY_MS = 1_000


class Home(Protocol):
    """What a connection needs of its listener."""

    answered: Counter[tuple[str, int]]  # by (route, status)
    draining: bool

    def now_ms(self) -> int:
        """The server's clock, unix milliseconds."""
        ...

    def time_s(self) -> float:
        """The loop's clock, seconds."""
        ...

    def accept(self, connection: Connection) -> bool:
        """Count the connection in; False when there are too many."""
        ...

    def lost(self, connection: Connection) -> None:
        """Count it out."""
        ...


class _Exchange:
    """A request's place in the order of answers."""

    __slots__ = ("_connection", "_head_only", "_route", "answered", "keep_alive", "since_s")

    def __init__(
        self,
        connection: Connection,
        since_s: float,
        route: str = "none",
        *,
        keep_alive: bool,
        head_only: bool = False,
    ) -> None:
        self._connection = connection
        self._head_only = head_only
        self._route = route
        self.keep_alive = keep_alive
        self.since_s = since_s
        self.answered: bytes | None = None

    def answer(self, reply: Reply) -> None:
        self.answered = render(reply, close=not self.keep_alive, head_only=self._head_only)
        self._connection.counts[self._route, reply.status] += 1
        self._connection.flush()


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    def __init__(
        self, home: Home, routes: Routes, *, body_max: int, idle_s_max: float, allow_plaintext: bool
    ) -> None:
        self._home = home
        self.counts = home.answered
        self._routes = routes
        self._idle_s_max = idle_s_max
        self._safe = allow_plaintext
        self._source = 0  # whom it is from; 0: not known
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # until connection_made
        self._reader = RequestReader(body_max=body_max)
        self._head: Head | None = None  # the last one, and where it led
        self._route = Route("none", _nowhere)
        self._pending: deque[_Exchange] = deque()
        self._deaf = False  # the last answer is in the queue: what still comes in is thrown away
        self._lost = False
        self._read_paused = False
        # Since when (loop seconds) what is bounded in time has been going on; 0: it is not.
        self._idle_since_s = home.time_s()
        self._reading_since_s = 0.0
        self._write_paused_since_s = 0.0
        self._lingering_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._home.accept(self):
            self._deaf = True
            self._transport.write(render(busy(_CROWDED_RETRY_MS), close=True))
            self._transport.close()
            return
        peer = transport.get_extra_info("peername")
        self._safe, self._source = self._safe or is_local(peer), source_of_peer(peer)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._pending.clear()
        self._reader.close()
        self._home.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        reader = self._reader
        reader.feed(data)
        if reader.complete:
            self._dispatch()
        if reader.reading or reader.refusal is not None:
            self._wait_for_the_rest()
        else:
            self._reading_since_s = 0.0
        if len(self._pending) >= PIPELINE_MAX:
            self._regulate()

    def eof_received(self) -> bool:
        self._deaf = True
        return bool(self._pending)  # True: we close once the last answer has left

    def pause_writing(self) -> None:
        self._write_paused_since_s = self._home.time_s()
        self._regulate()

    def resume_writing(self) -> None:
        self._write_paused_since_s = 0.0
        self._regulate()

    def flush(self) -> None:
        """Write the answers whose turn has come."""
        pending = self._pending
        if not pending or pending[0].answered is None or self._lost or self._transport.is_closing():
            return
        exchange = pending.popleft()
        answers, last = cast("bytes", exchange.answered), not exchange.keep_alive
        while pending and pending[0].answered is not None and not last:
            exchange = pending.popleft()
            answers += cast("bytes", exchange.answered)
            last = not exchange.keep_alive
        self._transport.write(answers)
        if last:
            self._hang_up()
        elif not pending:
            self._idle_since_s = self._home.time_s()
            if self._deaf or (self._home.draining and not self._reader.reading):
                self._close()
        if self._read_paused:
            self._regulate()

    def drain(self) -> None:
        """Close as soon as what was accepted is answered."""
        if not self._pending and not self._reader.reading:
            self._close()

    def abort(self) -> None:
        """Close at once, whatever is unanswered."""
        self._transport.abort()

    def sweep(self, now_s: float) -> None:
        """End what has taken too long."""
        if self._lingering_since_s:
            if now_s - self._lingering_since_s > LINGER_S_MAX:
                self._transport.abort()
        elif self._write_paused_since_s:
            if now_s - self._write_paused_since_s > ANSWER_S_MAX:
                self._transport.abort()
        elif self._pending:
            if now_s - self._pending[0].since_s > ANSWER_S_MAX:
                self._transport.abort()
        elif self._reading_since_s:
            if now_s - self._reading_since_s > REQUEST_S_MAX:
                self._refuse(TIMED_OUT)
        elif now_s - self._idle_since_s > self._idle_s_max:
            self._close()

    def _dispatch(self) -> None:
        home = self._home
        t_ms, now_s = home.now_ms(), home.time_s()
        complete, self._reader.complete = self._reader.complete, []
        for head, body in complete:
            if head is not self._head:
                self._head, self._route = head, self._resolved(head)
            keep_alive = head.keep_alive and not home.draining
            exchange = _Exchange(
                self, now_s, self._route.name, keep_alive=keep_alive, head_only=head.method == b"HEAD"
            )
            self._deaf = not keep_alive
            self._pending.append(exchange)
            self._route.ask(body, t_ms, exchange.answer)
            if self._deaf:
                return

    def _resolved(self, head: Head) -> Route:
        return self._routes.resolve(head, safe=self._safe, source=self._source)

    def _wait_for_the_rest(self) -> None:
        reader = self._reader
        if reader.reading and not self._deaf and reader.wants_continue():
            self._tell_to_continue()
        if reader.refusal is not None:
            self._refuse(reader.refusal)
        self._reading_since_s = (self._reading_since_s or self._home.time_s()) if reader.reading else 0.0

    def _tell_to_continue(self) -> None:
        exchange = _Exchange(self, self._home.time_s(), keep_alive=True)
        exchange.answered = CONTINUE
        self._pending.append(exchange)
        self.flush()

    def _refuse(self, refusal: Reply) -> None:
        """The last answer of this connection, after those that are due before it."""
        if not self._deaf:
            self._deaf = True
            exchange = _Exchange(self, self._home.time_s(), keep_alive=False)
            self._pending.append(exchange)
            exchange.answer(refusal)

    def _hang_up(self) -> None:
        self._pending.clear()
        if self._reader.reading or self._reader.refusal is not None:
            # More of a body may be on its way: closing now would reset it and take the answer with it.
            self._lingering_since_s = self._home.time_s()
            self._transport.write_eof()
        else:
            self._close()

    def _close(self) -> None:
        self._lingering_since_s = self._lingering_since_s or self._home.time_s()
        self._transport.close()  # once written out, which a client that does not read could put off for ever

    def _regulate(self) -> None:
        """Read while there is room for what is read."""
        if self._lost or self._transport.is_closing():
            return
        full = len(self._pending) >= PIPELINE_MAX or bool(self._write_paused_since_s)
        pause = full and not self._deaf
        if pause and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()
        elif self._read_paused and not pause:
            self._read_paused = False
            self._transport.resume_reading()


def _nowhere(_body: bytes, _t_ms: int, _answer: object) -> None:
    raise AssertionError("no head was resolved")


def is_local(peer: Any) -> bool:
    """Whether a peer name is a loopback address or that of a local socket."""
    address = _address(peer)
    if address is None:
        return isinstance(peer, str | bytes)  # None: gone before it could be asked
    return address.is_loopback


def source_of_peer(peer: Any) -> int:
    """Whom a connection is from, to be compared (clones.source_of). 0 for those on this machine or in this
    network: they are taken for proxies, which bring the beats of others in turns."""
    address = _address(peer)
    return source_of(str(address)) if address is not None and address.is_global else 0


def _address(peer: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not isinstance(peer, tuple):
        return None
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
