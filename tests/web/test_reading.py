"""How uptime is put together: a read after an ACK has the beat, and the seam between stores never shows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from engine.core.asks import Found
from engine.core.records import (
    BASE_STOPPED,
    BASE_UNHEALTHY,
    BASE_UP,
    KINDS,
    BaseInterval,
    FirstReport,
    Gap,
    Lease,
    LiveSlot,
    Window,
)
from tests.web.fakes import ADMIN_KEY, PROJECT_KEY, World, bearer, up_slot
from web.times import format_rfc3339, parse_rfc3339

TTL = 90_000


def row(started_ms: int, ended_ms: int, kind: int = BASE_UP) -> BaseInterval:
    return BaseInterval(kind=kind, started_ms=started_ms, ended_ms=ended_ms, ttl_ms=TTL)


def known_since(world: World, at_ms: int) -> FirstReport:
    """The registry has the workload's first report."""
    world.workload = msgspec.structs.replace(world.workload, first_report_ms=at_ms)
    world.directory.workloads[world.workload.workload_id] = world.workload
    return FirstReport(workload_id=world.workload.workload_id, at_ms=at_ms)


async def uptime(world: World, from_ms: int, to_ms: int | None = None, **query: str) -> dict[str, Any]:
    asked = {"from": format_rfc3339(from_ms), **query}
    if to_ms is not None:
        asked["to"] = format_rfc3339(to_ms)
    response = await world.client.get(
        f"/v1/workloads/{world.workload.workload_id}/uptime", headers=bearer(PROJECT_KEY), query_string=asked
    )
    answer: dict[str, Any] = await response.get_json(force=True)
    assert response.status_code == 200, answer
    window = parse_rfc3339(answer["to"]) - parse_rfc3339(answer["from"])
    assert sum(answer["ms"].values()) == window
    assert tuple(answer["ms"]) == KINDS
    return answer


async def state(world: World) -> str:
    response = await world.client.get(
        f"/v1/workloads/{world.workload.workload_id}", headers=bearer(PROJECT_KEY)
    )
    assert response.status_code == 200
    return str((await response.get_json())["state"])


async def test_a_workload_that_never_reported_is_new_and_silent(world: World) -> None:
    assert await state(world) == "new"
    start = world.now_ms() - 10_000
    answer = await uptime(world, start, intervals="true")
    assert answer["ms"]["silent"] == parse_rfc3339(answer["as_of"]) - start
    assert [interval["kind"] for interval in answer["intervals"]] == ["silent"]
    assert answer["ratio"] == 0.0


async def test_the_answer_has_the_shape_of_the_contract(world: World) -> None:
    start = world.now_ms() - 60_000
    world.report(up_slot(start, world.now_ms() - 1_000))
    answer = await uptime(world, start, start + 10_000, intervals="true")
    assert answer == {
        "workload_id": world.workload.workload_id,
        "from": format_rfc3339(start),
        "to": format_rfc3339(start + 10_000),
        "as_of": answer["as_of"],
        "ms": {**dict.fromkeys(KINDS, 0), "up": 10_000},
        "paid_ms": 10_000,
        "ratio": 1.0,
        "provisional": False,
        "source": "native",
        "granularity_ms": 1,
        "intervals": [
            {"kind": "up", "started_at": format_rfc3339(start), "ended_at": format_rfc3339(start + 10_000)}
        ],
        "gaps": [],
    }
    assert "intervals" not in await uptime(world, start, start + 10_000)


async def test_a_read_waits_until_the_watermark_has_passed_its_arrival(world: World) -> None:
    """A beat that was acknowledged just before is in the store only when the watermark gets there."""
    world.live.lag_ms = 700
    acknowledged_ms = world.now_ms()

    async def flushed_later() -> None:
        await trio.sleep(0.65)
        world.report(up_slot(acknowledged_ms, acknowledged_ms))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flushed_later)
        answer = await uptime(world, acknowledged_ms)
    assert parse_rfc3339(answer["as_of"]) > acknowledged_ms
    assert answer["ms"]["up"] > 0
    assert answer["ms"]["silent"] == 0


async def test_a_read_of_the_past_does_not_wait_for_now(world: World) -> None:
    world.live.lag_ms = 1_500
    start = world.now_ms() - 60_000
    world.report(up_slot(start, start + 40_000))
    began = trio.current_time()
    assert (await uptime(world, start, start + 10_000))["ms"]["up"] == 10_000
    assert trio.current_time() - began < 0.5


