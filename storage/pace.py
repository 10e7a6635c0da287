"""Not more than so many starts in any second: how those who ask side by side keep a server's limit."""

from __future__ import annotations

from collections import deque

import trio

SECOND_S = 1.05  # a little more than the server's: requests may draw together on their way


class Pace:
    """`wait` before each request. Waiters go in the order in which they came."""

    def __init__(self, *, per_s: int) -> None:
        self._starts: deque[float] = deque(maxlen=per_s)
        self._turn = trio.StrictFIFOLock()
        self._held_until = 0.0

    async def wait(self) -> None:
        """Return when one more request may be sent."""
        async with self._turn:
            while (at := self._free_at()) > trio.current_time():  # noqa: ASYNC110 - time is what it waits for
                await trio.sleep_until(at)
            self._starts.append(trio.current_time())

    def hold(self, seconds: float) -> None:
        """Let nobody go for so long: the server said that it is too much."""
        self._held_until = max(self._held_until, trio.current_time() + seconds)

    def _free_at(self) -> float:
        full = len(self._starts) == self._starts.maxlen
        return max(self._held_until, self._starts[0] + SECOND_S if full else 0.0)
