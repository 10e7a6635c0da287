"""The one clock: recorded time follows the system's slowly, never runs back, and tells a step."""

from __future__ import annotations

import time

import pytest

import engine.clock
from engine.clock import Clock, boot_id
from engine.journal_blocks import Tick
from tests.engine.rows_world import T0
from tests.engine.shard_world import FakeTime


class Wound(FakeTime):
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        super().__init__(lambda: self.s)
        self.s = 1_000.0


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Wound:
    wound = Wound()
    monkeypatch.setattr(engine.clock, "time", wound)
    return wound


def test_a_first_clock_tells_the_systems_time_and_goes_with_monotonic_time(system: Wound):
    clock = Clock()
    begun = clock.now_ms()
    assert abs(begun - (T0 + 1_000_000)) <= 1
    system.s += 12.5
    assert clock.now_ms() - begun == 12_500


def test_drift_is_slewed_by_at_most_a_millisecond_per_second(system: Wound):
    clock = Clock()
    begun = clock.now_ms()
    system.wall_ms += 500
    for second in range(1, 400):
        system.s += 1
        assert not clock.slew()
        assert clock.now_ms() - begun == pytest.approx(second * 1_001, abs=1)
    assert clock.statistics().offset_error_ms == pytest.approx(-101, abs=2)


def test_a_reading_right_after_a_slew_lies_not_before_the_one_right_before_it(system: Wound):
    """The watermark was told with the first: a beat between them must not lie below it."""
    clock = Clock()
    system.wall_ms -= 3_600_000
    for _ in range(100):
        system.s += 1
        before = clock.now_ms()
        clock.slew()
        assert clock.now_ms() >= before


def test_recorded_time_never_runs_back_when_the_system_does(system: Wound):
    clock = Clock()
    last = clock.now_ms()
    system.wall_ms -= 3_600_000
    told = []
    for _ in range(100):
        system.s += 0.7
        told.append(clock.slew())
        now = clock.now_ms()
        assert 699 <= now - last <= 701
        last = now
    assert told == [True] + [False] * 99, "a step is told once, as long as it lasts"
    assert clock.statistics().stepped


def test_a_step_that_was_taken_back_may_be_told_again_when_it_comes_again(system: Wound):
    clock = Clock()
    told = []
    for change in (5_000, 0, -5_000, 0, 5_000):
        system.wall_ms += change
        system.s += 1
        told.append(clock.slew())
    assert told == [True, False, False, False, True]


def test_many_slews_while_nothing_passes_move_nothing(system: Wound):
    clock = Clock()
    begun = clock.now_ms()
    system.wall_ms += 900
    for _ in range(1_000):
        clock.slew()
    assert clock.now_ms() == begun


def test_after_a_restart_in_the_same_boot_time_goes_on_although_the_system_stepped_back(system: Wound):
    tick = Clock().tick()
    system.s += 60
    system.wall_ms -= 7_200_000
    assert Clock(tick).now_ms() - tick.wall_ms == pytest.approx(60_000, abs=1)


def test_after_a_restart_a_forward_step_is_adopted(system: Wound):
    tick = Clock().tick()
    system.s += 60
    system.wall_ms += 7_200_000
    assert Clock(tick).now_ms() - tick.wall_ms == pytest.approx(7_260_000, abs=1)


def test_a_restart_never_begins_before_the_last_recorded_beat(system: Wound):
    tick = Clock().tick()
    system.s += 1
    assert Clock(tick, not_before_ms=tick.wall_ms + 3_600_000).now_ms() == pytest.approx(
        tick.wall_ms + 3_600_000, abs=1
    )
    assert Clock(tick, not_before_ms=tick.wall_ms).now_ms() == pytest.approx(tick.wall_ms + 1_000, abs=1)


def test_after_a_reboot_time_goes_on_from_its_last_value_at_the_least(system: Wound):
    before = Tick(wall_ms=T0 + 9_000_000, boottime_ns=5, boot_id="another boot")
    assert Clock(before).now_ms() == pytest.approx(T0 + 9_000_000, abs=1)
    system.s += 50_000
    assert Clock(before).now_ms() == pytest.approx(T0 + 51_000_000, abs=1)


def test_a_tick_is_a_reading_from_which_a_restart_goes_on(system: Wound):
    clock = Clock()
    tick = clock.tick()
    assert (tick.wall_ms, tick.boottime_ns, tick.boot_id) == (clock.now_ms(), 1_000 * 10**9, boot_id())
    assert not tick.last


def test_the_real_clock_tells_what_the_system_tells():
    assert abs(Clock().now_ms() - time.time_ns() // 1_000_000) < 50
    assert Clock().boot_id == boot_id() != ""


def test_a_system_that_tells_no_boot_has_an_empty_one(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(engine.clock, "_BOOT_ID", tmp_path / "none")
    assert boot_id() == ""
