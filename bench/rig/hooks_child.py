"""A receiver of webhooks, as lean as asyncio's protocols are: answers 204 and notes when each event came.

hooks_child OPTIONS (JSON): ports (how many to listen on). Answers {"ports": [...]}, and to "arrivals" with
[event's own time, when it came] in unix ms for every event since the last such order, and how many messages
those were.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

from bench.rig.child import say

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_DETAIL = re.compile(rb'"detail":"at=(\d+)"')  # the bench writes an event's exact time there


class _Receiver:
    def __init__(self) -> None:
        self.arrivals: list[tuple[int, int]] = []
        self.messages = 0

    def take(self, body: bytes) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.messages += 1
        self.arrivals += [(int(at), now_ms) for at in _DETAIL.findall(body)]

    def tell(self) -> None:
        say(arrivals=self.arrivals, messages=self.messages)
        self.arrivals, self.messages = [], 0


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: _Receiver) -> None:
        self._receiver = receiver
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            self._receiver.take(rest[:length])
            self._data = rest[length:]
            self._transport.write(_ANSWER)


async def _main(options: dict[str, Any]) -> None:
    loop, receiver = asyncio.get_running_loop(), _Receiver()
    servers = [
        await loop.create_server(lambda: _Connection(receiver), "127.0.0.1", 0, backlog=1_024)
        for _ in range(options["ports"])
    ]
    say(ports=[server.sockets[0].getsockname()[1] for server in servers])
    while await loop.run_in_executor(None, sys.stdin.readline):
        receiver.tell()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
