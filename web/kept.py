"""Answers for anybody, kept for a moment: whoever asks again is answered from memory, so many at most.

And how such an answer is sent: with an ETag and an age that browsers and proxies may keep it for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import trio
from quart import Response, request

from engine.core.ports import StoreUnavailableError

STALE_S_MAX = 3_600.0  # what is kept while it cannot be made anew; it says itself of when it is
T = TypeVar("T")


class _Entry(Generic[T]):
    def __init__(self) -> None:
        self.making = trio.Lock()
        self.until = 0.0
        self.value: T | None = None


class Kept(Generic[T]):
    """At most `most` values, each made anew by one at a time when it is older than `kept_s`. Of too many the
    one goes that was asked for longest ago. While a store is away an older one does, up to STALE_S_MAX."""

    def __init__(self, *, kept_s: float, most: int) -> None:
        self.kept_s = kept_s
        self._most = most
        self._entries: dict[str, _Entry[T]] = {}
        self._made = self._asked = 0

    async def of(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """The value; whatever `make` raises is kept for nobody."""
        self._asked += 1
        entry = self._entries.pop(key, None) or _Entry()
        self._entries[key] = entry  # the last one now
        if len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]
        async with entry.making:
            if entry.value is None or trio.current_time() >= entry.until:
                try:
                    entry.value = await make()
                except StoreUnavailableError:
                    if entry.value is None or trio.current_time() >= entry.until + STALE_S_MAX:
                        raise
                    return entry.value
                entry.until = trio.current_time() + self.kept_s
                self._made += 1
            return entry.value

    def statistics(self) -> dict[str, float]:
        return {"kept": len(self._entries), "made_total": self._made, "asked_total": self._asked}


def for_anybody(
    body: bytes,
    status: int = 200,
    *,
    content_type: str,
    age_s: float,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer that says the same to everybody; 304 to who has it already."""
    etag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    told = {**(headers or {}), "etag": etag, "cache-control": f"public, max-age={int(age_s)}"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if status == 200 and etag in known:
        return Response(b"", 304, told, content_type=content_type)
    return Response(body, status, told, content_type=content_type)
