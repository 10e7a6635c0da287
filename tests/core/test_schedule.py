"""What becomes a run when: the plan of a job, told as a table."""

import pytest

from engine.core.schedule import (
    FAILED_WAIT_MS_MAX,
    RUNS_PLANNED_MAX,
    DueTimes,
    JobState,
    Plan,
    failed_wait_ms,
    first_due,
    lag_ms,
    plan,
)

HOUR = 3_600_000
# Due at each full hour.
HOURLY = DueTimes(after=lambda ms: ms // HOUR * HOUR + HOUR, until=lambda ms: ms // HOUR * HOUR)


def state(catch_up: str, *, next_hour: int = 10, oldest_hour: int | None = None) -> JobState:
    oldest_ms = None if oldest_hour is None else oldest_hour * HOUR
    return JobState("j", "0 * * * *", catch_up, (next_hour - 1) * HOUR, next_hour * HOUR, oldest_ms)


def hours(found: Plan | None) -> tuple[tuple[int, ...], int] | None:
    return None if found is None else (tuple(ms // HOUR for ms in found.due_ms), found.next_ms // HOUR)


@pytest.mark.parametrize(
    ("what", "catch_up", "oldest_hour", "now_ms", "expected"),
    [
        ("before it is due nothing runs", "every", None, 10 * HOUR - 1, None),
        ("at the very moment it does", "every", None, 10 * HOUR, ((10,), 11)),
        ("missed due times are all run", "every", None, 13 * HOUR + 5, ((10, 11, 12, 13), 14)),
        ("an unfinished run holds back no later ones", "every", 9, 11 * HOUR, ((10, 11), 12)),
        ("a clock that was set back plans nothing", "every", None, 2 * HOUR, None),
        ("the newest of those missed is run", "newest", None, 13 * HOUR + 5, ((13,), 14)),
        ("the moment counts here, too", "newest", None, 10 * HOUR, ((10,), 11)),
        ("before it is due nothing runs here, either", "newest", None, 10 * HOUR - 1, None),
        ("runs do not pile up while one fails", "newest", 9, 13 * HOUR, None),
    ],
)
def test_the_plan(what, catch_up, oldest_hour, now_ms, expected):
    assert hours(plan(state(catch_up, oldest_hour=oldest_hour), HOURLY, now_ms)) == expected, what


def test_after_a_very_long_outage_runs_are_planned_portion_by_portion():
    first = plan(state("every"), HOURLY, 1_000 * HOUR)
    assert hours(first) == (tuple(range(10, 10 + RUNS_PLANNED_MAX)), 10 + RUNS_PLANNED_MAX)


def test_a_new_job_is_due_next_time_and_never_for_what_was_before_it():
    assert first_due(None, HOURLY, 5 * HOUR + 1) == 6 * HOUR


def test_another_cron_expression_keeps_what_has_come_and_repeats_nothing():
    assert first_due(state("every"), HOURLY, 12 * HOUR) == 10 * HOUR, "had come by the old one"
    assert first_due(state("every"), HOURLY, 9 * HOUR + 1) == 10 * HOUR
    assert first_due(state("every"), HOURLY, 2 * HOUR) == 10 * HOUR, "the clock was set back: 9 has run"


def test_the_lag_is_that_of_the_oldest_due_time_that_is_not_done():
    assert lag_ms(state("every"), 9 * HOUR) == 0
    assert lag_ms(state("every"), 11 * HOUR) == HOUR
    assert lag_ms(state("every", oldest_hour=7), 11 * HOUR) == 4 * HOUR


def test_failures_are_left_alone_for_longer_and_longer():
    waits = [failed_wait_ms(failures) for failures in range(1, 12)]
    assert waits[:3] == [30_000, 60_000, 120_000]
    assert waits == sorted(waits)
    assert waits[-1] == failed_wait_ms(10**9) == FAILED_WAIT_MS_MAX
