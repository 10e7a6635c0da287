"""Waking trio tasks from code that may run on the host loop as well as in trio.

`reschedule`, and with it `trio.Event.set`, is only allowed inside trio's run, and a trio that sleeps does not
notice it from outside; the token is the way in (DESIGN.md, decision 1).
"""

from __future__ import annotations

import trio


class Pulse:
    """Wakes everyone who waits, and is forgotten: who waits asks for its condition itself, in a loop."""

    def __init__(self) -> None:
        self._waiting: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    def give(self) -> None:
        """Wake who waits now. From the one thread that both loops share."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and self._token is not None:
            self._token.run_sync_soon(waiting.set)

    async def wait(self) -> None:
        """Return after the next `give`."""
        if self._waiting is None:
            self._waiting, self._token = trio.Event(), trio.lowlevel.current_trio_token()
        await self._waiting.wait()
