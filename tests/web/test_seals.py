"""Sealed days over the API: what they say is what single reads say; late beats and corrections."""

from __future__ import annotations

from random import Random
from typing import Any

import asyncpg
import pytest
import trio

from engine.core.records import KINDS
from storage.bridge import await_host
from storage.ids import new_id
from storage.postgres_sealing import CLAIMS_LOCK
from tests.sealing import Day, make_day, new_sealer, seal_a_day, seal_days
from tests.web.bulk_fleet import BulkFleet
from tests.web.control import Control
from tests.web.test_backfill import beat, take
from web.times import DAY_MS, format_rfc3339

PATH = "/v1/projects/alpha/seals"
HOUR_MS = 3_600_000


async def settled(control: Control) -> None:
    """The pretended engine says nothing of leases."""
    await control.sql("update shard_state set leases_ms = 1::bigint << 50")


@pytest.mark.parametrize(
    "seed", [pytest.param(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(20, 28))]
)
async def test_every_sealed_row_is_what_the_workload_is_told_alone(control: Control, seed: int) -> None:
    """Worlds in which everything happened: gaps, leases, windows, claims, lives that begin and end."""
    fleet = BulkFleet(control, Random(seed), nodes=20)
    await fleet.write()
    await settled(control)
    day = format_rfc3339(fleet.day_ms)[:10]
    await new_sealer(control.stores).run_once()
    seal = await control.stores.seals.seal(control.alpha.project_id, day)
    assert seal is not None
    rows = await control.stores.seals.rows(seal, after_place=-1, limit=1_000)
    kinds: set[str] = set()
    hours: dict[str, list[int]] = {row.workload_id: [0] * len(KINDS) for _, row in rows}
    for _, row in rows:
        query = f"from={format_rfc3339(fleet.day_ms)}&to={format_rfc3339(fleet.day_ms + DAY_MS)}"
        alone = (await control.ask("GET", f"/v1/workloads/{row.workload_id}/uptime?{query}")).json
        assert dict(zip(KINDS, row.ms, strict=True)) == alone["ms"], row
        assert (format_rfc3339(row.from_ms), format_rfc3339(row.to_ms)) == (alone["from"], alone["to"])
        assert row.paid_ms == alone["paid_ms"]
        kinds |= {kind for kind, ms in alone["ms"].items() if ms}
    for hour in range(24):
        for node_id in dict.fromkeys(row.node_id for _, row in rows):
            _add(hours, (await control.stores.seals.hour_leaf(seal, hour, node_id) or (0, b""))[1])
    assert hours == {row.workload_id: list(row.ms) for _, row in rows}
    assert len(rows) > 30
    assert {"up", "silent", "standby", "unobserved", "maintenance"} <= kinds


def _add(hours: dict[str, list[int]], content: bytes) -> None:
    """The cells of an hour leaf: behind 8 bytes of time and 16 of the node, 64 for each workload."""
    assert content
    for at in range(24, len(content), 64):
        raw = content[at : at + 16].hex()
        workload_id = f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
        for kind in range(len(KINDS)):
            low = at + 16 + 4 * kind
            hours[workload_id][kind] += int.from_bytes(content[low : low + 4], "big")


# -- routes -------------------------------------------------------------------------------------------------


async def test_seals_are_listed_by_days_and_looked_at_alone(control: Control) -> None:
    await settled(control)
    yesterday = control.app.backend.clock() // DAY_MS * DAY_MS - DAY_MS
    await make_day(control.stores, control.alpha.project_id, nodes=1, day_ms=yesterday - DAY_MS)
    await seal_days(control.stores)
    first = await control.ask("GET", f"{PATH}?limit=1", by="sam")
    (item,) = first.json["items"]
    assert (item["revision"], item["rows"], item["reason"]) == (1, 2, "")
    second = (await control.ask("GET", f"{PATH}?limit=1&after={first.json['next_cursor']}", by="sam")).json
    assert second["next_cursor"] is None
    (older,) = second["items"]
    assert older["day"] < item["day"]
    assert f"after={item['day']}" in first.headers["link"]
    detail = (await control.ask("GET", f"{PATH}/{older['day']}", by="olga")).json
    assert detail["root"] == older["root"]
    assert len(detail["hour_roots"]) == 24
    assert sum(detail["ms"].values()) == 2 * DAY_MS
    assert (await control.ask("GET", f"{PATH}/{older['day']}?revision=1")).json == detail
    for path, status in (
        (f"{PATH}/{older['day']}?revision=2", 404),
        (f"{PATH}/{older['day']}?revision=0", 400),
        (f"{PATH}/2020-01-01", 404),
        (f"{PATH}/today", 404),
        (f"{PATH}?after=x", 400),
        (f"{PATH}?limit=0", 400),
    ):
        assert (await control.ask("GET", path)).status == status, path


async def a_sealed_day(control: Control) -> Day:
    await settled(control)
    return await seal_a_day(control.stores, control.alpha.project_id, nodes=1, workloads=2)


