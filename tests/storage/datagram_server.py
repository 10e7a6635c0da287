"""A server that behaves as Datagram's documents say, for tests: a real one, in a thread of its own.

Token in one of its two forms, the partner's secret in the query, whole hours, windows of at most 14 days, at
most five nodes in one question, so many requests a second, errors in its form. `up` says when nodes were up;
`faults` are what the next requests get instead of an answer. All that was asked is in `asked`.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

HOUR_MS = 3_600_000
TOKEN, SECRET = "organisation-token-4711", "partner-secret-0815"


class Asked(NamedTuple):
    at_s: float
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


class RefusedError(Exception):
    """An error in its form."""

    def __init__(self, status: int, message: str, retry_after: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


Fault = Callable[[BaseHTTPRequestHandler], None]


class DatagramServer:
    """Made by `datagram_server`; `url` is the base of both of its hosts."""

    def __init__(self, *, token_form: str, per_s: int, page: int) -> None:
        self.authorization = TOKEN if token_form == "bare" else f"Bearer {TOKEN}"
        self.per_s, self.page = per_s, page
        self.url = ""
        self.up: dict[str, list[tuple[int, int]]] = {}  # of the nodes that it knows: [from_ms, to_ms)
        self.faults: deque[Fault] = deque()
        self.asked: list[Asked] = []
        self.under_way = self.under_way_most = self.limited = 0
        self.delay_s = 0.0  # how long each answer takes
        self._lock = threading.Lock()
        self._starts: deque[float] = deque()

    # -- what it answers ----------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: Any, authorization: str
    ) -> Any:
        if authorization != self.authorization:
            raise RefusedError(401, "Unauthorized")
        told = body.get("secret") if method == "POST" else query.get("secret", [""])[0]
        if told != SECRET:
            raise RefusedError(403, f"secret {told} is wrong")
        match method, path:
            case "GET", "/uptime":
                [node] = query["partner_node_id"]
                if node not in self.up:
                    raise RefusedError(404, "Node not found")
                return {"data": {"uptime": self.uptime(node, query), "partner_node_id": node}}
            case "GET", "/uptimes":
                nodes = query["partner_node_id[]"]
                if len(nodes) > 5:
                    raise RefusedError(400, "at most 5 nodes")
                known = [node for node in nodes if node in self.up]
                return {"data": [{"uptime": self.uptime(n, query), "partner_node_id": n} for n in known]}
            case "GET", "/partner/details":
                return {"data": {"id": "partner-1", "name": "NodePulse"}}
            case "GET", "/partner/nodes":
                return {"data": self.nodes(query.get("after", [""])[0])}
            case "POST", "/node/register":
                self.up.setdefault(body["id"], [])
                return {"data": True}
        raise RefusedError(404, "Not found")

    def uptime(self, node: str, query: dict[str, list[str]]) -> int:
        from_ms, to_ms = (floor(query[name][0]) for name in ("started_at", "ended_at"))
        if to_ms - from_ms > 14 * 24 * HOUR_MS:
            raise RefusedError(400, "at most 14 days")
        return sum(max(0, min(end, to_ms) - max(start, from_ms)) for start, end in self.up[node])

    def nodes(self, after: str) -> dict[str, Any]:
        left = sorted(node for node in self.up if node > after)
        page = left[: self.page]
        cursor = page[-1] if len(left) > self.page else None
        entries = [{"partner_node_id": node, "status": "active"} for node in page]
        return {"metadata": {"after": cursor, "total_count": len(self.up)}, "entries": entries}

    # -- how it is asked ----------------------------------------------------------------------------

    def begin(self, asked: Asked) -> Fault | None:
        """Count a request; RefusedError 429; the fault that it gets instead of an answer."""
        with self._lock:
            self.asked.append(asked)
            self.under_way += 1
            self.under_way_most = max(self.under_way_most, self.under_way)
            while self._starts and self._starts[0] <= asked.at_s - 1:
                self._starts.popleft()
            if len(self._starts) >= self.per_s:
                self.limited += 1
                raise RefusedError(429, "Too many requests", "1")
            self._starts.append(asked.at_s)
            return self.faults.popleft() if self.faults else None

    def end(self) -> None:
        with self._lock:
            self.under_way -= 1


def floor(text: str) -> int:
    at_ms = round(datetime.fromisoformat(text).timestamp() * 1000)
    return at_ms - at_ms % HOUR_MS


def status(code: int, message: str = "broken", *, retry_after: str = "") -> Fault:
    """Answer with an error in its form."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        send(handler, code, {"error": {"message": message, "status": code}}, retry_after=retry_after)

    return fault


def body(text: bytes, *, code: int = 200, length: int | None = None) -> Fault:
    """Answer with these bytes; `length`: what it says their number is, before it closes."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("content-length", str(len(text) if length is None else length))
        handler.end_headers()
        handler.wfile.write(text)
        handler.close_connection = True

    return fault


def endless(length: int) -> Fault:
    """Answer with so many bytes without saying how many."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b" " * length)
        handler.close_connection = True

    return fault


def slow(seconds: float) -> Fault:
    """Say nothing for a while, then close."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def close(handler: BaseHTTPRequestHandler) -> None:
    """Close without a word."""
    handler.close_connection = True


def send(handler: BaseHTTPRequestHandler, code: int, answer: Any, *, retry_after: str = "") -> None:
    text = json.dumps(answer).encode()
    handler.send_response(code)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(text)))
    if retry_after:
        handler.send_header("retry-after", retry_after)
    handler.end_headers()
    handler.wfile.write(text)


@contextmanager
def datagram_server(
    *, token_form: str = "bearer", per_s: int = 60, page: int = 3
) -> Iterator[DatagramServer]:
    """One that listens on a free port, until the block ends."""
    server = DatagramServer(token_form=token_form, per_s=per_s, page=page)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            said = json.loads(self.rfile.read(length)) if length else None
            asked = Asked(time.monotonic(), self.command, parts.path, parse_qs(parts.query), said)
            try:
                fault = server.begin(asked)
                if fault is not None:
                    fault(self)
                    return
                time.sleep(server.delay_s)
                authorization = self.headers.get("authorization", "")
                send(self, 200, server.answer(asked.method, asked.path, asked.query, said, authorization))
            except RefusedError as error:
                told = {"error": {"message": error.message, "status": error.status}}
                send(self, error.status, told, retry_after=error.retry_after)
            except ConnectionError:
                self.close_connection = True  # the reader went away before the end
            finally:
                server.end()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *_: object) -> None:
            """Its own log is nobody's."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
