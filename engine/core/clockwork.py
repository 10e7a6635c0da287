"""How recorded time follows the system's clock (LIVENESS.md 1): slewed, never back, steps told.

Pure: the readings are arguments. `engine.clock` takes the readings.
"""

from __future__ import annotations

SLEW_MS_PER_S = 1  # at most this much is moved per second of elapsed time
STEP_MS = 1_000  # a difference above this is a step of the system's clock, not drift


def slewed(offset_ms: float, *, target_ms: float, elapsed_ms: float) -> float:
    """The new offset (wall minus monotonic), moved towards its target by at most 1 ms per second."""
    most = SLEW_MS_PER_S * elapsed_ms / 1_000
    return offset_ms + min(max(target_ms - offset_ms, -most), most)


def stepped(offset_ms: float, *, target_ms: float) -> bool:
    """Whether the system's clock differs by more than drift explains."""
    return abs(target_ms - offset_ms) > STEP_MS


def first_wall_ms(*, system_ms: int, last_ms: int | None, elapsed_ms: int | None) -> int:
    """Where recorded time begins after a restart.

    last_ms: the last recorded time. elapsed_ms: how long ago that was by the boot clock, None after a
    reboot. A forward step is adopted (it is part of the gap), a backward one is not.
    """
    if last_ms is None:
        return system_ms
    return max(system_ms, last_ms + (elapsed_ms or 0))
