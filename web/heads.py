"""The shards' headers as web follows them: one poller, shared by everybody who waits for a shard.

It answers three questions: has a shard applied a registry position, has its watermark passed a time, and
what time is it by the *engine's* clock. The last matters because recorded time is the engine's (LIVENESS.md
1): after a step of the system clock the two differ by as much as the step, and comparing our clock with its
watermark would let every read wait in vain or miss the newest beat. What is read from the view stands in
uptime.py and nodes.py.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import structlog
import trio

from engine.core.ports import LiveView, StoreUnavailableError
from engine.core.records import ShardHead

POLL_S = 0.01  # while somebody waits: half of this is in each reply to a session and each read
IDLE_POLL_S = 0.25  # while nobody does: keeps readiness and the clock's offset fresh
AWAY_S = 1.0  # no header read for this long: reads no longer wait for a watermark
SAMPLES_MAX = 64  # offsets kept per shard
SAME_CLOCK_MS = 1_000  # our clock ahead of the estimate by less than this is the engine's own
ESTIMATE_SLACK_MS = 10  # the estimate lags by the way from engine to store to us
_log = structlog.get_logger("web")


class _Shard:
    """What is known of one shard."""

    def __init__(self) -> None:
        self.head: ShardHead | None = None
        self.offsets: deque[float] = deque(maxlen=SAMPLES_MAX)

    def take(self, head: ShardHead, monotonic_ms: float) -> None:
        before, self.head = self.head, head
        if before is None or before.epoch != head.epoch:
            self.offsets.clear()
        elif _told_ms(head) > _told_ms(before):
            # Only a header that changed under our eyes tells the time: the one found first may be as old
            # as the engine's death. The engine's clock was at least here when we had read it.
            self.offsets.append(_told_ms(head) - monotonic_ms)


def _told_ms(head: ShardHead) -> int:
    return head.wall_ms or head.watermark_ms


class Heads:
    """Follows the headers of all shards. `run` must be running for anything to move."""

    def __init__(self, live: LiveView, *, shards: int, clock: Callable[[], int]) -> None:
        self._live = live
        self._clock = clock
        self._shards = {shard: _Shard() for shard in range(shards)}
        self._waiters: set[_Waiter] = set()
        self._wanted = trio.Event()
        self._read_at = -math.inf
        self._reads = self._failures = self._timeouts = 0
        self._away = False

    async def run(self) -> None:
        """Poll for ever. The view being away is an operating state, not an end."""
        while True:
            await self._poll()
            if self._waiters:
                await trio.sleep(POLL_S)
                continue
            self._wanted = trio.Event()
            with trio.move_on_after(IDLE_POLL_S):
                await self._wanted.wait()

    async def _poll(self) -> None:
        try:
            heads = await self._live.heads()
        except StoreUnavailableError as error:
            self._failures += 1
            if not self._away:
                self._away = True
                _log.warning("live_view_away", error=str(error))
            return
        self._reads += 1
        self._read_at = trio.current_time()
        if self._away:
            self._away = False
            _log.info("live_view_back")
        for number, shard in self._shards.items():
            head = heads.get(number)
            if head is not None and head.shards == len(self._shards):
                shard.take(head, self._read_at * 1000)
        for waiter in list(self._waiters):
            waiter.look(self._shards[waiter.shard].head)

    @property
    def away(self) -> bool:
        """No header could be read for a while: the live view is not there."""
        return trio.current_time() - self._read_at > AWAY_S

    def head(self, shard: int) -> ShardHead | None:
        """The header read last."""
        return self._shards[shard].head

    def now_ms(self, shard: int) -> int:
        """The time by this shard's clock; our own where they agree or nothing better is known."""
        ours = self._clock()
        offsets = self._shards[shard].offsets
        if not offsets:
            return ours
        estimate = math.floor(trio.current_time() * 1000 + max(offsets))
        if 0 <= ours - estimate <= SAME_CLOCK_MS:
            return ours
        return estimate + ESTIMATE_SLACK_MS

    def recorded_now_ms(self) -> int:
        """A time that every shard's clock has reached: what is over by it is over for all."""
        return min(self.now_ms(shard) for shard in self._shards)

    def watermark_age_ms(self, shard: int) -> int | None:
        """How far the shard's watermark lies behind its clock. None: no header was ever read."""
        head = self._shards[shard].head
        return None if head is None else self.now_ms(shard) - head.watermark_ms

    async def wait_watermark(self, shard: int, at_ms: int, *, timeout_s: float) -> bool:
        """Wait until everything the shard received up to `at_ms` can be read. False: not in time.

        With the live view away for a while it does not wait at all.
        """
        if self.away and self._reads:
            return False
        return await self._wait(shard, lambda head: head.watermark_ms >= at_ms, timeout_s)

    async def wait_registry(self, shard: int, position: int, *, timeout_s: float) -> bool:
        """Wait until the shard has applied a registry position. False: not in time."""
        return await self._wait(shard, lambda head: head.registry_position >= position, timeout_s)

    async def _wait(self, shard: int, ready: Callable[[ShardHead], bool], timeout_s: float) -> bool:
        waiter = _Waiter(shard, ready)
        waiter.look(self._shards[shard].head)
        self._waiters.add(waiter)
        self._wanted.set()
        try:
            with trio.move_on_after(timeout_s):
                await waiter.done.wait()
        finally:
            self._waiters.discard(waiter)
        if not waiter.done.is_set():
            self._timeouts += 1
        return waiter.done.is_set()

    def statistics(self) -> dict[str, float]:
        return {
            "waiters": len(self._waiters),
            "reads_total": self._reads,
            "failures_total": self._failures,
            "timeouts_total": self._timeouts,
        }


class _Waiter:
    """One who waits for a header that satisfies `ready`."""

    def __init__(self, shard: int, ready: Callable[[ShardHead], bool]) -> None:
        self.shard = shard
        self.done = trio.Event()
        self._ready = ready

    def look(self, head: ShardHead | None) -> None:
        if head is not None and not self.done.is_set() and self._ready(head):
            self.done.set()