async def test_a_correction_is_carried_out_and_tells_what_it_changed(control: Control) -> None:
    day = await a_sealed_day(control)
    body = {
        "reason": "planned work",
        "maintenances": [
            {
                "workload_id": day.workload_ids[1],
                "from": format_rfc3339(day.day_ms + 10 * HOUR_MS),
                "to": format_rfc3339(day.day_ms + 11 * HOUR_MS),
            }
        ],
    }
    path = f"{PATH}/{day.day}/corrections"
    asked = await control.ask("POST", path, by="paul", json=body, key="k")
    assert (asked.status, asked.json["done_at"], asked.json["maintenances"]) == (202, None, 1)
    again = await control.ask("POST", path, by="paul", json=body, key="k")
    assert again.json == asked.json
    await seal_days(control.stores)
    done = (await control.ask("GET", f"{path}/{asked.json['correction_id']}", by="owner")).json
    assert (done["revision"], done["rows_changed"]) == (2, 1)
    assert done["paid_after_ms"] - done["paid_before_ms"] == HOUR_MS
    assert [row["workload_id"] for row in done["changed"]] == [day.workload_ids[1]]
    listed = (await control.ask("GET", path, by="owner")).json["items"]
    assert listed == [{**done, "changed": []}]
    newest = (await control.ask("GET", f"{PATH}/{day.day}")).json
    assert (newest["revision"], newest["reason"]) == (2, "planned work")
    audit = await control.sql("select subject from audit where action = 'seal.correct'")
    assert [tuple(row) for row in audit] == [(asked.json["correction_id"],)]
    windows = await control.sql("select own, workload_id::text from maintenance_window")
    assert [tuple(row) for row in windows] == [(False, day.workload_ids[1])]


async def test_what_cannot_be_corrected_is_refused_and_grants_nothing(control: Control) -> None:
    day = await a_sealed_day(control)
    path = f"{PATH}/{day.day}/corrections"
    inside = {"from": format_rfc3339(day.day_ms), "to": format_rfc3339(day.day_ms + 1)}
    outside = {"from": format_rfc3339(day.day_ms), "to": format_rfc3339(day.day_ms + DAY_MS + 1)}
    backwards = {"from": inside["to"], "to": inside["from"]}
    mine = day.workload_ids[0]
    cases: list[tuple[str, Any, int, str]] = [
        (path, {"reason": ""}, 400, "malformed"),
        (path, {"reason": "a\0"}, 400, "malformed"),
        (f"{PATH}/2020-01-01/corrections", {"reason": "r"}, 404, "not_sealed"),
        (f"{PATH}/x/corrections", {"reason": "r"}, 404, "not_found"),
    ]
    for span, code in ((outside, "invalid"), (backwards, "invalid"), ({"from": "x", "to": "y"}, "invalid")):
        cases.append((path, {"reason": "r", "maintenances": [{"workload_id": mine, **span}]}, 422, code))
    for theirs in (control.foreign_node.workload_ids[0], new_id(), "x"):
        body = {"reason": "r", "maintenances": [{"workload_id": theirs, **inside}]}
        cases.append((path, body, 422, "unknown_reference"))
    cases.append((path, {"reason": "r", "gap": {"shard": 0, **inside}}, 403, "forbidden"))
    for where, body, status, code in cases:
        answer = await control.ask("POST", where, by="owner", json=body)
        assert (answer.status, answer.json["code"]) == (status, code), body
    answer = await control.ask("POST", path, json={"reason": "r", "gap": {"shard": 1, **inside}})
    assert answer.status == 422
    assert await control.sql("select * from maintenance_window") == []
    assert await control.sql("select * from seal_correction") == []
    assert await control.sql("select * from gap") == []


async def test_a_gap_that_was_written_down_late_is_declared_by_an_admin(control: Control) -> None:
    """Silence of a workload that was covered when it began becomes unobserved; the first revision stays."""
    day = await a_sealed_day(control)
    gap = {
        "shard": 0,
        "from": format_rfc3339(day.day_ms + 9 * HOUR_MS - 1_000),
        "to": format_rfc3339(day.day_ms + 12 * HOUR_MS),
    }
    path = f"{PATH}/{day.day}/corrections"
    answer = await control.ask("POST", path, json={"reason": "lost shard", "gap": gap})
    assert answer.status == 202
    await seal_days(control.stores)
    newest = (await control.ask("GET", f"{PATH}/{day.day}")).json
    assert (newest["revision"], newest["ms"]["unobserved"]) == (2, 3 * HOUR_MS + 1)
    assert (await control.ask("GET", f"{PATH}/{day.day}?revision=1")).json["ms"]["unobserved"] == 0


# -- late beats ---------------------------------------------------------------------------------------------


async def test_beats_of_a_sealed_day_come_too_late(control: Control) -> None:
    day = await a_sealed_day(control)
    end_ms = day.day_ms + DAY_MS
    assert await take(control, beat(end_ms - 2), beat(end_ms - 1), beat(end_ms)) == (1, {"sealed": 2})
    stored = await control.sql("select distinct at_ms from claim")
    assert [tuple(row) for row in stored] == [(end_ms,)]


async def test_a_seal_begins_after_claims_that_are_being_stored(control: Control) -> None:
    """Whoever stores claims holds the project's lock shared until they are committed: the seal reads them."""
    await settled(control)
    await make_day(control.stores, control.alpha.project_id, nodes=1, workloads=1)
    sealed = trio.Event()

    async def seal() -> None:
        await seal_days(control.stores)
        sealed.set()

    await control.sql("select 1")
    held = await await_host(_hold, control)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seal)
        with trio.fail_after(10):
            while not await control.sql("select from pg_locks where not granted"):  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not sealed.is_set()
        assert await control.sql("select * from sealing") == []
        await await_host(held.close)
    assert len(await control.sql("select * from sealing")) == 1
    assert len(await control.sql("select * from seal")) == 1


async def _hold(control: Control) -> Any:
    connection = await asyncpg.connect(control.postgres_url)
    await connection.execute(
        "select pg_advisory_lock_shared($1, hashtext($2))", CLAIMS_LOCK, control.alpha.project_id
    )
    return connection
