"""The mass-silence breaker (LIVENESS.md 3)."""

from __future__ import annotations

import pytest

from engine.core.breaker import Breaker, Silence, allowance, step_breaker

MIN, SHARE, INTERVAL = 20, 0.15, 60_000


def step(breaker: Breaker, suspect: int, watched: int, now: int) -> Breaker:
    return step_breaker(breaker, Silence(suspect, watched, INTERVAL), now, rows_min=MIN, share=SHARE)


@pytest.mark.parametrize(
    ("suspect", "watched", "phase"),
    [
        (19, 20, "normal"),
        (20, 133, "degraded"),
        (20, 134, "normal"),
        (150, 1000, "normal"),
        (151, 1000, "degraded"),
    ],
)
def test_it_trips_at_twenty_rows_and_more_than_the_share(suspect: int, watched: int, phase: str):
    assert step(Breaker(), suspect, watched, 5).phase == phase


def test_it_is_over_when_the_share_is_back():
    tripped = step(Breaker(), 500, 1000, 0)
    assert step(tripped, 150, 1000, 10).phase == "normal"


def test_after_ten_intervals_verdicts_are_released_slowly():
    tripped = step(Breaker(), 500, 1000, 0)
    assert step(tripped, 500, 1000, 10 * INTERVAL - 1).phase == "degraded"
    releasing = step(tripped, 500, 1000, 10 * INTERVAL)
    assert releasing.phase == "releasing"
    silence = Silence(500, 1000, INTERVAL)
    assert allowance(releasing, silence, 10 * INTERVAL, share=SHARE) == 0
    assert allowance(releasing, silence, 11 * INTERVAL, share=SHARE) == 150
    later = releasing._replace(released=150)
    assert allowance(later, Silence(350, 850, INTERVAL), 11 * INTERVAL, share=SHARE) == 0
    assert allowance(later, Silence(350, 850, INTERVAL), 12 * INTERVAL, share=SHARE) == 150
    assert step(later, 350, 850, 12 * INTERVAL).phase == "releasing", "it does not trip again on the way"


def test_nothing_is_allowed_while_degraded_and_everything_when_not():
    silence = Silence(500, 1000, INTERVAL)
    assert allowance(Breaker("degraded", 0), silence, 10**9, share=SHARE) == 0
    assert allowance(Breaker(), silence, 0, share=SHARE) is None
