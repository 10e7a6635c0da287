"""A script: what the world does to a shard, separate from what the shard makes of it.

Everything is in true time, integer milliseconds of an imagined perfect clock. `EngineClock` says what the
engine's recorded time is then (LIVENESS.md 1). A driver feeds `arrivals` to the real table and step under a
fake clock, lets `faults` happen, and applies registry changes at the times written in `rows`; `play.py` turns
the same script into a `History` as an ideal shard would have recorded it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from tests.sim.history import Row, Via

SLEW_MS_PER_S = 1
STEP_MS = 1_000  # a difference above this is a step, adopted only at a restart and only forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Bytes that reach the shard's door at `at_ms`. Over UDP they wait in the socket while the shard is dead
    or stalled; over HTTP they wait through a stall and are lost in a crash. `sent_ms`: when the client sent
    the frame first; `note`: beat | duplicate | late | replay | aimed, for whoever reads a failing seed."""

    at_ms: int
    sent_ms: int
    row: int
    via: Via
    generation: int | None
    seq: int | None
    plane0: int
    plane1: int
    stopping: bool
    no_ack: bool
    note: str
    unknown_ids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """crash: the process dies at `from_ms` and listens again at `to_ms`; what it read in the last
    `in_flight_ms` was not synced; after a power loss what waited in the sockets is gone, too (it is not among
    the arrivals). stall: nothing is read. disk_full: read, but not written (BUSY). drops: the kernel's drop
    counter rose between two readings (most of what came then is not among the arrivals)."""

    kind: Literal["crash", "stall", "disk_full", "drops"]
    from_ms: int
    to_ms: int
    in_flight_ms: int = 0
    power_loss: bool = False
    seqs_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The host's system clock jumps by `by_ms`."""

    at_ms: int
    by_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """From `at_ms` on the largest `next_ms` told is this many thousandths of a row's interval."""

    at_ms: int
    permille: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An uptime question to be asked at the end; times in recorded time."""

    workload_id: str
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """`arrivals` are sorted by `at_ms`, `faults` by `from_ms`; faults do not overlap, but that drops may go
    with a stall. Times in `rows` are true times, but for windows, leases, claims, expiry, created and
    retired, which are records and thus in recorded time as they stand."""

    seed: int
    begin_ms: int
    end_ms: int
    drift_ppm: int
    rows: tuple[Row, ...]
    arrivals: tuple[Arrival, ...]
    faults: tuple[Fault, ...]
    clock_steps: tuple[ClockStep, ...]
    loads: tuple[Load, ...]
    questions: tuple[Question, ...]


class EngineClock:
    """Recorded time as a function of true time: the offset follows the system clock by at most 1 ms per
    second; a forward step is adopted when a crashed shard listens again."""

    def __init__(
        self,
        begin_ms: int,
        end_ms: int,
        *,
        drift_ppm: int,
        steps: tuple[ClockStep, ...],
        restarts_ms: tuple[int, ...],
    ) -> None:
        self._begin_ms, self._drift_ppm, self._steps = begin_ms, drift_ppm, steps
        moments = sorted({*range(begin_ms, end_ms + 2_000, 1_000), *restarts_ms})
        self._at: list[int] = [begin_ms]
        self._offset: list[int] = [0]
        for at_ms in moments:
            offset = self._offset[-1]
            apart = self._system_offset(at_ms) - offset
            if at_ms in restarts_ms:
                moved = apart if apart > STEP_MS else 0
            else:
                moved = max(-SLEW_MS_PER_S, min(SLEW_MS_PER_S, apart))
            if moved:
                self._at.append(at_ms)
                self._offset.append(offset + moved)

    def _system_offset(self, at_ms: int) -> int:
        drift = (at_ms - self._begin_ms) * self._drift_ppm // 1_000_000
        return drift + sum(step.by_ms for step in self._steps if step.at_ms <= at_ms)

    def recorded_ms(self, true_ms: int) -> int:
        """What the engine would write down at this true time."""
        return true_ms + self._offset[bisect_right(self._at, true_ms) - 1]


def clock_of(script: Script) -> EngineClock:
    return EngineClock(
        script.begin_ms,
        script.end_ms,
        drift_ppm=script.drift_ppm,
        steps=script.clock_steps,
        restarts_ms=tuple(f.to_ms for f in script.faults if f.kind == "crash"),
    )