async def test_a_read_waits_two_seconds_at_most_and_then_tells_the_older_as_of(world: World) -> None:
    await trio.sleep(1)
    world.live.frozen_at_ms = world.now_ms()
    start = world.now_ms() - 60_000
    world.report(up_slot(start, world.now_ms()))
    await trio.sleep(5)
    began = trio.current_time()
    answer = await uptime(world, start)
    assert 1.9 < trio.current_time() - began < 2.1
    assert parse_rfc3339(answer["as_of"]) == world.live.frozen_at_ms
    assert answer["to"] == answer["as_of"]


async def test_a_future_end_is_cut_at_as_of(world: World) -> None:
    start = world.now_ms() - 5_000
    world.report(up_slot(start, start))
    answer = await uptime(world, start, world.now_ms() + 86_400_000)
    assert answer["to"] == answer["as_of"]
    assert parse_rfc3339(answer["as_of"]) <= world.now_ms()


async def test_a_row_closed_and_flushed_between_the_two_reads_is_counted_once(world: World) -> None:
    """The view still had it open; history already has its final end, which counts."""
    start = world.now_ms() - 60_000
    world.report(up_slot(start, world.now_ms() - 500))
    end = world.now_ms() - 200

    def flushed() -> None:
        world.history.rows[world.workload.workload_id] = [
            row(start, end),
            row(end, end + 100, BASE_UNHEALTHY),
        ]

    world.history.on_watermark = flushed
    answer = await uptime(world, start - 1_000, end + 100, intervals="true")
    assert answer["ms"]["up"] == end - start
    assert answer["ms"]["unhealthy"] == 100


async def test_a_row_on_its_way_to_history_is_waited_for(world: World) -> None:
    """Closed in the table, gone from the view, not yet in Postgres: read at once, it would be a hole."""
    start, change = world.now_ms() - 60_000, world.now_ms() - 5_000
    world.report(up_slot(change, world.now_ms() - 500, kind=BASE_UNHEALTHY))
    known_since(world, start)
    world.history.stuck_at_ms = change - 1

    async def flush() -> None:
        await trio.sleep(0.4)
        world.history.rows[world.workload.workload_id] = [row(start, change)]
        world.history.stuck_at_ms = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        answer = await uptime(world, start, change + 100)
    assert answer["ms"]["up"] == change - start
    assert answer["ms"]["silent"] == 0


async def test_a_lapsed_row_on_its_way_to_history_is_waited_for(world: World) -> None:
    """Nothing is open any more, so all that was vouched for must be in history before silence is told."""
    start = world.now_ms() - 300_000
    last = start + 60_000
    lapsed = LiveSlot(kind=0, ttl_ms=0, started_ms=0, last_t_ms=last, first_report_ms=start)
    world.report(lapsed, state="suspect")
    world.history.stuck_at_ms = last + TTL  # not past it: the row that ends there may be missing

    async def flush() -> None:
        await trio.sleep(0.4)
        world.history.rows[world.workload.workload_id] = [row(start, last + TTL)]
        world.history.stuck_at_ms = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        answer = await uptime(world, start)
    assert answer["ms"]["up"] == last + TTL - start


async def test_with_history_stuck_the_answer_is_older_and_not_wrong(world: World) -> None:
    start, change = world.now_ms() - 60_000, world.now_ms() - 5_000
    known = start + 10_000
    world.report(up_slot(change, world.now_ms()))
    known_since(world, start)
    world.history.stuck_at_ms = known + 1_000
    world.history.rows[world.workload.workload_id] = [row(start, known)]
    answer = await uptime(world, start)
    assert parse_rfc3339(answer["as_of"]) == known
    assert answer["ms"]["up"] == known - start
    assert answer["ms"]["silent"] == 0


