"""The limit of `bench http`: the same loop and parser, an answer of the same size, and nothing behind it.

bare_http FD: accepts on a listening socket until stdin closes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast

import httptools
import uvloop

_ANSWER = b'{"code":"ok","next_ms":60000,"ttl_ms":90000,"server_ms":1800000000000}'
_REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER)
    + _ANSWER
)


class _Bare(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self._transport is not None
        self._transport.write(_REPLY)


async def _main(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Bare, sock=listening)
    print('{"listening": true}', flush=True)
    stopped = asyncio.Event()
    loop.add_reader(sys.stdin, stopped.set)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(_main(socket.socket(fileno=int(sys.argv[1]))))
