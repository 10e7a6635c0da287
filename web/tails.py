"""The live end of the event feed: wakes streams when something was announced, and reads once for all of them.

History is the record; the announcement in the live view is only a hint and may come before the rows are
committed or be lost with the view, so the bell also rings once a second. Streams that may see the same and
stand at the same cursor share one query per ring. What a stream does not tell is gone through once: it then
stands where history ended, or one that waits for what never comes would read the whole past at each ring.
How a stream looks on the wire stands in stream.py.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from engine.core.fleet import EventFilter, Fleet, Sight
from engine.core.ports import LiveView, StoreUnavailableError
from engine.core.records import Event

RING_S = 1.0  # the longest an announced event can stay unnoticed
PAGE = 200  # events read at a time
SHARED_MAX = 256  # pages kept for one ring


class Page(NamedTuple):
    """`after`: from where to go on."""

    events: list[tuple[int, Event]]
    after: int


class TooManyStreamsError(Exception):
    """`sse_streams_max` streams are open."""


class Tails:
    """One bell and one memory of pages for all streams."""

    def __init__(self, live: LiveView, fleet: Fleet, *, streams_max: int) -> None:
        self._live = live
        self._fleet = fleet
        self._streams_max = streams_max
        self._bell = trio.Event()
        self._pages: dict[tuple[Sight, EventFilter, int], Page] = {}
        self._newest: int | None = None  # cursor of all history, some time after the last ring
        self._reading = trio.Lock()
        self._open = self._rings = self._reads = 0
        self.closing = False

    async def run(self) -> None:
        """Ring for ever: at each announcement, and at least every RING_S."""
        while True:
            began = trio.current_time()
            try:
                await self._live.wait_events(RING_S)
            except StoreUnavailableError:
                # Heads tells and counts that the view is away; here it only means to poll.
                await trio.sleep(max(0.0, began + RING_S - trio.current_time()))
            self.ring()

    def ring(self) -> None:
        self._rings += 1
        self._pages.clear()
        self._newest = None
        bell, self._bell = self._bell, trio.Event()
        bell.set()

    def close(self) -> None:
        """End all streams, and let none begin."""
        self.closing = True
        self.ring()

    @property
    def bell(self) -> trio.Event:
        """Set at the next ring. Take it before reading, wait for it after: no ring is missed in between."""
        return self._bell

    async def read(self, sight: Sight, which: EventFilter, after: int) -> Page:
        """Events after a cursor, at most PAGE of them; shared with other streams until the next ring."""
        key = (sight, which, after)
        if key not in self._pages:
            # One at a time: after a ring a thousand streams may come at once, most with the same question.
            async with self._reading:
                if key not in self._pages:
                    rings = self._rings
                    page = await self._read(sight, which, after)
                    self._reads += 1
                    if rings != self._rings or len(self._pages) >= SHARED_MAX:
                        return page  # from before the last ring, or one too many to keep
                    self._pages[key] = page
        return self._pages[key]

    async def _read(self, sight: Sight, which: EventFilter, after: int) -> Page:
        if self._newest is None:
            self._newest = await self._fleet.newest_cursor()
        newest = self._newest  # before the page, which so has all there is up to it, unless it is full
        events = await self._fleet.events(sight, which, after=after, limit=PAGE)
        last = events[-1][0] if events else after
        return Page(events, last if len(events) == PAGE else max(last, newest))

    def enter(self) -> None:
        """Count a stream in. TooManyStreamsError."""
        if self.closing or self._open >= self._streams_max:
            raise TooManyStreamsError
        self._open += 1

    def leave(self) -> None:
        self._open -= 1

    def statistics(self) -> dict[str, float]:
        return {"open": self._open, "rings_total": self._rings, "reads_total": self._reads}
