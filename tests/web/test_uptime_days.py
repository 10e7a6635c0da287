"""Uptime by day over real stores: sealed days as the newest seal has them, others as `/uptime` does."""

from __future__ import annotations

import pytest

from engine.core.sealed import DAY_MS
from tests.sealing import Day, seal_a_day
from tests.web.control import Control, system_ms
from web.times import format_rfc3339


@pytest.fixture
async def day(control: Control) -> Day:
    """Yesterday of alpha, sealed; its nodes are olga's."""
    made = await seal_a_day(control.stores, control.alpha.project_id, nodes=2)
    await control.sql(
        "update node set owner_id = $1 where node_id = any($2)",
        control.users["olga"],
        [node.node_id for node in made.nodes],
    )
    return made


async def test_a_sealed_day_is_told_as_its_seal_has_it_and_today_as_uptime_has_it(control: Control, day: Day):
    workload_id = day.workload_ids[1]
    answer = await control.ask("GET", f"/v1/workloads/{workload_id}/days", by="olga")
    assert answer.status == 200, answer.json
    yesterday, today = answer.json["items"]
    path = f"/v1/workloads/{workload_id}/uptime?from={day.day}T00:00:00Z"
    uptime = (await control.ask("GET", f"{path}&to={today['day']}T00:00:00Z", by="olga")).json
    assert yesterday == {
        "day": day.day,
        "revision": 1,
        "window_ms": DAY_MS,
        "paid_ms": uptime["paid_ms"],
        "up_ms": uptime["ms"]["up"],
        "unobserved_ms": uptime["ms"]["unobserved"],
        "ratio": uptime["ratio"],
        "provisional": False,
    }
    assert 0 < yesterday["paid_ms"] < DAY_MS
    assert (today["revision"], today["provisional"]) == (None, True)
    assert 0 < today["window_ms"] <= system_ms() % DAY_MS + 1_000


async def test_a_nodes_days_are_those_of_its_workloads(control: Control, day: Day):
    node = day.nodes[1]
    answer = (await control.ask("GET", f"/v1/nodes/{node.node_id}/days", by="olga")).json
    assert [item["workload_id"] for item in answer["items"]] == list(node.workload_ids)
    for item in answer["items"]:
        alone = await control.ask("GET", f"/v1/workloads/{item['workload_id']}/days?to={_today()}", by="olga")
        assert item["days"][:1] == alone.json["items"]
    listed = (await control.ask("GET", "/v1/nodes?days=7", by="olga")).json["items"]
    [found] = [one for one in listed if one["node_id"] == node.node_id]
    assert found["days"] == [
        {
            "day": day.day,
            "window_ms": 2 * DAY_MS,
            "paid_ms": sum(item["days"][0]["paid_ms"] for item in answer["items"]),
            "unobserved_ms": 0,
        }
    ]
    assert "days" not in (await control.ask("GET", "/v1/nodes", by="olga")).json["items"][0]


async def test_a_corrected_day_is_told_as_corrected(control: Control, day: Day):
    workload_id = day.workload_ids[1]
    [[number]] = await control.sql(
        "select seal_no from seal where project_id = $1 and day = $2::text::date",
        control.alpha.project_id,
        day.day,
    )
    await control.sql(
        """
        insert into sealed_row select ($1 + 1000), place, workload_id, node_id, operator_id, kind, source,
          from_ms, to_ms, ms, $2, held, refused, hours from sealed_row where seal_no = $1 and workload_id = $3
        """,
        number,
        DAY_MS,
        workload_id,
    )
    await control.sql(
        """
        insert into seal (seal_no, project_id, day, revision, reason, "rows", nodes, paid_ms, root,
          hour_roots, node_blocks, kinds_ms, sealed_ms)
        select seal_no + 1000, project_id, day, 2, 'looked again', 1, 1, paid_ms, root,
          hour_roots, node_blocks, kinds_ms, sealed_ms from seal where seal_no = $1
        """,
        number,
    )
    [told] = (await control.ask("GET", f"/v1/workloads/{workload_id}/days?to={_today()}", by="olga")).json[
        "items"
    ]
    assert (told["revision"], told["paid_ms"]) == (2, DAY_MS)


async def test_days_that_are_asked_for_wrongly_are_refused(control: Control):
    path = f"/v1/workloads/{control.node.workload_ids[0]}/days"
    for query in (
        "from=x",
        "from=2026-01-02&to=2026-01-01",
        "from=2024-01-01&to=2026-01-01",
        "to=0001-01-01",
    ):
        assert (await control.ask("GET", f"{path}?{query}", by="olga")).status == 400, query
    assert (await control.ask("GET", "/v1/nodes?days=32", by="olga")).status == 400
    assert (await control.ask("GET", f"{path}?to=0001-03-01", by="olga")).json["items"] == []


async def test_the_newest_events_come_first_and_go_on_backwards(control: Control, day: Day):
    for number in range(5):
        await control.sql(
            """
            insert into event (event_id, kind, shard, project_id, node_id, since_ms, at_ms, workloads, detail)
            values ($1, 'node.down', 0, $2, $3, 1, 1, '{}', '')
            """,
            f"event-{number}",
            control.alpha.project_id,
            control.node.node_id,
        )
    seen: list[str] = []
    after = "0"
    while after is not None:
        path = f"/v1/events?newest=true&node={control.node.node_id}&limit=2&after={after}"
        page = (await control.ask("GET", path, by="olga")).json
        seen += [item["event_id"] for item in page["items"]]
        after = page["next_cursor"]
    assert [each for each in seen if each.startswith("event-")] == [f"event-{n}" for n in (4, 3, 2, 1, 0)]
    assert (await control.ask("GET", "/v1/events?newest=true", by="sam")).json["items"] == []


def _today() -> str:
    return format_rfc3339(system_ms())[:10]
