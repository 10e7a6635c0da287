"""What an HTTP answer of the beat listener is made of: status, header lines, body, and how it becomes bytes.

Also the refusals: problem documents (RFC 9457) whose `code` a client can switch on. What is answered when is
decided in http_requests.py and http_routes.py; nothing here knows of beats or connections.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

import orjson


class Reply(NamedTuple):
    """One answer. `headers` are complete lines, each with its CRLF, without Content-Length and Connection."""

    status: int
    headers: bytes
    body: bytes


TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
JSON = b"Content-Type: application/json\r\n"
PROBLEM = b"Content-Type: application/problem+json\r\n"
FRAMES = b"Content-Type: application/octet-stream\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
    if status.value >= 200
}


def render(reply: Reply, *, close: bool = False, head_only: bool = False) -> bytes:
    """The bytes of an answer; `head_only` for HEAD (the length told is that of the body left out)."""
    return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (
        _STATUS_LINES[reply.status],
        reply.headers,
        b"Connection: close\r\n" if close else b"",
        len(reply.body),
        b"" if head_only else reply.body,
    )


def problem(status: int, code: str, detail: str, *, headers: bytes = b"") -> Reply:
    """A refusal as a problem document; `headers` are further lines."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return Reply(status, PROBLEM + headers, orjson.dumps(document))


def retry_after(wait_ms: int) -> bytes:
    """The header line that says when to come back: whole seconds, rounded up, at least 1."""
    return b"Retry-After: %d\r\n" % max(1, -(-wait_ms // 1000))


def busy(wait_ms: int) -> Reply:
    """Not recorded: come back later (WIRE.md, code 7)."""
    return problem(503, "busy", "Not recorded; try again later.", headers=retry_after(wait_ms))


def push_error(status: int, code: str, message: str, *, headers: bytes = b"") -> Reply:
    """A refusal in the form that push clients know (WIRE.md: ``{"ok": false, "msg"}``)."""
    return Reply(status, JSON + headers, orjson.dumps({"ok": False, "msg": message, "code": code}))


def method_not_allowed(allow: bytes) -> Reply:
    """405 with the methods that would do, as a header value."""
    return problem(
        405, "method_not_allowed", "This path has no such method.", headers=b"Allow: %b\r\n" % allow
    )


def malformed(detail: str) -> Reply:
    """400: the request has the wrong shape, nothing of it was taken."""
    return problem(400, "malformed", detail)


UNAUTHORIZED = problem(
    401, "unauthorized", "Bad, revoked or expired token.", headers=b"WWW-Authenticate: Bearer\r\n"
)
MOVED = problem(404, "moved", "This row lives elsewhere now: open a new session.")
NOT_FOUND = problem(404, "not_found", "Nothing is served under this path.")
TLS_REQUIRED = problem(403, "tls_required", "Plain HTTP is accepted from loopback only.")
UNSUPPORTED_TYPE = problem(
    415, "unsupported_media_type", "Send application/octet-stream or application/json, not encoded further."
)
TOO_LARGE = problem(413, "too_large", "The body is larger than this server takes.")
TOO_MANY_FRAMES = problem(413, "too_large", "More than 1024 frames; nothing was taken.")
HEAD_TOO_LARGE = problem(431, "head_too_large", "The request line and headers are longer than allowed.")
TIMED_OUT = problem(408, "timeout", "The request did not arrive in time.")
EXPECTATION_FAILED = problem(417, "expectation_failed", "Only 100-continue can be expected.")
LIVE = Reply(200, TEXT, b"OK\n")
