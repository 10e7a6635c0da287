"""Cuts whole HTTP/1.1 requests out of the bytes of one connection, within bounds; no byte sequence raises.

httptools does the parsing. Its callbacks only take notes: whoever feeds the reader takes the requests after
the parser has returned, so that an exception of ours surfaces instead of being taken for bad input. A client
sends the same head over and over: a head that was parsed once on this connection is known by its bytes.
Answers, order and time are http_connection.py's.
"""

from __future__ import annotations

from typing import NamedTuple

import httptools

from engine.http_reply import EXPECTATION_FAILED, HEAD_TOO_LARGE, TOO_LARGE, Reply, malformed
from engine.http_routes import Head, body_bytes_max

HEAD_BYTES_MAX = 16_384  # request line, headers and trailers of one request; above it 431
KNOWN_HEAD_BYTES_MAX = 1_024  # longer heads are parsed each time
_LENGTH_DIGITS_MAX = 20  # of a Content-Length: 64 bits


class Request(NamedTuple):
    """One whole request. One with a known head has the very head that the one before it had."""

    head: Head
    body: bytes


class RequestReader:
    """One connection's requests. Once `refusal` is set nothing more is cut: answer it and close."""

    def __init__(self, *, body_max: int) -> None:
        self.complete: list[Request] = []  # whole requests, for the feeder to take
        self.reading = False  # a request has begun and is not whole
        self.refusal: Reply | None = None
        self._body_max = body_max
        self._parser = httptools.HttpRequestParser(self)
        self._skipped: Request | None = None  # see _after_upgrade
        self._skipped_left = 0
        self._known_head = b""
        self._known_bytes = -1  # of the known head with its body
        self._known = Head(b"", b"", b"", False, b"", True)
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._head_bytes = 0
        self._overhead = 0  # bytes since the request began or its body last grew
        self._in_body = False
        self._content_type = b""
        self._authorization = b""
        self._encoded = False
        self._chunked = False
        self._expects = b""
        self._content_length = 0
        self._body_left = 0
        self._keeps_body = False
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if len(data) == self._known_bytes and not self.reading and data.startswith(self._known_head):
            self.complete.append(Request(self._known, data[len(self._known_head) :]))
            return
        whole = not self.reading
        self._overhead += len(data)
        self._parse(data)
        if self.reading and self._overhead > HEAD_BYTES_MAX:
            self.refusal = self.refusal or HEAD_TOO_LARGE
        if whole and not self.reading and len(self.complete) == 1:
            self._get_to_know(data, self.complete[0])

    def wants_continue(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body; True once per request."""
        if not self._expects or not self.reading or not self._in_body:
            return False
        expects, self._expects = self._expects, b""
        if self._parser.get_http_version() == "1.0":
            return False
        if expects != b"100-continue":
            self.refusal = EXPECTATION_FAILED
        return self.refusal is None

    def close(self) -> None:
        """Let go of the parser, which holds our methods: a cycle."""
        del self._parser

    # -- called by the parser ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begin()
        self.reading = True

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if self._in_body:
            return  # a trailer says nothing about the request
        name = name.lower()
        if name == b"content-type":
            self._content_type = value
        elif name == b"authorization":
            self._authorization = value
        elif name == b"content-length":
            self._note_length(value)
        elif name == b"content-encoding":
            self._encoded = value.lower() != b"identity"
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == b"expect":
            self._expects = value.lower()

    def on_headers_complete(self) -> None:
        self._in_body = True
        if self._content_length or self._chunked:
            self._body_left, self._keeps_body = body_bytes_max(self._target, kept_max=self._body_max)
            if self._content_length > self._body_left:
                self.refusal = self.refusal or TOO_LARGE

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        self._body_left -= len(body)
        if self._body_left < 0:
            self.refusal = self.refusal or TOO_LARGE
        elif self._keeps_body:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self.refusal is None:
            self.complete.append(self._request())
            self.reading = False

    # -- details ----------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        while data and self.refusal is None:
            if self._skipped is not None:
                data = self._take_skipped(self._skipped, data)
                continue
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._after_upgrade()
                continue
            except httptools.HttpParserCallbackError:
                raise
            except httptools.HttpParserError as error:
                self.refusal = self.refusal or malformed(f"Not HTTP/1.1: {error}")
            break

    def _get_to_know(self, data: bytes, request: Request) -> None:
        """`data` was one whole request: its head, met again with as long a body, means the same again."""
        head = data[: len(data) - len(request.body)]
        cut_off = self._chunked or (self._content_length and not self._keeps_body)
        if request.head.keep_alive and not cut_off and len(head) <= KNOWN_HEAD_BYTES_MAX:
            self._known_head = head
            self._known_bytes = len(data)
            self._known = request.head

    def _request(self) -> Request:
        parts = self._parts
        head = Head(
            self._parser.get_method(),
            self._target,
            self._content_type,
            self._encoded,
            self._authorization,
            self._parser.should_keep_alive(),
        )
        return Request(head, parts[0] if len(parts) == 1 else b"".join(parts))

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > HEAD_BYTES_MAX:
            self.refusal = self.refusal or HEAD_TOO_LARGE

    def _note_length(self, value: bytes) -> None:
        digits = value.strip()
        if len(digits) > _LENGTH_DIGITS_MAX or not digits.isdigit():
            self.refusal = self.refusal or malformed("Content-Length is not a length.")
        else:
            self._content_length = int(digits)

    def _after_upgrade(self) -> None:
        """We offer no upgrade and answer the request as if none had been asked for (RFC 9110, 7.8).

        The parser has ended the request at its headers; a body (Java's client asks for HTTP/2 with its
        first POST) is what comes next. It is taken by its length before the parser goes on.
        """
        if self.refusal is not None:
            return
        if self._chunked:
            self.refusal = malformed("An upgrade with a chunked body is not understood.")
            self.complete.pop()
        elif self._content_length:
            self._skipped = self.complete.pop()
            self._skipped_left = self._content_length
            self.reading = True

    def _take_skipped(self, request: Request, data: bytes) -> bytes:
        body = data[: self._skipped_left]
        self._skipped_left -= len(body)
        self.on_body(body)
        if not self._skipped_left:
            self.complete.append(request._replace(body=b"".join(self._parts)))
            self.reading = False
            self._skipped = None
        return data[len(body) :]
