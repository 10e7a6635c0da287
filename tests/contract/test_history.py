"""What is flushed is found again, once, on both stores."""

from __future__ import annotations

import pytest

from engine.core.records import (
    BASE_STOPPED,
    BASE_UNHEALTHY,
    BASE_UP,
    BaseInterval,
    FirstReport,
    Gap,
    Recorded,
    Refused,
)
from storage.ids import new_id
from tests.contract.given import NOW, batch, given_node, make_event

W = "01900000-0000-7000-8000-0000000000ff"
HIGH = "ffffffff-ffff-7fff-bfff-ffffffffffff"


async def everything(stores, workload_id: str):
    found = await stores.history.intervals(workload_id, 0, NOW * 2)
    return [(one.kind, one.started_ms, one.ended_ms) for one in found]


async def test_nothing_was_flushed_at_first(stores):
    assert await stores.history.flushed_position(0) == 0
    assert await stores.history.watermark(0) == 0
    assert await stores.history.intervals(W, 0, NOW) == []
    assert await stores.history.events(project_id=None, after=0, limit=10) == []


async def test_a_batch_brings_position_and_watermark_of_its_shard(stores):
    await stores.history.flush(batch(shard=1, position=7, watermark_ms=NOW))
    assert (await stores.history.flushed_position(1), await stores.history.watermark(1)) == (7, NOW)
    assert (await stores.history.flushed_position(0), await stores.history.watermark(0)) == (0, 0)


async def test_a_watermark_never_runs_back(stores):
    await stores.history.flush(batch(watermark_ms=NOW))
    await stores.history.flush(batch(watermark_ms=NOW - 5, position=9))
    assert (await stores.history.flushed_position(0), await stores.history.watermark(0)) == (9, NOW)


async def test_intervals_come_back_as_they_were_written(stores):
    for workload_id in (W, HIGH):
        await stores.history.flush(batch((workload_id, BASE_UP, NOW, NOW + 10)))
        assert await stores.history.intervals(workload_id, NOW, NOW + 1) == [
            BaseInterval(BASE_UP, NOW, NOW + 10, 90_000)
        ]


async def test_a_batch_flushed_twice_changes_nothing(stores):
    node = await given_node(stores)
    (workload_id,) = node.workload_ids
    once = batch(
        (workload_id, BASE_UP, NOW, NOW + 10),
        (workload_id, BASE_UNHEALTHY, NOW + 10, NOW + 15),
        events=(make_event(1), make_event(2)),
        gaps=(Gap(0, NOW, NOW + 5, "crash"),),
        first_reports=(FirstReport(workload_id, NOW),),
    )
    seen = []
    for _ in range(3):
        await stores.history.flush(once)
        seen.append(
            (
                await everything(stores, workload_id),
                await stores.history.events(project_id=None, after=0, limit=10),
                await stores.history.gaps(0, 0, NOW * 2),
                await stores.directory.workload(workload_id),
                await stores.history.flushed_position(0),
            )
        )
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == len(seen[0][1]) == 2


async def test_what_was_partly_written_before_is_completed_and_corrected(stores):
    other = new_id()
    await stores.history.flush(batch((W, BASE_UP, NOW, NOW + 10), (other, BASE_UP, NOW, NOW + 10)))
    await stores.history.flush(
        batch(
            (W, BASE_UP, NOW, NOW + 12),
            (W, BASE_STOPPED, NOW + 12, NOW + 20),
            (W, BASE_STOPPED, NOW + 12, NOW + 25),
        )
    )
    assert await everything(stores, W) == [
        (BASE_UP, NOW, NOW + 12),
        (BASE_STOPPED, NOW + 12, NOW + 25),
    ]
    assert await everything(stores, other) == [(BASE_UP, NOW, NOW + 10)]


async def test_zero_lengths_are_dropped(stores):
    await stores.history.flush(
        batch((W, BASE_UP, NOW, NOW), (W, BASE_UP, NOW + 1, NOW + 2), gaps=(Gap(0, NOW, NOW, "drops"),))
    )
    assert await everything(stores, W) == [(BASE_UP, NOW + 1, NOW + 2)]
    assert await stores.history.gaps(0, 0, NOW * 2) == []