async def test_silence_in_a_gap_is_unobserved_and_provisional_until_a_beat_comes(world: World) -> None:
    """We did not listen, came back, and nobody has beaten yet: that is not the workload's silence."""
    start = world.now_ms() - 120_000
    last = start + 10_000
    lapsed = last + TTL
    world.report(LiveSlot(kind=0, ttl_ms=0, started_ms=0, last_t_ms=last, first_report_ms=start))
    world.history.rows[world.workload.workload_id] = [row(start, lapsed)]
    gap = Gap(shard=0, from_ms=lapsed - 5_000, to_ms=lapsed + 10_000, cause="crash")
    world.history.all_gaps.append(gap)
    answer = await uptime(world, start, intervals="true")
    assert answer["ms"]["silent"] == 0
    assert answer["ms"]["unobserved"] > 0
    assert answer["provisional"] is True
    [told] = answer["gaps"]
    assert told == {
        "from": format_rfc3339(gap.from_ms),
        "to": format_rfc3339(gap.to_ms),
        "cause": "crash",
        "decided": True,
    }


async def test_a_gap_of_another_shard_count_is_of_the_rows_it_had_then(world: World) -> None:
    start = world.now_ms() - 600_000
    world.history.rows[world.workload.workload_id] = [row(start, start + 100_000)]
    known_since(world, start)
    begun, ended = start + 90_000, start + 110_000
    row_number = world.workload.row
    other = Gap(shard=(row_number + 1) % 3, from_ms=begun, to_ms=ended, cause="crash", shards=3)
    world.history.all_gaps = [other]
    assert (await uptime(world, start, start + 600_000))["ms"]["unobserved"] == 0
    mine = Gap(shard=row_number % 3, from_ms=begun, to_ms=ended, cause="crash", shards=3)
    back = ended + 1_000
    world.history.rows[world.workload.workload_id].append(row(back, back + TTL))
    world.history.all_gaps = [other, mine]
    assert (await uptime(world, start, start + 600_000))["ms"]["unobserved"] == back - start - 100_000


async def test_a_workload_its_node_no_longer_speaks_of_is_read_at_once(world: World) -> None:
    """Its row beats on, so its slot never seems to have lapsed; history's watermark is a second old."""
    start = world.now_ms() - 120_000
    gone = LiveSlot(kind=0, ttl_ms=TTL, started_ms=0, last_t_ms=world.now_ms(), first_report_ms=start)
    world.report(gone)
    world.history.rows[world.workload.workload_id] = [row(start, start + TTL)]
    world.history.watermark_lag_ms = 900
    began = trio.current_time()
    assert (await uptime(world, start))["ms"]["up"] == TTL
    assert trio.current_time() - began < 0.2


async def test_an_undecided_gap_is_provisional(world: World) -> None:
    start = world.now_ms() - 200_000
    last = start + 60_000
    world.report(LiveSlot(kind=0, ttl_ms=0, started_ms=0, last_t_ms=last, first_report_ms=start))
    world.history.rows[world.workload.workload_id] = [row(start, last + TTL)]
    world.live.provisional_from_ms = last
    answer = await uptime(world, start, intervals="true")
    assert answer["provisional"] is True
    assert answer["ms"]["unobserved"] > 0
    assert [gap["decided"] for gap in answer["gaps"]] == [False]


async def test_gaps_chained_far_beyond_the_window_are_found(world: World) -> None:
    """Gap after gap without a beat between: what forgives the window's silence ends hours later."""
    start = world.now_ms() - 7_200_000
    rows = [row(start, start + 150_000)]
    gaps = [
        Gap(
            shard=0, from_ms=start + 100_000 + n * 300_000, to_ms=start + 200_000 + n * 300_000, cause="stall"
        )
        for n in range(20)
    ]
    back = gaps[-1].to_ms + 1_000
    rows.append(row(back, back + TTL))
    world.history.rows[world.workload.workload_id] = rows
    world.history.all_gaps = gaps
    known_since(world, start)
    answer = await uptime(world, start, start + 600_000)
    assert answer["ms"]["silent"] == 0
    assert answer["ms"]["unobserved"] == 600_000 - 150_000


async def test_a_stopped_workload_stays_stopped(world: World) -> None:
    start = world.now_ms() - 600_000
    world.report(up_slot(start, start, kind=BASE_STOPPED), state="stopped")
    assert await state(world) == "stopped"
    assert (await uptime(world, start))["ms"]["stopped"] > 599_000


async def test_a_lease_of_another_run_makes_up_standby(world: World) -> None:
    start = world.now_ms() - 10_000
    world.report(up_slot(start, world.now_ms()))
    world.history.all_leases = [Lease(from_ms=start, to_ms=None)]
    assert await state(world) == "standby"


