"""The notifier actor: one across all shards. Reads events by cursor and what is due, and fills the outbox.

What is decided stands in deciding/, as pure functions; the newsroom asks them within the transaction that
reads, and writes state, notices and cursor. Here is only the loop. Sending is deliveries.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import structlog
import trio

from engine.core.newsroom import Decided, Newsroom, Policy, Waiting
from engine.core.outbox import Outbox
from engine.core.ports import LiveView, StoreUnavailableError
from worker.deciding.step import step
from worker.outage import OUTAGE_POLL_S, Outage

STANDBY_POLL_S = 1.0  # how often a process that is not the notifier asks whether it may be
WAITING_S = 30.0  # how often what waits is counted, for the statistics

log = structlog.get_logger()


class NotifierStatistics(msgspec.Struct, frozen=True):
    """`active` is 1 in the one process that holds the lock; `store_away` 1 while Postgres is.

    `lag_ms`: the age of the newest event decided on while others wait behind it. `held`: things that wait to
    be told; `dropped_total`: what was not told after all, by reason.
    """

    active: int
    store_away: int
    cursor: int
    lag_ms: int
    held: int
    flapping: int
    events_total: int
    notices_total: int
    digests_total: int
    reminders_total: int
    dropped_total: dict[str, int]
    outages_total: int


class Notifier:
    """The actor. At most `batch_max` events and due items are read and decided in one transaction."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        newsroom: Newsroom,
        live: LiveView,
        policy: Policy,
        now_ms: Callable[[], int],
        batch_max: int,
        poll_s: float,
        decided: Callable[[], None] = lambda: None,
    ) -> None:
        """`decided` is called after each commit that wrote notices: a hint for those who send."""
        self._outbox = outbox
        self._newsroom = newsroom
        self._live = live
        self._policy = policy
        self._now_ms = now_ms
        self._batch_max = batch_max
        self._poll_s = poll_s
        self._decided = decided
        self._active = False
        self._outage = Outage("notifier")
        self._cursor = 0
        self._lag_ms = 0
        self._waiting = Waiting(0, 0)
        self._waiting_at = -WAITING_S
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled. Postgres or Redis being away is waited for; anything else escapes."""
        while True:
            try:
                self._note_active(await self._outbox.take_notifier_lock())
                if self._active:
                    decided = await self.run_once()
                    await self._count_waiting()
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
                continue
            if not self._active:
                await trio.sleep(STANDBY_POLL_S)
            elif not decided.more:
                await self._wait_for_events(decided.next_due_ms)

    async def run_once(self) -> Decided:
        """One step. Needs the notifier lock only for economy. StoreUnavailableError.

        The cursor and all state are read from the store each time: another process may have been the notifier
        meanwhile, and after an outage nobody knows whether the last commit took place.
        """
        decided = await self._newsroom.decide(
            step, policy=self._policy, now_ms=self._now_ms(), limit=self._batch_max
        )
        self._cursor, self._lag_ms = decided.cursor, decided.lag_ms
        for name in ("events", "notices", "digests", "reminders"):
            self._counts[name] += getattr(decided, name)
        self._dropped.update(decided.dropped)
        if decided.notices:
            self._decided()
        return decided

    def statistics(self) -> NotifierStatistics:
        return NotifierStatistics(
            active=int(self._active),
            store_away=int(self._outage.away),
            cursor=self._cursor,
            lag_ms=self._lag_ms,
            held=self._waiting.held,
            flapping=self._waiting.flapping,
            events_total=self._counts["events"],
            notices_total=self._counts["notices"],
            digests_total=self._counts["digests"],
            reminders_total=self._counts["reminders"],
            dropped_total=dict(self._dropped),
            outages_total=self._outage.count,
        )

    async def _count_waiting(self) -> None:
        if trio.current_time() >= self._waiting_at + WAITING_S:
            self._waiting_at = trio.current_time()
            self._waiting = await self._newsroom.waiting()

    async def _wait_for_events(self, next_due_ms: int | None) -> None:
        """Until something is announced or due, at most for the poll."""
        wait_s = self._poll_s
        if next_due_ms is not None:
            wait_s = min(wait_s, max(0, next_due_ms - self._now_ms()) / 1000)
        try:
            await self._live.wait_events(wait_s)
        except StoreUnavailableError:
            # The hint is only a hint (the live view's own statistics tell of Redis being away); events are
            # found by polling.
            await trio.sleep(wait_s)

    def _note_active(self, active: bool) -> None:
        if active != self._active:
            self._active = active
            log.info("notifier.active" if active else "notifier.standby")
