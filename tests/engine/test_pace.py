"""How often beats are asked for: constant load, coarse steps, jitter within its bounds."""

from __future__ import annotations

import numpy as np
import pytest

from engine.core.timing import INTERVAL_MS_MIN
from engine.pace import Pace

MINUTE = np.full(10_000, 60_000, np.uint32)


def pace(*, rate_max: float = 1_000.0, jitter: float = 0.1) -> Pace:
    return Pace(rate_max=rate_max, jitter=jitter, seed=3)


@pytest.mark.parametrize("rows", [2_000, 10_000, 60_001, 250_000, 1_000_000])
def test_however_many_rows_there_are_they_ask_for_at_most_the_rate(rows: int):
    paced = pace()
    paced.follow(rows)
    interval = int(paced.intervals(np.array([1_000]))[0])
    assert rows * 1_000 / interval <= 1_000.0
    assert rows * 1_000 / interval > 1_000.0 / 1.25 * 0.99, "no slower than one step more than needed"


def test_few_rows_are_asked_as_often_as_they_are_configured():
    paced = pace()
    paced.follow(500)
    assert paced.interval_ms_min == 0
    assert paced.intervals(np.array([1_000, 60_000])).tolist() == [1_000, 60_000]


def test_a_row_configured_slower_than_the_load_needs_keeps_its_interval():
    paced = pace()
    paced.follow(10_000)
    assert 10_000 <= paced.interval_ms_min <= 12_500
    assert paced.intervals(np.array([1_000, 60_000])).tolist() == [paced.interval_ms_min, 60_000]


def test_the_pace_moves_in_coarse_steps_because_each_begins_new_base_rows():
    paced = pace()
    seen = set()
    for rows in range(1_001, 100_000, 37):
        paced.follow(rows)
        seen.add(paced.interval_ms_min)
    assert len(seen) <= np.ceil(np.log(100) / np.log(1.25)) + 1


@pytest.mark.parametrize("around", [1_000, 1_001, 5_000, 12_208, 40_000])
def test_a_number_of_rows_that_wavers_does_not_make_the_pace_waver(around: int):
    paced = pace()
    seen = []
    for turn in range(200):
        paced.follow(around + (turn % 2))
        seen.append(paced.interval_ms_min)
    assert len(set(seen[2:])) == 1


def test_when_most_rows_are_gone_the_pace_comes_back():
    paced = pace()
    paced.follow(100_000)
    paced.follow(10)
    assert paced.interval_ms_min == 0


def test_next_ms_lies_in_the_last_tenth_of_the_interval_and_spreads_over_it():
    drawn = pace().next_ms(MINUTE)
    assert drawn.min() >= 54_000
    assert drawn.max() <= 60_000
    counts, _ = np.histogram(drawn, 6, (54_000, 60_000))
    assert counts.min() > 1_400


def test_next_ms_is_never_below_a_second_nor_above_the_interval():
    told = pace(jitter=0.9).next_ms(np.repeat(np.array([1_000, 1_200, 2_000], np.uint32), 1_000))
    assert told.min() == INTERVAL_MS_MIN
    assert (told <= np.repeat([1_000, 1_200, 2_000], 1_000)).all()


def test_what_a_beat_vouches_for_covers_the_largest_next_ms_by_half_and_never_less_than_its_session():
    paced = pace()
    paced.follow(30_000)
    configured, session = np.array([1_000, 60_000, 60_000]), np.array([0, 90_000, 120_000])
    assert paced.ttls(configured, session).tolist() == [paced.interval_ms_min * 3 // 2, 90_000, 120_000]
    for each, of_session in zip(configured.tolist(), session.tolist(), strict=True):
        assert paced.ttl(each, of_session) in paced.ttls(configured, session)


def test_a_beat_vouched_for_by_the_ttl_alone_reaches_past_the_next_one():
    paced = pace()
    for rows in (10, 3_000, 80_000):
        paced.follow(rows)
        assert (paced.ttls(MINUTE, MINUTE * 0) > paced.next_ms(MINUTE)).all()
