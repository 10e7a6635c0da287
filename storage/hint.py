"""A hint that there is news, for tasks that look for themselves and only want to look at the right moment.

A task that was busy looking while the hint was given does not miss it: its next wait returns at once.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import trio


class Hint:
    """`tell` from trio (from the host through the token's run_sync_soon), `wait` in any number of tasks."""

    def __init__(self) -> None:
        self._told = 0
        self._news = trio.Event()
        self._seen: WeakKeyDictionary[trio.lowlevel.Task, int] = WeakKeyDictionary()

    def tell(self) -> None:
        self._told += 1
        self._news.set()
        self._news = trio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Return when something was told since this task's last wait (its first: since now), or in time."""
        task = trio.lowlevel.current_task()
        seen = self._seen.setdefault(task, self._told)
        with trio.move_on_after(timeout_s):
            if self._told == seen:
                await self._news.wait()
            else:
                await trio.lowlevel.checkpoint()
        self._seen[task] = self._told