async def test_maintenance_covers_silence_and_not_up(world: World) -> None:
    start = world.now_ms() - 300_000
    last = start + 10_000
    world.report(LiveSlot(kind=0, ttl_ms=0, started_ms=0, last_t_ms=last, first_report_ms=start))
    world.history.rows[world.workload.workload_id] = [row(start, last + TTL)]
    world.history.all_windows = [
        Window(window_id="w", workload_id=None, from_ms=start, to_ms=world.now_ms() + 1_000_000, own=False)
    ]
    answer = await uptime(world, start)
    assert answer["ms"]["up"] == 100_000
    assert answer["ms"]["silent"] == 0
    assert answer["paid_ms"] == answer["ms"]["up"] + answer["ms"]["maintenance"]
    assert await state(world) == "maintenance"


async def test_with_the_live_view_away_history_is_answered_with_an_older_as_of(world: World) -> None:
    start = world.now_ms() - 600_000
    world.history.rows[world.workload.workload_id] = [row(start, start + 100_000)]
    known_since(world, start)
    await trio.sleep(1)
    world.live.away = True
    await trio.sleep(2)
    began = trio.current_time()
    answer = await uptime(world, start)
    assert trio.current_time() - began < 0.1, "nothing to wait for"
    assert parse_rfc3339(answer["as_of"]) == start + 100_000
    assert answer["ms"]["up"] == 100_000
    assert await state(world) == "up"


async def test_a_flushed_live_view_counts_as_away(world: World) -> None:
    start = world.now_ms() - 600_000
    world.history.rows[world.workload.workload_id] = [row(start, start + 100_000)]
    known_since(world, start)
    world.live.silent = True
    assert parse_rfc3339((await uptime(world, start))["as_of"]) == start + 100_000


async def test_with_history_away_the_answer_is_unavailable(world: World) -> None:
    world.history.away = True
    response = await world.client.get(
        f"/v1/workloads/{world.workload.workload_id}/uptime", headers=bearer(PROJECT_KEY)
    )
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_the_window_is_cut_to_the_workloads_life(world: World) -> None:
    answer = await uptime(world, 0)
    assert parse_rfc3339(answer["from"]) == world.workload.created_ms
    retired = world.now_ms() - 1_000
    world.directory.workloads[world.workload.workload_id] = msgspec.structs.replace(
        world.workload, retired_ms=retired
    )
    assert parse_rfc3339((await uptime(world, 0))["to"]) == retired


async def test_time_before_the_first_report_is_silent(world: World) -> None:
    first = world.now_ms() - 30_000
    world.report(up_slot(first, world.now_ms()))
    answer = await uptime(world, first - 10_000, world.now_ms() - 10_000, intervals="true")
    assert [each["kind"] for each in answer["intervals"]] == ["silent", "up"]
    assert answer["ms"]["silent"] == 10_000


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-05-28T00:00:00.000Z", "to": "2026-05-27T00:00:00.000Z"},
        {"from": "2026-05-28"},
        {"from": "2026-05-28T00:00:00"},
        {"to": "1780000000000"},
        {"to": "2026-13-28T00:00:00Z"},
        {"from": "2026-05-28T00:00:60Z"},
        {"intervals": "yes"},
    ],
)
async def test_a_window_that_makes_no_sense_is_refused(world: World, query: dict[str, str]) -> None:
    response = await world.client.get(
        f"/v1/workloads/{world.workload.workload_id}/uptime", headers=bearer(ADMIN_KEY), query_string=query
    )
    problem = await response.get_json(force=True)
    assert (response.status_code, problem["code"]) == (400, "bad_parameter")
    assert next(iter(query)) in problem["detail"]


async def test_an_empty_window_sums_to_nothing(world: World) -> None:
    at = world.now_ms() - 1_000
    answer = await uptime(world, at, at)
    assert (sum(answer["ms"].values()), answer["ratio"]) == (0, None)


async def test_windows_at_the_ends_of_time_are_empty_and_no_error(world: World) -> None:
    far = parse_rfc3339("9999-12-30T00:00:00Z")
    assert sum((await uptime(world, far, far + 1_000))["ms"].values()) == 0
    assert sum((await uptime(world, 0, 1_000))["ms"].values()) == 0


