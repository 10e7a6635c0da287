"""Where the notices of a demonstration go: a receiver of webhooks on this machine, which counts them.

It believes nothing and does nothing: whether a webhook is genuine is its signature's to tell (docs/api.md).
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec
import trio

REQUEST_BYTES_MAX = 1 << 20
REQUEST_S = 10.0
KEPT = 5
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


class _Notice(msgspec.Struct):
    type: str


class NoticeReceiver:
    """`kinds`: notices by kind; `last`: (path, kind) of the newest ones."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.last: deque[tuple[str, str]] = deque(maxlen=KEPT)

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen on loopback until cancelled; started with the URL that leads here."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        task_status.started(f"http://127.0.0.1:{port}")
        await trio.serve_listeners(self._take, [listener])

    async def _take(self, stream: trio.SocketStream) -> None:
        async with stream:
            with trio.move_on_after(REQUEST_S):
                try:
                    path, body = await _read(stream)
                    kind = msgspec.json.decode(body, type=_Notice).type
                    await stream.send_all(_OK)
                except (ValueError, trio.BrokenResourceError):
                    return  # no webhook of ours, or it is gone: sent again, if it was one
                self.kinds[kind] += 1
                self.last.append((path, kind))

    def statistics(self) -> dict[str, int]:
        return {"notices": self.kinds.total()}


async def _read(stream: trio.SocketStream) -> tuple[str, bytes]:
    """Path and body of one request. ValueError when it is none, or too long."""
    raw, length = b"", REQUEST_BYTES_MAX
    while b"\r\n\r\n" not in raw or len(raw) < length:
        chunk = await stream.receive_some()
        raw += chunk
        if not chunk or len(raw) > REQUEST_BYTES_MAX:
            raise ValueError("no whole request")
        head, ends, _ = raw.partition(b"\r\n\r\n")
        if ends:
            length = len(head) + 4 + _length_of(head)
    head, _, body = raw.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return words[1].decode("ascii", "replace") if len(words) == 3 else "", body


def _length_of(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise ValueError("a webhook says how long it is")
