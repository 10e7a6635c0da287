"""A real HTTP server that answers what a test has written down, in order, and keeps what it was asked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Asked(NamedTuple):
    method: str
    target: str  # path and query, as they came
    headers: dict[str, str]  # names in lower case
    body: bytes


class Says(NamedTuple):
    """One answer. `status` 0: the connection is closed without one."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False  # promise more than is sent


def says(value: Any, status: int = 200, **headers: str) -> Says:
    """An answer in JSON; underscores in names of headers stand for hyphens."""
    named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Says(status, json.dumps(value).encode(), (("content-type", "application/json"), *named))


def refuses(status: int, code: str = "unavailable", **headers: str) -> Says:
    """A problem document."""
    return says({"type": f"urn:{code}", "title": "", "status": status, "code": code}, status, **headers)


class Scripted:
    """Where it listens, and what it was asked so far."""

    def __init__(self, answers: list[Says]) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.url = ""


@contextmanager
def scripted(*answers: Says) -> Iterator[Scripted]:
    """A server for these answers; one request more than there are answers is closed without one."""
    script = Scripted(list(answers))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            named = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append(Asked(self.command, self.path, named, body))
            said = script.answers.pop(0) if script.answers else Says(0)
            if said.status == 0:
                self.close_connection = True
                return
            self.send_response(said.status)
            for name, value in said.headers:
                self.send_header(name, value)
            if said.status not in (204, 304):
                self.send_header("content-length", str(len(said.body) + (9 if said.cut else 0)))
            self.end_headers()
            self.wfile.write(said.body)
            self.close_connection = self.close_connection or said.cut

        def log_message(self, *_words: Any) -> None:
            """Nothing on the test's output."""

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
