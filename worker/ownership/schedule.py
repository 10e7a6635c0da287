"""When collections are looked at: each every `poll_s`, everything once a night, after a failure with backoff.

Any number of workers may do this: one at a time looks at a collection (InventorySync.holding). What a look is
stands in looks.py. One collection's trouble, a bug included, is written into it and is nobody else's.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import structlog
import trio

from engine.core.inventory import Collection, InventorySync, PassOvertakenError
from engine.core.ports import StoreUnavailableError
from worker.outage import OUTAGE_POLL_S, Outage
from worker.ownership.graphql import GraphAwayError, GraphClient, GraphError
from worker.ownership.looks import Looker, patience_s
from worker.settings import OwnershipSettings

TICK_S = 5.0  # how often it is asked what is due
RETRY_S_MIN, RETRY_S_MAX = 30.0, 900.0
SWEEP_RETRY_S = 3_600.0  # until a full pass that failed is tried again
_DAY_MS, _HOUR_MS = 86_400_000, 3_600_000

log = structlog.get_logger()


class OwnershipStatistics(msgspec.Struct, frozen=True):
    """`oldest_age_seconds`: since the last block read of the collection that is furthest behind; those never
    read count since they were made. `failing`: collections whose last look failed."""

    collections: int
    failing: int
    oldest_age_seconds: float
    looks_total: int
    full_passes_total: int
    failures_total: int
    queries_total: int
    changes_total: int
    store_away: int


class Ownership:
    """The task. `reported` hears of bugs, with the collection's id."""

    def __init__(
        self,
        *,
        sync: InventorySync,
        client: GraphClient,
        settings: OwnershipSettings,
        now_ms: Callable[[], int],
        reported: Callable[[Exception, str], None],
        tick_s: float = TICK_S,
        retry_s: Callable[[int], float] | None = None,
        patience_s: Callable[[int], float] = patience_s,
    ) -> None:
        """`retry_s`: how long to wait after so many failures in a row; `backoff_s` if not given.

        `patience_s`: how long a look may take that has read so many items.
        """
        self._sync = sync
        self._client = client
        self._settings = settings
        self._now_ms = now_ms
        self._reported = reported
        self._tick_s = tick_s
        self._retry_s = retry_s or backoff_s
        self._looker = Looker(
            client=client, sync=sync, settings=settings, now_ms=now_ms, patience_s=patience_s
        )
        self._places = trio.Semaphore(settings.concurrency_max)
        self._in_hand: set[str] = set()  # collections that are looked at, or wait for a place
        self._failures: dict[str, int] = {}  # in a row, of living collections
        self._not_before: dict[str, float] = {}  # trio time
        self._sweep_not_before: dict[str, float] = {}  # trio time
        self._collections: list[Collection] = []
        self._outage = Outage("ownership")
        self._looks = self._full_passes = self._failed = self._changes = 0

    async def run(self) -> None:
        """Until cancelled. Postgres being away is waited for; no look waits for another one's end."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await self._begin(nursery, self._outage.began)
                    self._outage.over()
                except StoreUnavailableError as error:
                    self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S if self._outage.away else self._tick_s)

    async def run_once(self) -> None:
        """Look at all that is due, and wait for all of it. StoreUnavailableError."""
        away: list[StoreUnavailableError] = []
        async with trio.open_nursery() as nursery:
            await self._begin(nursery, away.append)
        if away:
            raise away[0]

    async def _begin(self, nursery: trio.Nursery, away: Callable[[StoreUnavailableError], None]) -> None:
        """Begin to look at all that is due and not in hand, some at a time; `away` hears of the store."""
        self._collections = await self._sync.living()
        ids = {collection.collection_id for collection in self._collections}
        for remembered in (self._failures, self._not_before, self._sweep_not_before):
            for gone in remembered.keys() - ids:
                del remembered[gone]

        async def look(collection_id: str) -> None:
            try:
                async with self._places:
                    await self._look_alone(collection_id)
            except StoreUnavailableError as error:
                away(error)
            finally:
                self._in_hand.discard(collection_id)

        for collection in self._collections:
            if self._is_due(collection) and collection.collection_id not in self._in_hand:
                self._in_hand.add(collection.collection_id)
                nursery.start_soon(look, collection.collection_id)

    def statistics(self) -> OwnershipStatistics:
        now_ms = self._now_ms()
        oldest = min(
            (each.created_ms if each.block_ms is None else each.block_ms for each in self._collections),
            default=now_ms,
        )
        return OwnershipStatistics(
            collections=len(self._collections),
            failing=sum(1 for each in self._collections if each.sync_error),
            oldest_age_seconds=max(0, now_ms - oldest) / 1000,
            looks_total=self._looks,
            full_passes_total=self._full_passes,
            failures_total=self._failed,
            queries_total=self._client.queries,
            changes_total=self._changes,
            store_away=int(self._outage.away),
        )

    def _is_due(self, collection: Collection) -> bool:
        if trio.current_time() < self._not_before.get(collection.collection_id, 0.0):
            return False
        return (
            collection.checked_ms is None
            or self._now_ms() - collection.checked_ms >= self._settings.poll_s * 1000
        )

    async def _look_alone(self, collection_id: str) -> None:
        async with self._sync.holding(collection_id) as held:
            if not held:
                return  # another worker looks
            now = {each.collection_id: each for each in await self._sync.living()}
            collection = now.get(collection_id)
            if collection is not None and self._is_due(collection):
                await self._look(collection)

    async def _look(self, collection: Collection) -> None:
        key = collection.collection_id
        whole = collection.synced_block is None or self._may_sweep(collection)
        try:
            applied = await self._looker.look(collection, whole=whole)
        except GraphError as error:
            if whole:
                self._sweep_not_before[key] = trio.current_time() + SWEEP_RETRY_S
            asked_s = error.retry_after_s if isinstance(error, GraphAwayError) else None
            await self._fail(key, str(error), retry_after_s=asked_s)
        except PassOvertakenError:
            log.info("ownership.overtaken", collection_id=key)
        except StoreUnavailableError:
            raise
        except Exception as error:
            log.exception("ownership.crashed", collection_id=key)
            self._reported(error, key)
            await self._fail(key, f"internal error: {type(error).__name__}")
        else:
            self._looks += 1
            self._full_passes += whole
            self._changes += applied.added + applied.changed + applied.gone
            self._failures.pop(key, None)

    def _may_sweep(self, collection: Collection) -> bool:
        """A full pass that fails keeps nobody from seeing what changed, and is not paid for at each look."""
        if trio.current_time() < self._sweep_not_before.get(collection.collection_id, 0.0):
            return False
        return sweep_is_due(collection, self._now_ms(), self._settings.nightly_hour_utc)

    async def _fail(self, key: str, text: str, *, retry_after_s: float | None = None) -> None:
        self._failed += 1
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        wait_s = max(self._retry_s(failures) * (1 + 0.2 * random.random()), retry_after_s or 0.0)
        self._not_before[key] = trio.current_time() + wait_s
        log.warning("ownership.failed", collection_id=key, error=text, failures=failures, retry_in_s=wait_s)
        await self._sync.failed(key, text)


def backoff_s(failures: int) -> float:
    """How long to leave a collection alone after so many failures in a row (1 = the first)."""
    return min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(failures - 1, 16))


def sweep_is_due(collection: Collection, now_ms: int, hour_utc: int) -> bool:
    """Whether the last full pass was before the last night's hour."""
    night_ms = now_ms // _DAY_MS * _DAY_MS + hour_utc * _HOUR_MS
    if night_ms > now_ms:
        night_ms -= _DAY_MS
    return collection.swept_ms is None or collection.swept_ms < night_ms
