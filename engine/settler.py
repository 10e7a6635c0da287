"""Has leases settled in Postgres, soon after something was said (WIRE.md: code 8 lags at most 2 s).

Every shard asks; the store lets one at a time do it. While something waits for other shards to tell how far
they are, this shard's flusher tells it more often: an idle shard must not keep others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from engine.core.leases import LeaseSettling
from engine.core.ports import StoreUnavailableError
from engine.flusher import Flusher

_EVERY_S = 0.25
_RETRY_S = 1.0


class SettlerStatistics(NamedTuple):
    says: int
    changes: int
    failures: int
    waiting: bool


class Settler:
    """One shard's."""

    def __init__(
        self,
        leases: LeaseSettling,
        flusher: Flusher,
        *,
        shards: int,
        now_ms: Callable[[], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._leases = leases
        self._flusher = flusher
        self._shards = shards
        self._now_ms = now_ms
        self._tell_failed = failed
        self._says = self._changes = self._failures = 0

    async def run(self) -> None:
        """Settle each quarter of a second until cancelled; at once again while there is more."""
        while True:
            try:
                more = await self.step()
            except StoreUnavailableError:
                await trio.sleep(_RETRY_S)
            except Exception as error:  # noqa: BLE001 - told and tried again: beats must not end with a lease
                self._failures += 1
                self._tell_failed(error)
                await trio.sleep(_RETRY_S)
            else:
                await trio.sleep(0 if more else _EVERY_S)

    async def step(self) -> bool:
        """Settle what can be; whether there was something. StoreUnavailableError."""
        done = await self._leases.settle(shards=self._shards, now_ms=self._now_ms())
        self._flusher.leases_awaited = done.waiting
        self._says += done.says
        self._changes += done.changes
        return done.says > 0

    def statistics(self) -> SettlerStatistics:
        return SettlerStatistics(self._says, self._changes, self._failures, self._flusher.leases_awaited)
