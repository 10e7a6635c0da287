"""`GET /v1/workloads/{id}/why` over real stores: a day of yesterday with a cause of every sort."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from engine.core.records import (
    BASE_STOPPED,
    BASE_UNHEALTHY,
    BASE_UP,
    INTERVAL_DTYPE,
    KINDS,
    Event,
    FirstReport,
    FlushBatch,
    Gap,
)
from storage.ids import new_id
from tests.web.control import Answered, Control
from web.main import system_ms
from web.times import DAY_MS, format_rfc3339

MINUTE_MS = 60_000
TTL_MS = 90_000


class Day:
    """Yesterday of the first workload of olga's node, minute by minute."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.start_ms = system_ms() // DAY_MS * DAY_MS - DAY_MS
        self.text = format_rfc3339(self.start_ms)[:10]
        self.workload_id, self.other_id = control.node.workload_ids

    def at(self, minute: float) -> int:
        return self.start_ms + round(minute * MINUTE_MS)

    def time(self, minute: float) -> str:
        return format_rfc3339(self.at(minute))

    async def live(self, *rows: tuple[float, float, int], **more: Any) -> None:
        """It lived since the day before; its base rows in minutes, and what else a shard flushed."""
        await self.control.sql("update workload set created_ms = $1", self.at(-1440))
        array = np.zeros(len(rows), INTERVAL_DTYPE)
        halves = uuid.UUID(self.workload_id).int
        for place, (began, ended, kind) in enumerate(rows):
            array[place] = (
                halves >> 64,
                halves & (1 << 64) - 1,
                kind,
                self.at(began),
                self.at(ended),
                TTL_MS,
            )
        batch = {
            "shard": 0,
            "position": 1,
            "watermark_ms": system_ms(),
            "intervals": array,
            "first_reports": (FirstReport(self.workload_id, self.at(rows[0][0])),),
            **more,
        }
        await self.control.stores.history.flush(FlushBatch(**batch))

    def event(self, kind: str, minute: float, *, workload: bool = False) -> Event:
        node_id = self.control.node.node_id
        return Event(
            event_id=f"{kind}@{minute:g}",
            kind=kind,
            shard=0,
            project_id=self.control.alpha.project_id,
            node_id=node_id,
            workload_id=self.workload_id if workload else None,
            since_ms=self.at(minute),
            at_ms=self.at(minute),
        )

    async def ask(self, *, by: str = "olga", day: str | None = None) -> Answered:
        return await self.control.ask(
            "GET", f"/v1/workloads/{self.workload_id}/why?day={day or self.text}", by=by
        )

    async def told(self, *, by: str = "olga") -> Any:
        answered = await self.ask(by=by)
        assert answered.status == 200, answered.body
        uptime = await self.control.ask(
            "GET",
            f"/v1/workloads/{self.workload_id}/uptime?from={self.time(0)}&to={self.time(1440)}",
            by=by,
        )
        answer = answered.json
        assert answer["ms"] == uptime.json["ms"]
        assert answer["paid_ms"] == uptime.json["paid_ms"]
        assert sum(answer["ms"].values()) == answer["paid_ms"] + answer["unpaid_ms"]
        assert sum(round(one["seconds"] * 1000) for one in answer["unpaid"]) == answer["unpaid_ms"]
        return answer


@pytest.fixture
def day(control: Control) -> Day:
    return Day(control)


