"""A project's summary counts everybody once, by state, kind, version and region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

from engine.core.liveview import ROW_BYTES, ROW_DTYPE, SLOT_BYTES, SLOT_DTYPE
from engine.core.ports import NewNode
from engine.core.records import BASE_STOPPED, BASE_UP, NODE_STATES
from storage.ids import new_id
from tests.web.control import Control
from web import summaries
from web.main import system_ms


def some(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


async def summary(control: Control, by: str = "owner") -> Any:
    answer = await control.ask("GET", "/v1/projects/alpha/summary", by=by)
    assert answer.status == 200, answer
    return answer.json


async def fill(control: Control) -> None:
    """Three nodes of two workloads in alpha beside `mine` (eu): up and silent, down, stopped."""
    now_ms = system_ms()
    news = [
        NewNode(control.alpha.project_id, name, "node", None, 60_000, ("a", "b"), (), None, region)
        for name, region in (("one", "eu"), ("two", "us"), ("three", ""))
    ]
    nodes = await control.stores.directory.create_nodes(news, now_ms=now_ms - 1_000_000)
    kind = new_id()
    await control.sql(
        "insert into workload_kind (kind_id, project_id, slug, name, created_ms)"
        " values ($1, $2, 'edge', '', 1)",
        kind,
        control.alpha.project_id,
    )
    await control.sql(
        "update workload set kind_id = $1, running_version = '1.0' where workload_id = any($2::uuid[])",
        kind,
        [node.workload_ids[0] for node in nodes],
    )
    states = ("up", "down", "stopped")
    slots = ((BASE_UP, 0), (0, 0), (BASE_STOPPED, BASE_STOPPED))
    rows: list[tuple[int, bytes]] = []
    pages: list[tuple[int, bytes]] = []
    for number, node in enumerate(nodes):
        row, both = np.zeros(1, ROW_DTYPE), np.zeros(2, SLOT_DTYPE)
        row["state"], row["ttl_ms"], row["last_t_ms"] = NODE_STATES.index(states[number]), 90_000, now_ms
        row["slot_base"], row["slot_count"] = 10 + 2 * number, 2
        both["kind"], both["ttl_ms"], both["started_ms"] = slots[number], 90_000, now_ms - 5_000
        both["first_report_ms"] = now_ms - 900_000
        rows.append((node.row * ROW_BYTES, row.tobytes()))
        pages.append(((10 + 2 * number) * SLOT_BYTES, both.tobytes()))
    control.engine.pages.append((rows, pages))
    await control.wait_state(nodes[0].node_id, "up")


async def test_everybody_is_counted_once(control: Control) -> None:
    await fill(control)
    told = await summary(control)
    assert (told["project"], told["nodes"]["total"], told["workloads"]["total"]) == ("alpha", 4, 8)
    assert some(told["nodes"]["by_state"]) == {"new": 1, "up": 1, "down": 1, "stopped": 1}
    assert some(told["workloads"]["by_state"]) == {"new": 2, "up": 1, "silent": 3, "stopped": 2}
    assert set(told["nodes"]["by_state"]) == {*NODE_STATES, "unknown"}
    kinds = {each["kind"]: each for each in told["kinds"]}
    assert {kind: each["total"] for kind, each in kinds.items()} == {None: 5, "edge": 3}
    [version] = kinds["edge"]["versions"]
    assert (version["version"], some(version["by_state"])) == ("1.0", {"up": 1, "silent": 1, "stopped": 1})
    regions = {each["region"]: each for each in told["regions"]}
    assert {name: each["nodes"]["total"] for name, each in regions.items()} == {"": 1, "eu": 2, "us": 1}
    assert some(regions["eu"]["workloads"]["by_state"]) == {"new": 2, "up": 1, "silent": 1}
    for name in ("nodes", "workloads"):
        assert sum(each[name]["total"] for each in told["regions"]) == told[name]["total"]


async def test_who_is_gone_is_not_counted(control: Control) -> None:
    await fill(control)
    await control.sql("update node set retired_ms = 1 where name = 'one'")
    await control.sql("update node set revoked_ms = 1 where name = 'two'")
    await control.sql("update workload set retired_ms = 1 where name = 'b'")
    told = await summary(control)
    assert (told["nodes"]["total"], told["workloads"]["total"]) == (2, 3)


async def test_only_who_runs_the_project_is_told(control: Control) -> None:
    wanted = {
        "admin": 200,
        "owner": 200,
        "paul": 200,
        "olga": 403,
        "sam": 403,
        "foreign": 404,
        "manager": 403,
    }
    for by, status in wanted.items():
        answer = await control.ask("GET", "/v1/projects/alpha/summary", by=by)
        assert answer.status == status, (by, answer)


async def test_who_has_it_already_is_not_told_again(control: Control) -> None:
    first = await control.ask("GET", "/v1/projects/alpha/summary")
    again = await control.ask(
        "GET", "/v1/projects/alpha/summary", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status, again.body) == (304, b"")


async def test_many_who_ask_at_once_are_answered_by_one_count(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "PAUSE_S", 60.0)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(summary, control)
    assert control.app.backend.summaries.statistics()["counted_total"] == 1


async def test_a_change_shows_after_a_moment(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "VIEW_S", 0.0)
    monkeypatch.setattr(summaries, "LATE_S", 0.0)
    assert (await summary(control))["nodes"]["by_state"]["up"] == 0
    now_ms = system_ms()
    control.engine.beat(control.node, now_ms, now_ms)
    await control.wait_state(control.node.node_id, "up")
    assert (await summary(control))["nodes"]["by_state"]["up"] == 1


async def test_projects_that_nobody_asks_about_are_forgotten(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "KEPT_MAX", 1)
    monkeypatch.setattr(summaries, "PAUSE_S", 60.0)
    for slug in ("alpha", "beta", "alpha"):
        await control.ask("GET", f"/v1/projects/{slug}/summary")
    assert control.app.backend.summaries.statistics() == {"projects": 1, "counted_total": 3}


async def test_an_empty_project_has_an_empty_summary(control: Control) -> None:
    await control.stores.directory.create_project("empty", now_ms=system_ms())
    told = (await control.ask("GET", "/v1/projects/empty/summary")).json
    assert (told["nodes"]["total"], told["workloads"]["total"], told["kinds"], told["regions"]) == (
        0,
        0,
        [],
        [],
    )
    assert told["as_of"] is None
