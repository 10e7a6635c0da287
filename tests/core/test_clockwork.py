"""Recorded time follows the system's clock by at most 1 ms per second and never runs back (LIVENESS.md 1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.core.clockwork import first_wall_ms, slewed, stepped


@given(st.lists(st.tuples(st.integers(1, 5_000), st.floats(-1e7, 1e7)), max_size=50))
def test_recorded_time_never_runs_back_and_moves_a_thousandth_at_most(readings: list[tuple[int, float]]):
    offset, monotonic, last = 0.0, 0, 0.0
    for elapsed, target in readings:
        before = offset
        offset = slewed(offset, target_ms=target, elapsed_ms=elapsed)
        monotonic += elapsed
        assert abs(offset - before) <= elapsed / 1_000 + 1e-6
        assert monotonic + offset >= last
        last = monotonic + offset


def test_a_step_is_told_from_drift():
    assert not stepped(0, target_ms=1_000)
    assert stepped(0, target_ms=1_001)
    assert stepped(0, target_ms=-1_001)


def test_a_forward_step_is_adopted_at_a_restart_a_backward_one_is_not():
    assert first_wall_ms(system_ms=10_000_000, last_ms=1_000, elapsed_ms=50) == 10_000_000
    assert first_wall_ms(system_ms=500, last_ms=1_000, elapsed_ms=50) == 1_050
    assert first_wall_ms(system_ms=500, last_ms=1_000, elapsed_ms=None) == 1_000
    assert first_wall_ms(system_ms=500, last_ms=None, elapsed_ms=None) == 500
