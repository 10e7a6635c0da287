"""compose, which sees base rows, against the naive oracle, which sees beats: random worlds, every instant."""

from __future__ import annotations

from random import Random

import pytest

from tests.core.compose_worlds import expected, random_world

WORLDS_PER_SEED = 100


@pytest.mark.parametrize("seed", range(12))
def test_compose_says_what_the_oracle_says_at_every_instant(seed):
    for number in range(WORLDS_PER_SEED):
        world = random_world(Random(f"{seed}/{number}"))
        intervals, provisional_from = expected(world)
        answer = world.composed()
        assert answer.intervals == intervals, (number, world)
        assert answer.provisional_from_ms == provisional_from, (number, world)
