"""One POST of which only the status counts, on a connection of its own: what webhooks are sent with.

A thousand notices a second are a thousand of these, and a whole HTTP client costs a millisecond of processor
each, four times this. The rules are guarded.py's: the host is resolved once, every address it resolves to is
checked, the connection goes to those addresses; no redirects, no proxies, nothing kept. Bounds on time are
the caller's.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Mapping

import trio

from worker.addresses import resolve
from worker.guarded import CONNECT_TIMEOUT_S, checked_url

HEAD_BYTES_MAX = 65_536  # of an answer's header
UNDERWAY_MAX = 8  # answers before the answer (1xx)
BODY_BYTES_MAX = 16_384  # a longer answer is not read at all
BODY_S_MAX = 1.0
_CHUNK_BYTES = 16_384
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(rb"\r?\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r?\n", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")
_END_BYTES_MAX = 4


class PostError(Exception):
    """No answer was had; the text says why, for people."""


class _NotConnectedError(Exception):
    """Nothing was sent: another address may do."""


async def post(
    target: str, *, content: bytes, headers: Mapping[str, str], allow_private: bool, tls: ssl.SSLContext
) -> int:
    """The status. BadUrlError, AddressRefusedError, PostError. `headers`: without host and length."""
    url = checked_url(target)
    host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
    lines = [
        f"POST {url.raw_path.decode('ascii')} HTTP/1.1",
        f"host: {url.netloc.decode('ascii')}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"content-length: {len(content)}",
        "connection: close",
    ]
    request = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + content
    failed = ""
    for address in await resolve(host, port, allow_private=allow_private):
        try:
            stream = await _connect(address, port)
        except _NotConnectedError as error:
            failed = str(error)
            continue
        try:
            return await _exchange(stream, request, tls if url.scheme == "https" else None, host)
        except (trio.BrokenResourceError, OSError) as error:
            raise PostError(f"the connection broke: {_cause(error)}") from error
    raise PostError(f"cannot connect: {failed}")


async def _connect(address: str, port: int) -> trio.SocketStream:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            await made.connect((address, port))
    except (OSError, trio.TooSlowError) as error:
        made.close()
        raise _NotConnectedError(_cause(error)) from error
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


async def _exchange(
    connection: trio.SocketStream, request: bytes, tls: ssl.SSLContext | None, host: str
) -> int:
    stream: trio.abc.Stream = connection
    try:
        if tls is not None:
            # The certificate is checked against the name, although the address is what we connected to.
            stream = trio.SSLStream(connection, tls, server_hostname=host, https_compatible=True)
        await stream.send_all(request)
        return await _read_status(stream)
    finally:
        # Hard: a farewell would wait for a stranger.
        connection.socket.close()


async def _read_status(stream: trio.abc.Stream) -> int:
    data = bytearray()
    for _ in range(UNDERWAY_MAX + 1):
        head = await _read_head(stream, data)
        status = _STATUS.match(head)
        if status is None:
            raise PostError("it does not speak HTTP/1.1")
        if not status[1].startswith(b"1"):  # after those that are only underway
            await _drain(stream, head, len(data))
            return int(status[1])
    raise PostError("it only says that it is underway")


async def _read_head(stream: trio.abc.Stream, data: bytearray) -> bytes:
    """The next header, taken off the front of `data`, which is filled as need be."""
    looked_at = 0
    while (end := _END.search(data, max(0, looked_at - _END_BYTES_MAX))) is None:
        looked_at = len(data)  # a header that comes byte by byte is not looked through at each of them
        chunk = await stream.receive_some(_CHUNK_BYTES)
        if not chunk:
            raise PostError("it ended without an answer")
        data += chunk
        if len(data) > HEAD_BYTES_MAX:
            raise PostError("the answer's header is too long")
    head = bytes(data[: end.end()])
    del data[: end.end()]
    return head


async def _drain(stream: trio.abc.Stream, head: bytes, have: int) -> None:
    """Let an honest receiver finish a short answer; the status is in hand and nothing here can change it."""
    found = _LENGTH.search(head)
    length = int(found[1]) if found else 0
    if length > BODY_BYTES_MAX:
        return
    with trio.move_on_after(BODY_S_MAX):
        while have < length:
            try:
                chunk = await stream.receive_some(_CHUNK_BYTES)
            except (trio.BrokenResourceError, OSError):
                return
            if not chunk:
                return
            have += len(chunk)


def _cause(error: BaseException) -> str:
    """The innermost reason, in the system's words."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # its own text names the address
    return "timed out" if isinstance(error, trio.TooSlowError) else str(error) or type(error).__name__