@pytest.mark.parametrize(
    ("from_", "to", "wanted"),
    [
        (0, 5, [10]),  # before all: the first one after
        (0, 10, [10]),
        (0, 11, [10, 20]),
        (12, 13, [10, 20]),
        (20, 30, [10, 20, 40]),
        (30, 40, [20, 40]),  # between two: both neighbours
        (29, 41, [10, 20, 40, 60]),
        (35, 36, [20, 40]),
        (45, 46, [20, 40, 60]),
        (70, 80, [60]),  # after all: the last one before
        (0, 99, [10, 20, 40, 60]),
        (25, 25, [10, 20, 40]),  # an empty range still has its neighbours
    ],
)
async def test_a_range_has_what_touches_it_and_its_neighbours(stores, from_, to, wanted):
    spans = [(10, 20), (20, 30), (40, 50), (60, 70)]
    await stores.history.flush(batch(*((W, BASE_UP, NOW + start, NOW + end) for start, end in spans)))
    found = await stores.history.intervals(W, NOW + from_, NOW + to)
    assert [one.started_ms - NOW for one in found] == wanted


async def test_gaps_touch_half_open_and_are_of_their_rows(stores):
    gaps = (
        Gap(0, NOW + 10, NOW + 20, "stall", 2),
        Gap(0, NOW + 15, NOW + 40, "drops", 2),
        Gap(1, NOW, NOW + 99, "crash", 2),
    )
    await stores.history.flush(batch(gaps=gaps))
    assert await stores.history.gaps(0, NOW, NOW + 10) == []
    assert await stores.history.gaps(0, NOW, NOW + 11) == [gaps[0]]
    assert await stores.history.gaps(0, NOW + 19, NOW + 20) == [gaps[0], gaps[1]]
    assert await stores.history.gaps(0, NOW + 40, NOW + 50) == []
    assert await stores.history.gaps(1, NOW, NOW + 1) == [gaps[2]]
    assert await stores.history.gaps(4, NOW, NOW + 99) == [gaps[0], gaps[1]]
    assert await stores.history.gaps(2**32 - 1, NOW, NOW + 99) == [gaps[2]]


async def test_a_gap_is_of_the_rows_that_its_shard_had_at_the_time(stores):
    one = Gap(0, NOW, NOW + 10, "crash", 1)
    of_two = Gap(1, NOW + 20, NOW + 30, "crash", 2)
    of_three = Gap(1, NOW + 20, NOW + 30, "crash", 3)
    await stores.history.flush(batch(gaps=(one, of_two, of_three)))
    assert [await stores.history.gaps(row, NOW, NOW + 99) for row in (0, 1, 3, 4)] == [
        [one],
        [one, of_two, of_three],
        [one, of_two],
        [one, of_three],
    ]


async def test_a_gap_written_again_with_a_later_end_grows(stores):
    await stores.history.flush(batch(gaps=(Gap(0, NOW, NOW + 5, "crash"),)))
    await stores.history.flush(batch(gaps=(Gap(0, NOW, NOW + 9, "crash"),)))
    assert await stores.history.gaps(0, 0, NOW * 2) == [Gap(0, NOW, NOW + 9, "crash")]


async def test_the_earliest_first_report_stands(stores):
    (workload_id,) = (await given_node(stores)).workload_ids
    for at in (NOW + 5, NOW + 9, NOW + 2):
        await stores.history.flush(
            batch(first_reports=(FirstReport(workload_id, at + 1), FirstReport(workload_id, at)))
        )
    assert (await stores.directory.workload(workload_id)).first_report_ms == NOW + 2
    await stores.history.flush(batch(first_reports=(FirstReport(new_id(), NOW),)))  # of nobody we know


async def test_windows_are_those_of_the_workload_and_of_its_whole_node(stores):
    node = await given_node(stores, workloads=2)
    first, second = node.workload_ids

    async def window(workload_id: str | None, start: int, end: int):
        return await stores.directory.open_window(
            node.node_id, workload_id, from_ms=at(start), to_ms=at(end), own=False, now_ms=NOW
        )

    def at(minutes: int) -> int:
        return NOW + minutes * 60_000

    whole, mine, others = await window(None, 10, 20), await window(first, 5, 15), await window(second, 5, 15)
    assert await stores.history.windows(first, NOW, at(99)) == [mine, whole]
    assert await stores.history.windows(second, NOW, at(99)) == [others, whole]
    assert await stores.history.windows(first, at(15), at(20)) == [whole]
    assert await stores.history.windows(first, at(20), at(30)) == []
    assert await stores.history.windows(new_id(), NOW, at(99)) == []


