"""From the shard that was handed a beat to the shard that owns its row, and the answer back.

One local stream socket per shard, ``DIR/shard-K.sock``, on the host loop; every other shard keeps one
connection to it. Messages are length-prefixed: frames with their receive time, or a plain request as it came.
The owner judges by the same functions as its own. Bounded: a full, dead or silent peer means BUSY, at once or
after `FORWARD_S_MAX`; nothing is kept for later, the client tries again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from engine.door import Door
from engine.http_reply import Reply
from engine.http_requests import Answer, PlainRequest
from np1.codec import FRAME_BYTES

FORWARD_WAITING_MAX = 16_384  # messages that one peer has not answered; above it BUSY
FORWARD_BYTES_MAX = 8 * 1024 * 1024  # bytes that one peer has not taken; above it BUSY
FORWARD_S_MAX = 5.0  # how long a peer may take; then BUSY, and its late answer is ignored
MESSAGE_BYTES_MAX = 4 * 1024 * 1024  # one message; more frames at once: BUSY
REPLY_BYTES_MAX = 8 * 1024 * 1024  # answers a peer has not taken; above it we do not read from it
RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 1.0
_SWEEP_S = 0.5
_PROTOCOL = 1

_HEAD = struct.Struct("!IBQ")  # length of what follows, kind, id
_HELLO_BODY = struct.Struct("!BII")  # protocol, number of shards, the shard meant
_TIME = struct.Struct("!Q")
_HELLO, _FRAMES, _REQUEST = range(3)  # an answer has the kind and id of what it answers

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(PlainRequest).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode

HandleRequest = Callable[[PlainRequest, Answer], None]


class ForwarderStatistics(NamedTuple):
    """Messages since the start, by what became of them."""

    forwarded: int
    answered: int
    busy: int  # not taken: full, dead or too slow peers
    late: int  # answers that came after we had said BUSY
    taken: int  # from peers
    links_refused: int  # peers that spoke something else, or counted shards otherwise
    peers_up: tuple[int, ...]  # shards we are connected to


class _BrokenLinkError(Exception):
    """What came over a link is no message of ours."""


class _Cutter:
    """Cuts messages out of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(kind, id, body) of each whole message. _BrokenLinkError."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(buffer, at)
            if length > MESSAGE_BYTES_MAX:
                raise _BrokenLinkError(f"a message of {length} bytes")
            end = at + _HEAD.size + length
            if len(buffer) < end:
                break
            yield kind, number, bytes(buffer[at + _HEAD.size : end])
            at = end
        del buffer[:at]


