"""The notifier actor: one across all shards. Reads events by cursor, decides who is told, fills the outbox.

`decide` is pure and is the only place that says which event becomes which notice; `Notifier` reads, asks it
and commits deliveries and cursor together. Sending is deliveries.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from engine.core.news import notice_of
from engine.core.outbox import Channel, Outbox
from engine.core.ports import History, LiveView, StoreUnavailableError
from engine.core.records import Event
from worker.outage import OUTAGE_POLL_S, Outage

# A node that was stopped in order alarms nobody (LIVENESS.md 4).
TOLD_KINDS: frozenset[str] = frozenset(
    {"node.down", "node.up", "workload.down", "workload.up", "workload.below_minimum"}
)
STANDBY_POLL_S = 1.0  # how often a process that is not the notifier asks whether it may be

log = structlog.get_logger()


def decide(event: Event, channels: Sequence[Channel]) -> list[tuple[Event, Channel]]:
    """The notices that follow from an event: one per channel of its project that takes its kind, or none.

    A silent node is one event that names its workloads, so it is one notice.
    """
    if event.kind not in TOLD_KINDS or event.project_id is None:
        return []
    return [
        (event, channel)
        for channel in channels
        if channel.project_id == event.project_id
        and (not channel.event_kinds or event.kind in channel.event_kinds)
    ]


class NotifierStatistics(msgspec.Struct, frozen=True):
    """`active` is 1 in the one process that holds the lock; `store_away` 1 while Postgres is."""

    active: int
    store_away: int
    cursor: int
    events_total: int
    notices_total: int
    outages_total: int


class Notifier:
    """The actor. `batch_max` events are read and decided in one transaction."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        history: History,
        live: LiveView,
        now_ms: Callable[[], int],
        batch_max: int,
        poll_s: float,
        decided: Callable[[], None] = lambda: None,
    ) -> None:
        """`decided` is called after each commit that wrote notices: a hint for those who send."""
        self._outbox = outbox
        self._history = history
        self._live = live
        self._now_ms = now_ms
        self._batch_max = batch_max
        self._poll_s = poll_s
        self._decided = decided
        self._active = False
        self._outage = Outage("notifier")
        self._cursor = 0
        self._events = 0
        self._notices = 0

    async def run(self) -> None:
        """Until cancelled. Postgres or Redis being away is waited for; anything else escapes."""
        while True:
            try:
                active = await self._outbox.take_notifier_lock()
                self._note_active(active)
                taken = await self.run_once() if active else 0
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
                continue
            if not active:
                await trio.sleep(STANDBY_POLL_S)
            elif taken < self._batch_max:
                await self._wait_for_events()

    async def run_once(self) -> int:
        """Decide one batch; how many events it had. Needs the notifier lock. StoreUnavailableError.

        The cursor is read from the store each time: another process may have been the notifier meanwhile,
        and after an outage nobody knows whether the last commit took place.
        """
        cursor = await self._outbox.notifier_cursor()
        self._cursor = cursor
        page = await self._history.events(project_id=None, after=cursor, limit=self._batch_max)
        if not page:
            return 0
        channels: dict[str, list[Channel]] = {}
        notices: list[tuple[Event, Channel]] = []
        for _, event in page:
            if event.project_id is None:
                continue
            if event.project_id not in channels:
                channels[event.project_id] = await self._outbox.channels(event.project_id)
            notices += decide(event, channels[event.project_id])
        told = [(notice_of(event), channel) for event, channel in notices]
        await self._outbox.decide(cursor=page[-1][0], notices=told, now_ms=self._now_ms())
        self._cursor = page[-1][0]
        self._events += len(page)
        self._notices += len(notices)
        if notices:
            self._decided()
        return len(page)

    def statistics(self) -> NotifierStatistics:
        return NotifierStatistics(
            active=int(self._active),
            store_away=int(self._outage.away),
            cursor=self._cursor,
            events_total=self._events,
            notices_total=self._notices,
            outages_total=self._outage.count,
        )

    async def _wait_for_events(self) -> None:
        try:
            await self._live.wait_events(self._poll_s)
        except StoreUnavailableError:
            # The hint is only a hint (the live view's own statistics tell of Redis being away); events are
            # found by polling.
            await trio.sleep(self._poll_s)

    def _note_active(self, active: bool) -> None:
        if active != self._active:
            self._active = active
            log.info("notifier.active" if active else "notifier.standby")
