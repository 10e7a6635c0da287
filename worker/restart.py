"""Keeps a task of the worker running: one that crashes is reported and started again with backoff.

The engine has a supervisor of its own; these few long-lived tasks need no strategy, only never to die in
silence and never to spin.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
import trio

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
SETTLED_S = 60.0  # after running this long a task's next crash counts as its first

log = structlog.get_logger()


def backoff_s(crashes_in_row: int) -> float:
    """How long to wait before the next start after so many crashes in a row (1 = the first)."""
    assert crashes_in_row >= 1
    return min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(crashes_in_row - 1, 16))


class KeptTask:
    """One task, started again whenever it crashes. It ends when the task returns or is cancelled."""

    def __init__(
        self,
        name: str,
        run: Callable[[], Awaitable[None]],
        *,
        report: Callable[[Exception, str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` hears of each crash, with the task's name (Sentry)."""
        self.name = name
        self.crashes = 0
        self.running = False
        self._run = run
        self._report = report
        self._monotonic = monotonic

    async def run(self) -> None:
        in_row = 0
        while True:
            started = self._monotonic()
            self.running = True
            try:
                await self._run()
            except Exception as error:
                self.crashes += 1
                in_row = 1 if self._monotonic() - started >= SETTLED_S else in_row + 1
                wait_s = backoff_s(in_row)
                log.exception("task.crashed", task=self.name, crashes_in_row=in_row, restart_in_s=wait_s)
                self._report(error, self.name)
            else:
                return
            finally:
                self.running = False
            await trio.sleep(wait_s)
            log.info("task.restarted", task=self.name)
