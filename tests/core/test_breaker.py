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


def test_what_was_not_released_in_an_interval_is_not_saved_up():
    releasing = Breaker("releasing", 0, released=30)
    assert step(releasing, 400, 970, INTERVAL) == releasing
    grace_over = step(releasing, 400, 970, 6 * INTERVAL)
    assert grace_over == Breaker("releasing", 6 * INTERVAL)
    silence = Silence(400, 970, INTERVAL)
    assert allowance(grace_over, silence, 6 * INTERVAL, share=SHARE) == 0
    assert allowance(grace_over, silence, 7 * INTERVAL, share=SHARE) == int(0.15 * 970)


def test_a_handful_of_rows_is_released_one_by_one_however_long_one_takes():
    few, now = Silence(2, 4, INTERVAL), 0
    breaker = Breaker("releasing", 0)
    while allowance(breaker, few, now, share=SHARE) == 0:
        now += 250
        breaker = step_breaker(breaker, few, now, rows_min=1, share=SHARE)
    assert now <= 2 * INTERVAL
