"""The one clock of an engine process (LIVENESS.md 1). Nothing else in the engine reads a clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from engine.core.clockwork import first_wall_ms, slewed, stepped
from engine.journal_blocks import Tick

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ClockStatistics(NamedTuple):
    offset_error_ms: float  # recorded time minus the system's clock
    stepped: bool


class Clock:
    """Wall time as recorded: monotonic plus an offset that is slewed by at most 1 ms per second."""

    def __init__(
        self, last: Tick | None = None, *, not_before_ms: int | None = None, ahead_ms: int = 0
    ) -> None:
        """Goes on from the last tick of the life before; `not_before_ms` is the last time it recorded.

        `ahead_ms`: how far ahead of the system's clock the whole installation runs.
        """
        self._ahead_ms = ahead_ms
        self.boot_id = boot_id()
        monotonic = time.monotonic_ns()
        system = self._system_ms()
        elapsed = None
        if last is not None and last.boot_id == self.boot_id:
            elapsed = max(0, (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - last.boottime_ns) // 1_000_000)
        start = first_wall_ms(
            system_ms=system, last_ms=last.wall_ms if last is not None else None, elapsed_ms=elapsed
        )
        self._offset_ms = max(start, not_before_ms or 0) - monotonic / 1e6
        self._slewed_at_ns = monotonic
        self._told_ms = 0
        self.stepped = False

    def now_ms(self) -> int:
        """Recorded unix milliseconds. Never runs back: slewed back it stands still for a moment."""
        now_ms = int(time.monotonic_ns() / 1e6 + self._offset_ms)
        if now_ms > self._told_ms:
            self._told_ms = now_ms
        return self._told_ms

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def slew(self) -> bool:
        """Move towards the system's clock; call about once a second. True when a step is first seen."""
        monotonic = time.monotonic_ns()
        target = time.time_ns() / 1e6 + self._ahead_ms - monotonic / 1e6
        elapsed = (monotonic - self._slewed_at_ns) / 1e6
        self._slewed_at_ns = monotonic
        was, self.stepped = self.stepped, stepped(self._offset_ms, target_ms=target)
        self._offset_ms = slewed(self._offset_ms, target_ms=target, elapsed_ms=elapsed)
        return self.stepped and not was

    def tick(self) -> Tick:
        """A reading for the journal, from which a restart goes on."""
        return Tick(
            wall_ms=self.now_ms(),
            boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            boot_id=self.boot_id,
        )

    def statistics(self) -> ClockStatistics:
        error_ms = self.now_ms() - time.time_ns() / 1e6 - self._ahead_ms
        return ClockStatistics(error_ms, self.stepped)

    def _system_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms


def boot_id() -> str:
    """This boot of the machine; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except FileNotFoundError:
        return ""