async def test_a_day_is_told_with_what_stands_behind_each_unpaid_interval(day: Day) -> None:
    await day.live(
        (-10, 60, BASE_UP),
        (70, 80, BASE_UNHEALTHY),
        (80, 200, BASE_UP),
        (300, 400, BASE_UP),
        (400, 500, BASE_STOPPED),
        (500, 1450, BASE_UP),
        gaps=(Gap(0, day.at(199), day.at(299), "crash"),),
        events=(
            day.event("node.down", 60),
            day.event("node.up", 70),
            day.event("workload.down", 70, workload=True),
            day.event("workload.up", 80, workload=True),
            day.event("node.stopped", 400),
        ),
    )
    answer = await day.told()
    assert set(answer["ms"]) == set(KINDS)
    assert [(one["kind"], one["from"], one["to"], one["seconds"]) for one in answer["unpaid"]] == [
        ("silent", day.time(60), day.time(70), 600.0),
        ("unhealthy", day.time(70), day.time(80), 600.0),
        ("unobserved", day.time(200), day.time(300), 6000.0),
        ("stopped", day.time(400), day.time(500), 6000.0),
    ]
    silent, unhealthy, unobserved, stopped = (one["cause"] for one in answer["unpaid"])
    assert silent["what"] == "node_silent"
    assert silent["event_id"] == "node.down@60"
    assert silent["last_beat"] == day.time(58.5)
    assert silent["since"] == day.time(60)
    assert (unhealthy["since"], unhealthy["event_id"]) == (day.time(70), "workload.down@70")
    assert unobserved["gaps"] == [{"shard": 0, "cause": "crash", "from": day.time(199), "to": day.time(299)}]
    assert unobserved["provisional"] is False
    assert (stopped["since"], stopped["event_id"]) == (day.time(400), "node.stopped@400")
    assert all(one["cause"]["text"] for one in answer["unpaid"])
    assert (answer["from"], answer["to"]) == (day.time(0), day.time(1440))
    assert (answer["provisional"], answer["sealed"], answer["truncated"]) == (False, None, 0)
    assert (answer["source"], answer["note"], answer["pays_claims"]) == ("native", None, True)


async def test_own_windows_are_named_and_orders_of_the_project_are_paid(day: Day) -> None:
    await day.live((0, 60, BASE_UP), (120, 1450, BASE_UP))
    windows = {}
    for own, (began, ended) in {True: (70, 80), False: (90, 100)}.items():
        windows[own] = new_id()
        await day.control.sql(
            "insert into maintenance_window (window_id, node_id, from_ms, to_ms, own, created_ms)"
            " values ($1, $2, $3, $4, $5, 0)",
            windows[own],
            day.control.node.node_id,
            day.at(began),
            day.at(ended),
            own,
        )
    answer = await day.told()
    assert [one["kind"] for one in answer["unpaid"]] == ["silent", "maintenance_own", "silent", "silent"]
    assert answer["unpaid"][1]["cause"]["windows"] == [windows[True]]


async def test_who_held_the_licence_is_told_to_those_who_may_see_that_workload(day: Day) -> None:
    control = day.control
    await day.live((0, 1450, BASE_UP))
    licence_id, holder_id = await _licence(day), control.node.workload_ids[1]
    stranger = (
        await control.sql(
            "select workload_id::text from workload where node_id = $1", control.foreign_node.node_id
        )
    )[0][0]
    for epoch, (holder, began, ended) in enumerate([(holder_id, 100, 160), (stranger, 160, 200)], 1):
        await control.sql(
            "insert into licence_lease (licence_id, epoch, holder, from_ms, to_ms, ended)"
            " values ($1, $2, $3, $4, $5, 'lost')",
            licence_id,
            epoch,
            holder,
            day.at(began),
            day.at(ended),
        )
        await control.sql(
            "insert into lease (workload_id, from_ms, to_ms, licence_id, epoch) values ($1, $2, $3, $4, $5)",
            day.workload_id,
            day.at(began),
            day.at(ended),
            licence_id,
            epoch,
        )
    answer = await day.told()
    (standby,) = answer["unpaid"]
    assert (standby["kind"], standby["seconds"]) == ("standby", 6000.0)
    assert standby["cause"]["holders"] == [
        {
            "licence_id": licence_id,
            "epoch": epoch,
            "workload_id": seen,
            "from": day.time(began),
            "to": day.time(ended),
        }
        for epoch, seen, began, ended in [(1, holder_id, 100, 160), (2, None, 160, 200)]
    ]


