"""One request over HTTP or HTTPS, blocking, bounded in time and size; the standard library only."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

REPLY_BYTES_MAX = 65_536


class PostFailedError(Exception):
    """No whole reply came: refused, unreachable, too slow, too long, or not HTTP."""


class Reply(NamedTuple):
    status: int
    body: bytes
    retry_after: str | None


def trusting(ca_file: str) -> ssl.SSLContext | None:
    """The certificates of a file to trust instead of the system's; None for "". OSError."""
    return ssl.create_default_context(cafile=ca_file) if ca_file else None


def _connect(url: str, timeout_s: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = tls or ssl.create_default_context()
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_s, context=context
        )
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    raise ValueError(f"neither http nor https: {url!r}")


def _read(response: http.client.HTTPResponse, until: float, bytes_max: int) -> bytes:
    body = b""
    while chunk := response.read1(REPLY_BYTES_MAX):
        body += chunk
        if len(body) > bytes_max:
            raise PostFailedError(f"the reply is longer than {bytes_max} bytes")
        if time.monotonic() > until:
            raise PostFailedError("the reply was not whole in time")
    if response.length:
        raise PostFailedError(f"the reply ended {response.length} bytes too soon")
    return body


def post(
    url: str, body: bytes, *, content_type: str, timeout_s: float, tls: ssl.SSLContext | None = None
) -> Reply:
    """POST `body`; any status is a reply, redirects included. PostFailedError; ValueError for a bad URL."""
    return exchange("POST", url, body, headers={"Content-Type": content_type}, timeout_s=timeout_s, tls=tls)


def exchange(
    method: str,
    url: str,
    body: bytes | None,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
    reply_bytes_max: int = REPLY_BYTES_MAX,
) -> Reply:
    """One request on a connection of its own. As `post`."""
    until = time.monotonic() + timeout_s
    connection = _connect(url, timeout_s, tls)
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, body, {**headers, "Connection": "close"})
        response = connection.getresponse()
        whole = _read(response, until, reply_bytes_max)
        return Reply(response.status, whole, response.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException) as error:
        raise PostFailedError(str(error) or type(error).__name__) from error
    finally:
        connection.close()
