"""The mass-silence breaker: when very many fall silent at once, we suspect ourselves first (LIVENESS.md 3).

Pure: counts and the time in, the new state and what follows out. The judge asks it before every pass.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Phase = Literal["normal", "degraded", "releasing"]

DECIDED_AFTER_INTERVALS = 10


class Breaker(NamedTuple):
    """`since_ms`: when the phase began. `released`: DOWN verdicts let through in it.

    While verdicts are released both begin anew when an interval's worth was not made use of.
    """

    phase: Phase = "normal"
    since_ms: int = 0
    released: int = 0


class Silence(NamedTuple):
    """What the judge counts: rows SUSPECT, rows UP or SUSPECT, the longest interval among the SUSPECT."""

    suspect: int
    watched: int
    longest_interval_ms: int


def too_many(silence: Silence, *, rows_min: int, share: float) -> bool:
    """At least `rows_min` SUSPECT rows, and more than `share` of UP + SUSPECT."""
    return silence.suspect >= rows_min and silence.suspect > share * silence.watched


def step_breaker(breaker: Breaker, silence: Silence, now_ms: int, *, rows_min: int, share: float) -> Breaker:
    """DEGRADED begins with mass silence; it is decided when that is over or has lasted 10 intervals.

    Then verdicts are released slowly until no more than the share is SUSPECT.
    """
    many = too_many(silence, rows_min=rows_min, share=share)
    if breaker.phase == "normal":
        return Breaker("degraded", now_ms) if many else breaker
    if not many:
        return Breaker("normal", now_ms)
    decided_ms = breaker.since_ms + DECIDED_AFTER_INTERVALS * silence.longest_interval_ms
    if breaker.phase == "degraded" and now_ms >= decided_ms:
        return Breaker("releasing", now_ms)
    if breaker.phase == "releasing" and _unspent(breaker, silence, now_ms, share=share):
        return Breaker("releasing", now_ms)
    return breaker


def allowance(breaker: Breaker, silence: Silence, now_ms: int, *, share: float) -> int | None:
    """How many DOWN verdicts may be given now; None: as many as are due."""
    if breaker.phase == "normal":
        return None
    if breaker.phase == "degraded":
        return 0
    return max(0, int(_credit(breaker, silence, now_ms, share=share)))


def _credit(breaker: Breaker, silence: Silence, now_ms: int, *, share: float) -> float:
    """How many verdicts time has made room for, those let through left out."""
    intervals = (now_ms - breaker.since_ms) / max(1, silence.longest_interval_ms)
    return _per_interval(breaker, silence, share=share) * intervals - breaker.released


def _per_interval(breaker: Breaker, silence: Silence, *, share: float) -> float:
    return share * (silence.watched + breaker.released)


def _unspent(breaker: Breaker, silence: Silence, now_ms: int, *, share: float) -> bool:
    """An interval's worth was saved up, as in a grace when nobody may be judged: not all at once after it."""
    room = _per_interval(breaker, silence, share=share)
    return _credit(breaker, silence, now_ms, share=share) > max(1.0, room)