async def test_who_owned_the_licence_through_the_day_is_told_in_parts(day: Day) -> None:
    await day.live((0, 1450, BASE_UP))
    licence_id = await _licence(day)
    await day.control.sql(
        "insert into licence_binding (workload_id, licence_id, from_ms) values ($1, $2, $3)",
        day.workload_id,
        licence_id,
        day.at(60),
    )
    seller, buyer = "0x" + "a" * 40, "0x" + "b" * 40
    for owner, began, ended in ((seller, -100, day.at(720)), (buyer, 720, None)):
        await day.control.sql(
            "insert into ownership (licence_id, from_ms, from_block, to_ms, owner, recorded_ms)"
            " values ($1, $2, 0, $3, $4, 0)",
            licence_id,
            day.at(began),
            ended,
            owner,
        )
    assert (await day.told())["owned"] == [
        {"licence_id": licence_id, "owner": seller, "from": day.time(60), "to": day.time(720)},
        {"licence_id": licence_id, "owner": buyer, "from": day.time(720), "to": day.time(1440)},
    ]


async def test_a_seal_is_told_with_its_newest_revision(day: Day) -> None:
    await day.live((0, 1450, BASE_UP))
    for number, reason in ((1, ""), (2, "a claim was late")):
        await day.control.sql(
            """
            insert into seal (seal_no, project_id, day, revision, reason, "rows", nodes, paid_ms, root,
              hour_roots, node_blocks, sealed_ms)
            values ($1::int, $2, $3::text::date, $1::int, $4, 1, 1, 1, $5, $6, '', $7)
            """,
            number,
            day.control.alpha.project_id,
            day.text,
            reason,
            bytes(32),
            bytes(24 * 32),
            day.at(1500),
        )
    assert (await day.told())["sealed"] == {
        "revision": 2,
        "reason": "a claim was late",
        "sealed_at": day.time(1500),
    }


async def test_refused_beats_come_with_what_to_do_about_them(day: Day) -> None:
    await day.live((0, 1450, BASE_UP))
    for which, reason, count in ((0, "stale", 3), (0, "mac", 1), (1, "clock", 9)):
        await day.control.sql(
            "insert into refused_beat (day, node_id, reason, run_ms, count)"
            " values ($1::text::date + $2::int, $3, $4, 1, $5)",
            day.text,
            which,
            day.control.node.node_id,
            reason,
            count,
        )
    refused = (await day.told())["refused"]
    assert [(one["reason"], one["count"]) for one in refused] == [("stale", 3), ("mac", 1)]
    assert all(one["text"] for one in refused)


async def test_today_is_told_up_to_now(day: Day) -> None:
    await day.live((0, 1440, BASE_UP))
    answer = (await day.ask(day=format_rfc3339(system_ms())[:10])).json
    assert answer["to"] == answer["as_of"]
    assert {one["cause"]["what"] for one in answer["unpaid"]} <= {"node_silent"}


async def test_a_day_before_the_workloads_life_is_empty(day: Day) -> None:
    answer = (await day.ask(day="2020-01-01")).json
    assert sum(answer["ms"].values()) == 0
    assert (answer["unpaid"], answer["truncated"]) == ([], 0)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-02-30", "2026-1-1", "9999-12-31", "2026-01-31T00:00:00Z"]
)
async def test_a_day_that_is_none_or_has_not_begun_is_refused(day: Day, text: str) -> None:
    answered = await day.control.ask("GET", f"/v1/workloads/{day.workload_id}/why?day={text}")
    assert (answered.status, answered.json["code"]) == (400, "bad_parameter")


async def test_without_a_day_it_is_refused_and_strangers_find_nothing(day: Day) -> None:
    path = f"/v1/workloads/{day.workload_id}/why"
    assert (await day.control.ask("GET", path)).status == 400
    assert (await day.ask(by="sam")).status == 404
    assert (await day.ask(by="foreign")).status == 404


async def _licence(day: Day) -> str:
    collection_id, licence_id = new_id(), new_id()
    await day.control.sql(
        """
        insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
        values ($1, $2, 1, $3, 'erc721', 'nodes', 0)
        """,
        collection_id,
        day.control.alpha.project_id,
        "0x" + "c" * 40,
    )
    await day.control.sql(
        "insert into licence (licence_id, collection_id, project_id, token_id, created_ms)"
        " values ($1, $2, $3, 7, 0)",
        licence_id,
        collection_id,
        day.control.alpha.project_id,
    )
    return licence_id
