"""Bodies on disk: what routes take that are given more than memory should hold.

The guard fills a spool before Quart is called, as it does with every body, but only for callers who may do
what the route does; the handler reads it as a file. Short bodies never touch the disk. Which routes spool is
stated with the route (routing.py).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import IO, Any

import trio
from quart import request

from engine.core.ports import StoreUnavailableError
from web.problems import unavailable

SPOOL = "nodepulse.spool"  # where the spooled body is left in the ASGI scope
MEMORY_BYTES = 1024 * 1024  # of one body; a longer one goes to a file
PIECE_BYTES = 1024 * 1024  # written at once, in a thread
Scope = MutableMapping[str, Any]


class Spool:
    """One body. `write` until it is whole, then `end`; `close` when nobody reads it any more."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - closed by its owner
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._piece = bytearray()

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    async def write(self, chunk: bytes) -> None:
        """OSError when the disk is full."""
        self._piece += chunk
        self.bytes += len(chunk)
        if len(self._piece) >= PIECE_BYTES:
            await self._flush()

    async def end(self) -> None:
        """All is there: the file stands at its beginning."""
        await self._flush()
        self.file.seek(0)

    async def _flush(self) -> None:
        piece, self._piece = self._piece, bytearray()
        if len(piece) < PIECE_BYTES:
            self.put(piece)  # what is short is not worth a thread
        else:
            await trio.to_thread.run_sync(partial(self.put, piece))

    def put(self, piece: bytes | bytearray) -> None:
        """At once, for who is in a thread; it is not counted with all that is spooled."""
        self._hash.update(piece)
        self.file.write(piece)

    def close(self) -> None:
        self.file.close()


class Spools:
    """All spools of a process, with their bounds."""

    def __init__(
        self,
        routes: list[tuple[str, re.Pattern[str]]],
        *,
        bytes_max: int,
        all_bytes_max: int,
        s_max: float,
        admit: Callable[[Scope], Awaitable[None]],
    ) -> None:
        """`routes`: (method, pattern of the path). `bytes_max`: of one body, `all_bytes_max`: of all at once.

        `admit`: RefusedError for a caller whose body need not be read.
        """
        self._routes = routes
        self.bytes_max = bytes_max
        self.s_max = s_max
        self._all_bytes_max = all_bytes_max
        self._admit = admit
        self._bytes = 0

    def open(self, method: str, path: str) -> Spool | None:
        """A new one for a request that goes to one of the routes."""
        taken = any(method == each and pattern.fullmatch(path) for each, pattern in self._routes)
        return Spool() if taken else None

    async def admit(self, scope: Scope) -> None:
        """RefusedError 401, 403, 429, 503."""
        try:
            await self._admit(scope)
        except StoreUnavailableError as error:
            raise unavailable("a store is away") from error

    async def write(self, spool: Spool, chunk: bytes) -> None:
        """RefusedError 503 when there is no room."""
        if self._bytes + len(chunk) > self._all_bytes_max:
            raise unavailable("too many large requests at once")
        self._bytes += len(chunk)
        try:
            await spool.write(chunk)
        except OSError as error:
            raise unavailable("the disk for long requests is full") from error

    def close(self, spool: Spool) -> None:
        self._bytes -= spool.bytes
        spool.close()

    def statistics(self) -> dict[str, float]:
        return {"spooled_bytes": self._bytes}


def spooled_body() -> Spool:
    """The present request's body, on a route that spools."""
    spool = request.scope[SPOOL]  # type: ignore[literal-required]
    assert isinstance(spool, Spool)
    return spool