async def test_a_window_that_ends_before_the_workloads_life_is_empty_also_without_a_beginning(
    world: World,
) -> None:
    response = await world.client.get(
        f"/v1/workloads/{world.workload.workload_id}/uptime?to=2000-01-01T00:00:00Z",
        headers=bearer(PROJECT_KEY),
    )
    answer = await response.get_json()
    assert response.status_code == 200
    assert answer["from"] == answer["to"]
    assert sum(answer["ms"].values()) == 0


async def test_a_window_of_more_than_four_hundred_days_of_life_is_refused(world: World) -> None:
    world.directory.workloads[world.workload.workload_id] = msgspec.structs.replace(
        world.workload, created_ms=world.now_ms() - 401 * 86_400_000
    )
    response = await world.client.get(
        f"/v1/workloads/{world.workload.workload_id}/uptime", headers=bearer(ADMIN_KEY)
    )
    assert (await response.get_json(force=True))["code"] == "window_too_long"


async def test_reads_follow_the_engines_clock_after_a_step_of_ours(world: World) -> None:
    """An hour ahead, no watermark would ever arrive; an hour behind, the newest beat would be missed."""
    start = world.now_ms() - 60_000
    for offset_ms in (3_600_000, -3_600_000):
        await trio.sleep(2)
        world.system_offset_ms = offset_ms
        world.report(up_slot(start, world.now_ms()))
        began = trio.current_time()
        acknowledged_ms = world.now_ms()
        answer = await uptime(world, start)
        assert trio.current_time() - began < 0.2
        assert parse_rfc3339(answer["as_of"]) > acknowledged_ms


class Asked:
    """A shard that tells its rows at once, ahead of the view and of history."""

    def __init__(self, world: World, *slots: LiveSlot, gaps: tuple[Gap, ...] = ()) -> None:
        self._world, self._slots, self._gaps = world, slots, gaps

    async def ask(self, rows: Any, *, shards: int, timeout_s: float) -> Found:
        await trio.lowlevel.checkpoint()
        self._world.report(*self._slots)
        node = self._world.live.nodes[rows[0]]
        head = msgspec.structs.replace(self._world.live.head(0), watermark_ms=self._world.now_ms())
        return Found({rows[0]: (head, node)}, self._gaps)


async def test_a_row_that_the_shard_has_just_closed_is_in_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = world.now_ms()
    known_since(world, now - 60_000)
    world.live.lag_ms = 80
    closed = LiveSlot(kind=0, ttl_ms=TTL, started_ms=0, last_t_ms=now - 500, first_report_ms=now - 60_000)
    monkeypatch.setattr(world.app.backend, "asks", Asked(world, closed))
    read = world.live.read

    async def flushed_first(row_number: int, *, shards: int) -> Any:
        world.history.rows[world.workload.workload_id] = [row(now - 60_000, now - 400)]
        return await read(row_number, shards=shards)

    monkeypatch.setattr(world.live, "read", flushed_first)  # history is written before the view
    answer = await uptime(world, now - 60_000, now)
    assert (answer["ms"]["up"], answer["ms"]["silent"]) == (59_600, 400)


async def test_what_the_shard_tells_is_answered_without_waiting_for_the_view(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = world.now_ms()
    known_since(world, now - 10_000)
    world.live.lag_ms = 600_000
    asked = Asked(world, up_slot(now - 10_000, now - 1_000))
    monkeypatch.setattr(world.app.backend, "asks", asked)
    began = trio.current_time()
    answer = await uptime(world, now - 10_000, now)
    assert answer["ms"]["up"] == 10_000
    assert await state(world) == "up"
    assert trio.current_time() - began < 0.1


async def test_a_gap_that_only_the_shard_knows_is_taken_into_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = world.now_ms()
    known_since(world, now - 200_000)
    world.live.lag_ms = 600_000
    world.history.rows[world.workload.workload_id] = [row(now - 200_000, now - 40_000)]
    gap = Gap(0, now - 60_000, now - 20_000, "crash")
    asked = Asked(world, up_slot(now - 10_000, now - 1_000), gaps=(gap,))
    monkeypatch.setattr(world.app.backend, "asks", asked)
    answer = await uptime(world, now - 200_000, now)
    assert (answer["ms"]["up"], answer["ms"]["unobserved"], answer["ms"]["silent"]) == (170_000, 30_000, 0)
