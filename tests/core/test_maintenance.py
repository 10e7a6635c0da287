"""How much maintenance may be opened beside what is opened already."""

from __future__ import annotations

import pytest

from engine.core.maintenance import DAY_MS, check_window, days_of
from engine.core.ports import WindowRefusedError
from engine.core.records import Window

MINUTE_MS = 60_000


def minutes(begin: int, length: int, *, day: int = 1, of: str | None = None, own: bool = False) -> Window:
    from_ms = day * DAY_MS + begin * MINUTE_MS
    return Window("w", of, from_ms, from_ms + length * MINUTE_MS, own)


def check(
    new: Window,
    *opened: Window,
    update: bool = False,
    now_ms: int = 0,
    taken_back: tuple[Window, ...] = (),
) -> None:
    check_window(new, opened=opened, taken_back=taken_back, update=update, now_ms=now_ms)


@pytest.mark.parametrize(
    ("new", "before"),
    [
        (minutes(0, 60), []),
        (minutes(0, 30), [minutes(600, 30)]),
        (minutes(0, 60), [minutes(0, 60, own=True)]),  # the union counts once
        (minutes(20, 40), [minutes(0, 40)]),  # overlapping by 20
        (minutes(1410, 60), []),  # half of it tomorrow
        (minutes(0, 60), [minutes(0, 60, day=2)]),
        (minutes(0, 60, of="a"), [minutes(600, 60, of="b")]),
        (minutes(0, 10), [minutes(600, 50, of="a"), minutes(700, 50, of="b")]),
    ],
)
def test_sixty_minutes_per_workload_and_day_may_be_opened(new: Window, before: list[Window]) -> None:
    check(new, *before)


@pytest.mark.parametrize(
    ("new", "before"),
    [
        (minutes(0, 61), []),
        (minutes(0, 31), [minutes(600, 30, own=True)]),
        (minutes(0, 31, own=True), [minutes(600, 30)]),
        (minutes(30, 40), [minutes(0, 40)]),
        (minutes(1410, 60), [minutes(600, 31, day=2)]),
        (minutes(0, 31, of="a"), [minutes(600, 30)]),  # of the whole node is of this workload, too
        (minutes(0, 31), [minutes(600, 10, of="a"), minutes(600, 30, of="b")]),  # too much for b
        (minutes(0, 3 * 1440), []),
    ],
)
def test_more_than_sixty_minutes_a_day_are_refused(new: Window, before: list[Window]) -> None:
    with pytest.raises(WindowRefusedError, match=r"60 at most.*: shorten it or choose another day"):
        check(new, *before)


def test_the_refusal_names_the_day_and_the_workload() -> None:
    with pytest.raises(WindowRefusedError, match=r"61 minutes .* of workload b on 1970-01-03 \(UTC\)"):
        check(minutes(1430, 11, day=1), minutes(100, 60, day=2, of="b"), minutes(100, 5, of="a"))


def test_an_ordered_update_has_ten_minutes_and_is_not_the_operators_own() -> None:
    check(minutes(0, 10), update=True)
    with pytest.raises(WindowRefusedError, match="10 minutes"):
        check(minutes(0, 11), update=True)
    with pytest.raises(WindowRefusedError, match="own"):
        check(minutes(0, 5, own=True), update=True)


def test_a_window_that_began_already_or_never_ends_is_refused() -> None:
    new = minutes(0, 10)
    check(new, now_ms=new.from_ms)
    with pytest.raises(WindowRefusedError, match="before it begins"):
        check(new, now_ms=new.from_ms + 1)
    with pytest.raises(WindowRefusedError, match="ends after"):
        check(minutes(0, 0))


def test_no_window_is_shorter_than_a_minute_but_that_of_an_ordered_update() -> None:
    short = Window("w", None, DAY_MS, DAY_MS + MINUTE_MS - 1, own=False)
    check(minutes(0, 1))
    check(short, update=True)
    with pytest.raises(WindowRefusedError, match="a minute at least: choose a later end"):
        check(short)


def test_a_window_begins_within_366_days() -> None:
    new = minutes(0, 1, day=400)
    check(new, now_ms=new.from_ms - 366 * DAY_MS)
    with pytest.raises(WindowRefusedError, match="within 366 days: choose an earlier beginning"):
        check(new, now_ms=new.from_ms - 366 * DAY_MS - 1)


def test_a_workload_has_twenty_four_windows_a_day_however_short_they_are() -> None:
    there = [minutes(2 * number, 1, of="a") for number in range(23)]
    check(minutes(100, 1, of="a"), *there)
    full = [*there, minutes(200, 1)]  # of the whole node is one of each workload
    check(minutes(100, 1, of="b"), *full)
    check(minutes(100, 1, of="a", day=2), *full)
    for of in ("a", None):
        with pytest.raises(WindowRefusedError, match=r"24 windows of workload a on 1970-01-02 .*24 at most"):
            check(minutes(100, 1, of=of), *full)


def test_ending_windows_early_or_taking_them_back_makes_no_room_for_more() -> None:
    ended = [Window("w", "a", DAY_MS + number, DAY_MS + number + 1, own=True) for number in range(12)]
    taken_back = tuple(minutes(100 + number * 60, 60, of="a") for number in range(12))
    check(minutes(0, 50, of="a"), *ended, taken_back=taken_back[1:])  # they take no time of the sixty minutes
    with pytest.raises(WindowRefusedError, match="those taken back too"):
        check(minutes(0, 50, of="a"), *ended, taken_back=taken_back)


def test_a_window_touches_whole_days() -> None:
    assert days_of(minutes(5, 10)) == (DAY_MS, 2 * DAY_MS)
    assert days_of(minutes(0, 1440)) == (DAY_MS, 2 * DAY_MS)
    assert days_of(minutes(1439, 2)) == (DAY_MS, 3 * DAY_MS)
