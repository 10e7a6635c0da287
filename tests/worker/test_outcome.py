"""What follows from an attempt: the retry ladder, dead letters, 410."""

import pytest

from worker.outcome import RETRY_LADDER_MS, Outcome, Result, Step, next_step, retry_delay_ms

NOW = 1_790_000_000_000


def test_the_ladder_is_that_of_standard_webhooks():
    hours = 3_600_000
    assert [retry_delay_ms(attempt, 0.0) for attempt in range(1, 11)] == [
        5_000,
        300_000,
        1_800_000,
        2 * hours,
        5 * hours,
        10 * hours,
        14 * hours,
        20 * hours,
        24 * hours,
        24 * hours,  # beyond it the last rung repeats
    ]


@pytest.mark.parametrize("attempt", range(1, 12))
def test_jitter_only_ever_stretches_a_wait_and_by_at_most_a_fifth(attempt):
    base = retry_delay_ms(attempt, 0.0)
    assert base == RETRY_LADDER_MS[min(attempt, 9) - 1]
    assert base < retry_delay_ms(attempt, 0.999) <= base * 1.2


@pytest.mark.parametrize(
    ("result", "attempts", "expected"),
    [
        (Result.ACCEPTED, 1, (Step.SENT, None)),
        (Result.ACCEPTED, 10, (Step.SENT, None)),
        (Result.FAILED, 1, (Step.RETRY, NOW + 5_000)),
        (Result.FAILED, 9, (Step.RETRY, NOW + 24 * 3_600_000)),
        (Result.FAILED, 10, (Step.DEAD, None)),
        (Result.FAILED, 11, (Step.DEAD, None)),
        (Result.REFUSED, 1, (Step.DEAD, None)),
        (Result.GONE, 1, (Step.DISABLE, None)),
    ],
)
def test_the_next_step_follows_from_the_result_and_the_attempts_so_far(result, attempts, expected):
    step = next_step(Outcome(result, ""), attempts=attempts, attempts_max=10, now_ms=NOW, draw=0.0)
    assert step == expected
