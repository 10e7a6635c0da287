"""Seals days: every few seconds it looks which are due, and seals them one after the other, oldest first.

Any number of workers may do this at once: the store lets one at a time write. What a seal is made of is
seal_day.py's. A day that cannot be sealed yet is looked at again, and why is told once per change.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import structlog
import trio

from engine.core.ports import StoreUnavailableError
from engine.core.sealed import DAY_MS, Seal
from engine.core.sealing import Due, NotYetError, kept_back_by
from engine.core.uptime_source import UptimeSource
from worker.outage import OUTAGE_POLL_S, Outage
from worker.seal_day import DaySealer, SealStores

POLL_S = 5.0

log = structlog.get_logger()


class SealerStatistics(msgspec.Struct, frozen=True):
    """`last_day_ms`: the beginning of the newest day that this worker sealed; 0: none. `waiting`: days that
    are over and cannot be sealed yet, by the reason. `seconds`: how long the last seal took."""

    sealed_total: int
    rows_total: int
    last_day_ms: int
    seconds: float
    waiting: dict[str, float]
    store_away: int


class Sealer:
    """The actor. `after_ms`: how long after midnight a day is sealed at the earliest."""

    def __init__(
        self,
        stores: SealStores,
        *,
        shards: int,
        source: UptimeSource | None,
        now_ms: Callable[[], int],
        after_ms: int,
    ) -> None:
        self._stores, self._source = stores, source
        self._shards, self._now_ms, self._after_ms = shards, now_ms, after_ms
        self._outage = Outage("sealer")
        self._waiting: dict[str, str] = {}  # by project and day, why
        self._sealed = self._rows = self._last_day_ms = 0
        self._seconds = 0.0

    async def run(self) -> None:
        """Until cancelled. Stores being away is waited for."""
        cleared = False
        while True:
            try:
                if not cleared:
                    await self._stores.sealing.clear()
                    cleared = True
                await self.run_once()
                self._outage.over()
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
                continue
            await trio.sleep(POLL_S)

    async def run_once(self) -> list[Seal]:
        """Seal all that can be sealed now. StoreUnavailableError."""
        sealed: list[Seal] = []
        waiting: dict[str, str] = {}
        while due := [each for each in await self._due() if _name(each) not in waiting]:
            watermarks = await self._stores.sealing.watermarks()
            leases_ms = await self._stores.leases.decided_ms(shards=self._shards)
            heads = await self._stores.live.heads()
            for each in due:
                reason = kept_back_by(
                    end_ms=each.end_ms,
                    after_ms=self._after_ms,
                    shards=self._shards,
                    watermarks=watermarks,
                    leases_ms=leases_ms,
                    heads=heads,
                )
                if reason is None:
                    reason = await self._seal(each, sealed)
                if reason is not None:
                    waiting[_name(each)] = reason
        self._tell(waiting)
        return sealed

    async def _due(self) -> list[Due]:
        """Days that are over by our clock; whether they are over for every shard is looked at for each."""
        return await self._stores.sealing.due(before_ms=self._now_ms() // DAY_MS * DAY_MS)

    async def _seal(self, due: Due, sealed: list[Seal]) -> str | None:
        """Why not; None when it was done."""
        began = time.monotonic()
        sealer = DaySealer(self._stores, due, shards=self._shards, source=self._source, now_ms=self._now_ms)
        try:
            seal = await sealer.run()
        except NotYetError as error:
            return str(error)
        if seal is None:
            return "another worker seals"
        sealed.append(seal)
        self._seconds = time.monotonic() - began
        self._sealed += 1
        self._rows += seal.rows
        self._last_day_ms = max(self._last_day_ms, due.day_ms)
        log.info(
            "day.sealed",
            project=seal.project,
            day=seal.day,
            revision=seal.revision,
            rows=seal.rows,
            root=seal.root.hex(),
            seconds=round(self._seconds, 3),
        )
        return None

    def _tell(self, waiting: dict[str, str]) -> None:
        for name, reason in waiting.items():
            if self._waiting.get(name) != reason:
                log.warning("seal.waits", day=name, reason=reason)
        self._waiting = waiting

    def statistics(self) -> SealerStatistics:
        reasons: dict[str, float] = {}
        for reason in self._waiting.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        return SealerStatistics(
            sealed_total=self._sealed,
            rows_total=self._rows,
            last_day_ms=self._last_day_ms,
            seconds=self._seconds,
            waiting=reasons,
            store_away=int(self._outage.away),
        )

    def waiting_for(self) -> dict[str, str]:
        """Why days are not sealed that could be, by project and day."""
        return dict(self._waiting)


def _name(due: Due) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(due.day_ms / 1000))
    return f"{due.project} {day}" + (f" correction {due.correction_id}" if due.correction_id else "")