class _Peer(asyncio.Protocol):
    """Our connection to the shard that owns what we forward."""

    def __init__(self, home: Forwarder, *, hello: bytes) -> None:
        self._home = home
        self._loop = asyncio.get_running_loop()
        self._hello = hello
        self._cutter = _Cutter()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, tuple[float, Callable[[bytes | None], None]]] = {}
        self._number = 0
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=FORWARD_BYTES_MAX)
        self._transport.write(_HEAD.pack(len(self._hello), _HELLO, 0) + self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        if not self.ended.done():
            self.ended.set_result(None)
        for _, reply in waiting.values():
            reply(None)

    def data_received(self, data: bytes) -> None:
        try:
            for _, number, body in self._cutter.feed(data):
                waiting = self._waiting.pop(number, None)
                if waiting is None:
                    self._home.late += 1
                else:
                    self._home.answered += 1
                    waiting[1](body)
        except _BrokenLinkError:
            self.abort()

    def send(self, kind: int, parts: tuple[bytes, ...], reply: Callable[[bytes | None], None]) -> bool:
        """Send and remember who waits; False, with nothing sent, when there is no room."""
        transport = self._transport
        length = sum(map(len, parts))
        if (
            transport is None
            or transport.is_closing()
            or len(self._waiting) >= FORWARD_WAITING_MAX
            or length > MESSAGE_BYTES_MAX
            or transport.get_write_buffer_size() + length > FORWARD_BYTES_MAX
        ):
            return False
        self._number += 1
        self._waiting[self._number] = (self._loop.time() + FORWARD_S_MAX, reply)
        transport.write(b"".join((_HEAD.pack(length, kind, self._number), *parts)))
        return True

    def sweep(self, now_s: float) -> None:
        """Say BUSY for what the peer has kept too long. Entries stand in the order of their deadlines."""
        overdue = []
        for number, (deadline_s, _) in self._waiting.items():
            if deadline_s > now_s:
                break
            overdue.append(number)
        for number in overdue:
            self._waiting.pop(number)[1](None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Taken(asyncio.Protocol):
    """A peer's connection to us: what it forwards is judged here."""

    def __init__(self, home: Forwarder) -> None:
        self._home = home
        self._cutter = _Cutter()
        self._transport: asyncio.Transport | None = None
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=REPLY_BYTES_MAX)
        self._home.links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._home.links.discard(self)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, body in self._cutter.feed(data):
                self._take(kind, number, body)
        except _BrokenLinkError:
            self._home.links_refused += 1
            self.abort()

    def _take(self, kind: int, number: int, body: bytes) -> None:
        if not self._greeted:
            if kind != _HELLO or body != self._home.hello_to(self._home.shard):
                raise _BrokenLinkError("not a shard of this installation, or of another number of shards")
            self._greeted = True
        elif kind == _FRAMES:
            if len(body) <= _TIME.size or (len(body) - _TIME.size) % FRAME_BYTES:
                raise _BrokenLinkError("not frames")
            (t_ms,) = _TIME.unpack_from(body)
            self._home.taken += 1
            self._home.door.submit_frames(
                body[_TIME.size :], t_ms, lambda acks: self._answer(kind, number, acks)
            )
        elif kind == _REQUEST:
            self._home.taken += 1
            try:
                asked = _decode_request(body)
            except msgspec.DecodeError as error:
                raise _BrokenLinkError("not a request") from error
            self._home.handle(asked, lambda reply: self._answer(kind, number, _encode(reply)))
        else:
            raise _BrokenLinkError(f"a message of kind {kind}")

    def _answer(self, kind: int, number: int, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_HEAD.pack(len(body), kind, number) + body)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Forwarder:
    """One shard's forwarder; made by `open_forwarder`. All calls are made on the thread of the host loop."""

    def __init__(self, *, directory: Path, shard: int, door: Door, handle: HandleRequest) -> None:
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._shards = door.shards()
        self._peers: dict[int, _Peer] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.AbstractServer | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._forwarded = 0
        self._busy = 0
        self.shard = shard
        self.door = door
        self.handle = handle
        self.answered = 0
        self.late = 0
        self.taken = 0
        self.links_refused = 0
        self.links: set[_Taken] = set()

    async def listen(self) -> None:
        """Bind our socket in place of an earlier one of ours, and start to look for the others. OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = socket_path(self._directory, self.shard)
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(fresh))
            fresh.chmod(0o600)
            listening.listen()
            fresh.rename(path)  # never a moment in which there is no socket to be found
            self._server = await self._loop.create_unix_server(lambda: _Taken(self), sock=listening)
        except BaseException:
            listening.close()
            raise
        for shard in range(self._shards):
            if shard != self.shard:
                task = self._loop.create_task(self._stay_connected(shard))
                task.add_done_callback(_raise_crash)
                self._tasks.append(task)
        self._sweep()

    def forward_frames(
        self, shard: int, frames: bytes, t_ms: int, reply: Callable[[bytes | None], None]
    ) -> None:
        """Bring n frames (n * 48 bytes) to their owner; `reply` gets n * 48 bytes, or None for BUSY.

        BUSY may be said before this returns. Over UDP it is silence: an ACK could not be signed here.
        """
        self._send(shard, _FRAMES, (_TIME.pack(t_ms), frames), reply)

    def forward_request(
        self, shard: int, request: PlainRequest, reply: Callable[[Reply | None], None]
    ) -> None:
        """Bring a plain request to the owner of its row; `reply` gets its answer, or None for BUSY."""
        self._send(
            shard,
            _REQUEST,
            (_encode(request),),
            lambda body: reply(None if body is None else _decode_reply(body)),
        )

    def statistics(self) -> ForwarderStatistics:
        """Counters since the start, and who is within reach now."""
        return ForwarderStatistics(
            forwarded=self._forwarded,
            answered=self.answered,
            busy=self._busy,
            late=self.late,
            taken=self.taken,
            links_refused=self.links_refused,
            peers_up=tuple(sorted(self._peers)),
        )

    async def close(self) -> None:
        """Stop taking and forwarding; what waits for a peer is answered BUSY."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._server is not None:
            self._server.close()
        ending = [peer.ended for peer in self._peers.values()]
        for peer in list(self._peers.values()):
            peer.abort()
        for link in list(self.links):
            link.abort()
        if ending:
            await asyncio.wait(ending)
        self._peers.clear()

    def hello_to(self, shard: int) -> bytes:
        """What a peer says first: both sides must count the same shards, or rows would go astray."""
        return _HELLO_BODY.pack(_PROTOCOL, self._shards, shard)

    def _send(
        self, shard: int, kind: int, parts: tuple[bytes, ...], reply: Callable[[bytes | None], None]
    ) -> None:
        def answered(body: bytes | None) -> None:
            if body is None:
                self._busy += 1
            reply(body)

        self._forwarded += 1
        peer = self._peers.get(shard)
        if peer is None or not peer.send(kind, parts, answered):
            answered(None)

    async def _stay_connected(self, shard: int) -> None:
        path = str(socket_path(self._directory, shard))
        wait_s = RECONNECT_S_MIN
        while True:
            started_s = self._loop.time()
            try:
                _, peer = await self._loop.create_unix_connection(
                    lambda: _Peer(self, hello=self.hello_to(shard)), path
                )
            except OSError:
                pass  # not there (yet, or any more): what is forwarded meanwhile is counted as busy
            else:
                self._peers[shard] = peer
                await asyncio.shield(peer.ended)
                del self._peers[shard]
            lived = self._loop.time() - started_s > RECONNECT_S_MAX
            wait_s = RECONNECT_S_MIN if lived else min(2 * wait_s, RECONNECT_S_MAX)
            await asyncio.sleep(wait_s)

    def _sweep(self) -> None:
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        now_s = self._loop.time()
        for peer in list(self._peers.values()):
            peer.sweep(now_s)


async def open_forwarder(directory: Path, *, shard: int, door: Door, handle: HandleRequest) -> Forwarder:
    """Start a shard's forwarder on the host loop; sockets lie in `directory` (path under 107 bytes).

    `handle` judges the plain requests that peers bring: `PlainRequests.handle`. OSError.
    """
    forwarder = Forwarder(directory=directory, shard=shard, door=door, handle=handle)
    await forwarder.listen()
    return forwarder


def socket_path(directory: Path, shard: int) -> Path:
    """Where a shard's socket lies."""
    return directory / f"shard-{shard}.sock"


def _raise_crash(task: asyncio.Task[None]) -> None:
    """A task that ends on its own has crashed: into the loop's exception handler with it."""
    if not task.cancelled():
        task.result()