async def test_asked_for_all_at_once_history_says_what_it_says_one_by_one(stores):
    node = await given_node(stores)
    (workload_id,) = node.workload_ids
    await stores.directory.open_window(
        node.node_id, None, from_ms=NOW + 10, to_ms=NOW + 60_010, own=True, now_ms=NOW
    )
    rows = [(workload_id, BASE_UP, NOW + start, NOW + start + 8) for start in (-40, -20, 0, 12, 30, 60)]
    gap = Gap(0, NOW + 5, NOW + 9, "crash")
    await stores.history.flush(batch(*rows, gaps=(gap,), watermark_ms=NOW + 70))
    for around in ((NOW - 30, NOW + 25), (NOW, NOW + 1), (NOW + 61, NOW + 90), (NOW - 99, NOW - 98)):
        for window in ((NOW, NOW + 15), (NOW + 60_010, NOW + 60_030)):
            found = await stores.history.recorded(
                workload_id, node.row, shard=0, window=window, around=around
            )
            assert found == Recorded(
                watermark_ms=NOW + 70,
                gaps=await stores.history.gaps(node.row, *around),
                intervals=await stores.history.intervals(workload_id, *around),
                leases=[],
                windows=await stores.history.windows(workload_id, *window),
                claims=[],
            )
    found = await stores.history.recorded(workload_id, node.row, shard=3, window=(0, 1), around=(0, 1))
    assert found.watermark_ms == 0


async def test_leases_and_claims_are_empty_where_none_were_written(stores):
    assert await stores.history.leases(W, 0, NOW) == []
    assert await stores.history.claims(W, 0, NOW) == []


async def test_what_is_no_id_has_no_history(stores):
    for read in (
        stores.history.intervals,
        stores.history.windows,
        stores.history.leases,
        stores.history.claims,
    ):
        assert await read("no-id", 0, NOW) == []
    assert await stores.history.events(project_id="no-id", after=0, limit=1) == []


async def test_events_come_in_cursor_order_by_pages_and_by_project(stores):
    alpha, beta = new_id(), new_id()
    events = [make_event(number, project_id=(alpha, beta)[number % 2]) for number in range(6)]
    await stores.history.flush(batch(events=tuple(events[:4])))
    await stores.history.flush(batch(events=tuple(events[4:])))
    found = await stores.history.events(project_id=None, after=0, limit=100)
    assert [event for _, event in found] == events
    cursors = [cursor for cursor, _ in found]
    assert cursors == sorted(set(cursors))
    assert cursors[0] > 0
    page = await stores.history.events(project_id=alpha, after=0, limit=2)
    assert [event for _, event in page] == [events[0], events[2]]
    rest = await stores.history.events(project_id=alpha, after=page[-1][0], limit=2)
    assert [event for _, event in rest] == [events[4]]


async def test_an_event_keeps_all_it_says(stores):
    whole = make_event(
        3,
        kind="workload.down",
        project_id=new_id(),
        workload_id=new_id(),
        shard=5,
        workloads=(new_id(), new_id()),
        detail='a "quoted"\ttext, NUL-free \\ ünïcode',
    )
    bare = make_event(4, kind="clock.stepped", node_id=None)
    await stores.history.flush(batch(events=(whole, bare)))
    found = await stores.history.events(project_id=None, after=0, limit=10)
    assert [event for _, event in found] == [whole, bare]


def refused(
    node_id: str, count: int, *, run_ms: int = 1, day: str = "2026-01-31", reason: str = "stale"
) -> Refused:
    return Refused(node_id, day, reason, run_ms, count)


async def test_refused_beats_are_what_a_run_told_last_however_often_it_is_written(stores):
    for counts in ((1,), (1,), (3, 2), (3,), (2,)):
        await stores.history.flush(batch(refused=tuple(refused(W, count) for count in counts)))
    assert await stores.history.refused_during([W], "2026-01-31") == {W: {"stale": 3}}


async def test_refused_beats_of_several_runs_add_up_by_reason_and_day(stores):
    told = (
        refused(W, 3),
        refused(W, 4, run_ms=2),
        refused(W, 5, reason="clock"),
        refused(W, 6, day="2026-02-01"),
        refused(HIGH, 7),
    )
    await stores.history.flush(batch(refused=told))
    assert await stores.history.refused_during([W, HIGH], "2026-01-31") == {
        W: {"clock": 5, "stale": 7},
        HIGH: {"stale": 7},
    }
    assert await stores.history.refused_during([HIGH], "2026-02-01") == {}
