"""Server-sent events: the body of one stream, as an iterator that Quart sends piece by piece.

A class and not a generator: a stream that is cut off while a piece is being sent must still be counted out,
and an async generator left suspended is only cleaned up by the garbage collector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType

import msgspec
import trio
from quart.wrappers.response import ResponseBody

from engine.core.fleet import EventFilter, Sight
from engine.core.ports import StoreUnavailableError
from engine.core.records import Event
from web.event_item import answer_of
from web.tails import Page, Tails

CONTENT_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0  # a comment after so much silence, so that proxies and dead peers are noticed
RETRY_MS = 2_000  # what the client is told to wait before it comes again


class EventStream(ResponseBody):
    """Frames of one stream. Counted in on construction (TooManyStreamsError), out when it ends."""

    def __init__(
        self,
        tails: Tails,
        *,
        sight: Sight,
        which: EventFilter,
        after: int,
        still_welcome: Callable[[], Awaitable[bool]],
        named: bool = True,
    ) -> None:
        self._left = True
        tails.enter()
        self._left = False
        self._tails = tails
        self._sight = sight
        self._which = which
        self._after = after
        self._still_welcome = still_welcome
        self._named = named
        self._frames: deque[bytes] = deque([f"retry: {RETRY_MS}\n\n".encode()])
        self._spoke_at = trio.current_time()

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        self._leave()  # the client was gone before the first byte

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._tails.leave()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._frames:
            if self._tails.closing or not await self._wait():
                raise StopAsyncIteration
        self._spoke_at = trio.current_time()
        return self._frames.popleft()

    async def _wait(self) -> bool:
        """Read what is new; when nothing is, wait for the bell or for the next heartbeat. False: the end."""
        bell = self._tails.bell
        try:
            if not await self._still_welcome():
                return False
            page = await self._tails.read(self._sight, self._which, self._after)
        except StoreUnavailableError:
            page = Page([], self._after)  # told and counted where stores are watched; the stream outlives it
        self._frames.extend(frame(cursor, event, named=self._named) for cursor, event in page.events)
        self._after = page.after
        if self._frames:
            return True
        with trio.move_on_at(self._spoke_at + HEARTBEAT_S):
            await bell.wait()
        if trio.current_time() >= self._spoke_at + HEARTBEAT_S:
            self._frames.append(b": still here\n\n")
        return True


def frame(cursor: int, event: Event, *, named: bool = True) -> bytes:
    """One event: its cursor as id, its kind as name, the list's item as data."""
    data = msgspec.json.encode(answer_of(cursor, event))
    name = b"event: %s\n" % event.kind.encode() if named else b""
    return b"id: %d\n%sdata: %s\n\n" % (cursor, name, data)
