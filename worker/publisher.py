"""Publishes the statement of each seal at each configured target, at least once, however long one is away.

One loop per target, so that a slow one holds nobody back; in each the oldest seal goes first, one at a time.
Any number of workers may do this: a seal is leased, and taken over when its lease ends. Where to is
publish_targets.py's; what is due the store's.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from engine.core.ports import StoreUnavailableError
from engine.core.publication import Publications, retry_ms
from worker.guarded import GuardedClient
from worker.outage import OUTAGE_POLL_S, Outage
from worker.publish_settings import PublishSettings
from worker.publish_targets import Published, Target, UnpublishedError, targets_of

POLL_S = 2.0
LEASE_MARGIN_MS = 40_000  # beyond the longest attempt: for writing down what came of it
NOTE_CHARS_MAX = 300

log = structlog.get_logger()


class PublisherStatistics(msgspec.Struct, frozen=True):
    """By target. `failing`: 1 while the last attempt failed."""

    published_total: dict[str, float]
    failed_total: dict[str, float]
    failing: dict[str, float]
    store_away: int


class RootPublisher:
    """The actor. `now_ms`: the installation's clock, `wall_ms`: the system's."""

    def __init__(
        self,
        publications: Publications,
        settings: PublishSettings,
        *,
        now_ms: Callable[[], int],
        wall_ms: Callable[[], int],
    ) -> None:
        self._publications, self._settings = publications, settings
        self._now_ms, self._wall_ms = now_ms, wall_ms
        self._outage = Outage("publisher")
        self._published: dict[str, float] = {}
        self._failed: dict[str, float] = {}
        self._failing: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled. Stores and targets being away is waited for."""
        async with GuardedClient(user_agent="NodePulse-Roots/1") as client, trio.open_nursery() as nursery:
            targets = targets_of(self._settings, client, wall_ms=self._wall_ms)
            for name, publish in targets.items():
                for counted in (self._published, self._failed, self._failing):
                    counted.setdefault(name, 0.0)  # a series that only appears with a failure shows no rise
                nursery.start_soon(self._follow, name, publish)

    async def publish_due(self, name: str, publish: Target) -> int:
        """All that is due at a target, oldest first; how many were tried. StoreUnavailableError."""
        await self._publications.fill([name], now_ms=self._now_ms())
        tried = 0
        while await self._publish_one(name, publish):
            tried += 1
        return tried

    def statistics(self) -> PublisherStatistics:
        return PublisherStatistics(
            published_total=dict(self._published),
            failed_total=dict(self._failed),
            failing=dict(self._failing),
            store_away=int(self._outage.away),
        )

    async def _follow(self, name: str, publish: Target) -> None:
        while True:
            try:
                await self.publish_due(name, publish)
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
                continue
            await trio.sleep(POLL_S)

    async def _publish_one(self, name: str, publish: Target) -> bool:
        lease_ms = int(self._settings.timeout_s * 1_000) + LEASE_MARGIN_MS
        found = await self._publications.claim(name, now_ms=self._now_ms(), lease_ms=lease_ms)
        if found is None:
            return False
        seal, claimed = found
        told = {"target": name, "project": seal.project, "day": seal.day, "revision": seal.revision}
        try:
            with trio.fail_after(self._settings.timeout_s):
                published: Published = await publish(seal)
        except (UnpublishedError, trio.TooSlowError) as error:
            note = str(error) or f"no answer within {self._settings.timeout_s:g} s"
            now_ms = self._now_ms()
            await self._publications.failed(
                claimed,
                note=note[:NOTE_CHARS_MAX],
                due_ms=now_ms + retry_ms(claimed.attempts),
                now_ms=now_ms,
            )
            self._count(name, failed=True)
            log.warning("root.unpublished", **told, attempts=claimed.attempts, note=note)
            return True
        await self._publications.done(
            claimed, note=published.note, prepared=published.prepared, now_ms=self._now_ms()
        )
        self._count(name, failed=False)
        log.info("root.published", **told, note=published.note)
        return True

    def _count(self, name: str, *, failed: bool) -> None:
        counts = self._failed if failed else self._published
        counts[name] = counts.get(name, 0) + 1
        self._failing[name] = int(failed)
