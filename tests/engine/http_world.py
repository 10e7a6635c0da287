"""A world for the HTTP listener: a fake door that answers a tick later, an HTTP client that hides nothing,
and a runner, since the listener lives on the host loop and not on trio.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvloop

from engine.core.keys import Capability, MasterSecrets, Token
from engine.door import PlainAnswer
from engine.ingest_http import serve_http
from engine.settings import IngestSettings
from np1.codec import FRAME_BYTES, Code

NOW_MS = 1_800_000_000_000
LATER_MS = NOW_MS + 3_600_000
SECRETS = MasterSecrets(secrets={1: bytes(range(32))})
SLOTS = {"w-zero": 0, "w-one": 1, "w-last": 63}


def on_loop(test):
    """Run an async test on a uvloop of its own; whatever reaches the loop's exception handler fails it."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        loop = uvloop.new_event_loop()
        crashes = []
        loop.set_exception_handler(lambda _, context: crashes.append(context))
        try:
            loop.run_until_complete(asyncio.wait_for(test(*args, **kwargs), 20))
        finally:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        assert crashes == []

    return run


class FakeDoor:
    """Judges as it is told, one tick after it was asked; `hold` keeps the answers until `release`."""

    def __init__(self, *, shard=0, shards=1):
        self.shard = shard
        self.count = shards
        self.clock_ms = NOW_MS
        self.code = Code.OK
        self.next_ms = 60_000
        self.slots = SLOTS
        self.capabilities = {}  # row -> generation; absent: every generation is live
        self.hold = False
        self.plain = []
        self.frames = []
        self.refused_tokens = []
        self.sources = []  # of the frames
        self._waiting = []
        self._scheduled = False

    def now_ms(self):
        return self.clock_ms

    def owns(self, row):
        return row % self.count == self.shard

    def shards(self):
        return self.count

    def session_slots(self, row, generation):
        return self.slots

    def refuse_token(self, row, t_ms):
        self.refused_tokens.append((row, t_ms))

    def capability_live(self, row, generation):
        return self.capabilities.get(row, generation) == generation

    def submit_plain(self, beat, reply):
        assert self.owns(beat.row)
        self.plain.append(beat)
        self._later(lambda: reply(PlainAnswer(self.code, self.next_ms, 90_000, beat.t_ms)))

    def submit_frames(self, frames, t_ms, reply, *, source=0):
        assert frames
        assert len(frames) % FRAME_BYTES == 0
        self.frames.append((frames, t_ms))
        self.sources.append(source)
        acks = b"".join(
            ack_of(frames[i : i + FRAME_BYTES], self.shard) for i in range(0, len(frames), FRAME_BYTES)
        )
        self._later(lambda: reply(acks))

    def _later(self, act):
        self._waiting.append(act)
        if not self.hold and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.release)

    def release(self, *, backwards=False):
        """Answer everything that waits, the last first if so told."""
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        for act in reversed(waiting) if backwards else waiting:
            act()


def frame(row, seq=1):
    """48 bytes with a row and a seq; nothing here looks at the rest."""
    return b"\x11\x00\x00\x07" + row.to_bytes(4, "big") + seq.to_bytes(8, "big") + bytes(32)


def ack_of(beat, shard):
    """What the fake door answers to a frame; says which shard did."""
    return b"\x12\x00" + beat[2:16] + bytes(31) + bytes((shard,))


def token(row=4, generation=7, expires_ms=LATER_MS, secrets=SECRETS):
    return secrets.make_token(Token(row=row, generation=generation, expires_ms=expires_ms))


def capability(row=4, generation=3, secrets=SECRETS):
    return str(secrets.make_capability(Capability(row=row, generation=generation)))


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def request(method, target, body=b"", headers=()):
    """The bytes of a request with its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", "Host: beats", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def json_request(body, *, bearer=None, target="/v1/beats"):
    headers = [("Content-Type", "application/json"), ("Authorization", f"Bearer {bearer or token()}")]
    return request("POST", target, body, headers)


def frames_request(frames):
    return request("POST", "/v1/beats", frames, [("Content-Type", "application/octet-stream")])


class Client:
    """One connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def ask(self, data):
        self.writer.write(data)
        return await self.response(head_only=data.startswith(b"HEAD "))

    async def response(self, *, head_only=False):
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Response(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self):
        """Whether the server has closed: nothing more is to be read."""
        return await self.reader.read(1) == b""

    def close(self):
        self.writer.close()


class World:
    """A listener on a port of its own, and the clients that were opened to it."""

    def __init__(self, listener, door, address):
        self.listener = listener
        self.door = door
        self.address = address
        self._clients = []

    async def client(self):
        client = Client(*await asyncio.open_connection(*self.address))
        self._clients.append(client)
        return client

    async def ask(self, data):
        """One request on a connection of its own."""
        return await (await self.client()).ask(data)

    async def end(self):
        for client in self._clients:
            client.close()
        await self.listener.close()


@asynccontextmanager
async def serving(*, door=None, forwarder=None, plain=None, secrets=SECRETS, **settings):
    """A world whose listener is closed at the end."""
    door = door or FakeDoor()
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    listener = await serve_http(
        listening,
        door=door,
        secrets=secrets,
        settings=IngestSettings(**settings),
        plain=plain,
        forwarder=forwarder,
    )
    world = World(listener, door, address)
    try:
        yield world
    finally:
        await world.end()


async def until(condition):
    """Let the loop turn until the condition holds."""
    while not condition():  # noqa: ASYNC110 - what is waited for is the server's inside, it has no event
        await asyncio.sleep(0)
