"""Nodes and what a key may see of them."""

from __future__ import annotations

import msgspec
import pytest
import trio

from engine.core.records import NODE_STATES, NodeState
from tests.web.fakes import (
    ADMIN_KEY,
    BASE_MS,
    DAY_MS,
    FOREIGN_KEY,
    PROJECT_KEY,
    World,
    bearer,
    up_slot,
)


async def test_a_node_tells_its_state_and_its_workloads(world: World) -> None:
    world.add_workload(world.node, slot=1)
    now = world.now_ms()
    world.report(up_slot(now - 5_000, now - 1_000), up_slot(now - 5_000, now - 1_000, kind=2))
    response = await world.client.get(f"/v1/nodes/{world.node.node_id}", headers=bearer(PROJECT_KEY))
    answer = await response.get_json()
    assert response.status_code == 200
    assert (answer["state"], answer["ttl_ms"]) == ("up", 90_000)
    assert answer["last_beat"] is not None
    assert [(each["slot"], each["state"]) for each in answer["workloads"]] == [(0, "up"), (1, "unhealthy")]


async def test_a_node_never_heard_of_is_new(world: World) -> None:
    response = await world.client.get(f"/v1/nodes/{world.node.node_id}", headers=bearer(PROJECT_KEY))
    answer = await response.get_json()
    assert (answer["state"], answer["since"], answer["last_beat"]) == ("new", None, None)
    assert answer["workloads"][0]["state"] == "new"


@pytest.mark.parametrize("state", NODE_STATES)
async def test_every_state_of_a_node_is_told_as_it_is(world: World, state: NodeState) -> None:
    world.report(up_slot(world.now_ms(), world.now_ms()), state=state)
    response = await world.client.get(f"/v1/nodes/{world.node.node_id}", headers=bearer(PROJECT_KEY))
    assert (await response.get_json())["state"] == state


async def test_with_the_live_view_away_a_nodes_state_is_unavailable(world: World) -> None:
    world.live.away = True
    response = await world.client.get(f"/v1/nodes/{world.node.node_id}", headers=bearer(PROJECT_KEY))
    assert response.status_code == 503


@pytest.mark.parametrize(
    "path", ["/v1/nodes/{node}", "/v1/workloads/{workload}", "/v1/workloads/{workload}/uptime"]
)
async def test_another_projects_things_look_as_if_they_did_not_exist(world: World, path: str) -> None:
    there = path.format(node=world.node.node_id, workload=world.workload.workload_id)
    nowhere = path.format(node="00000000-0000-0000-0000-000000000000", workload="no-uuid")
    headers = {**bearer(FOREIGN_KEY), "x-request-id": "same"}
    foreign = await world.client.get(there, headers=headers)
    missing = await world.client.get(nowhere, headers=headers)
    assert foreign.status_code == missing.status_code == 404
    assert await foreign.get_data() == await missing.get_data()
    assert (await world.client.get(there, headers=bearer(ADMIN_KEY))).status_code == 200


async def test_nodes_are_listed_by_cursor_and_only_the_callers(world: World) -> None:
    world.add_node(world.foreign, row=1, key=None)
    for row in range(2, 6):
        world.add_node(world.project, row=row, key=None)
    seen, after = [], "00000000-0000-0000-0000-000000000000"
    while True:
        url = f"/v1/nodes?limit=2&after={after}"
        response = await world.client.get(url, headers=bearer(PROJECT_KEY))
        answer = await response.get_json()
        seen += [item["node_id"] for item in answer["items"]]
        after = answer["next_cursor"]
        if after is None:
            assert "link" not in response.headers
            break
        assert response.headers["link"] == f'</v1/nodes?limit=2&after={after}>; rel="next"'
    assert len(seen) == len(set(seen)) == 5
    everything = await (await world.client.get("/v1/nodes", headers=bearer(ADMIN_KEY))).get_json()
    assert len(everything["items"]) == 6


async def test_a_listed_node_tells_how_it_is_by_one_read_for_the_page(world: World) -> None:
    silent = world.add_node(world.project, row=1, key=None)
    now = world.now_ms()
    world.report(up_slot(now - 5_000, now - 1_000), state="suspect")
    answer = await (await world.client.get("/v1/nodes", headers=bearer(PROJECT_KEY))).get_json()
    items = {item["node_id"]: item for item in answer["items"]}
    alone = await world.client.get(f"/v1/nodes/{world.node.node_id}", headers=bearer(PROJECT_KEY))
    one = await alone.get_json()
    for name in ("state", "since", "last_beat"):
        assert one[name] is not None
        assert items[world.node.node_id][name] == one[name]
    assert items[world.node.node_id]["state"] == "suspect"
    other = items[silent.node_id]
    assert (other["state"], other["since"], other["last_beat"]) == ("new", None, None)
    assert world.live.row_reads == 1


async def test_a_beat_before_the_question_is_in_the_list(world: World) -> None:
    world.live.lag_ms = 300
    began = trio.current_time()
    response = await world.client.get("/v1/nodes", headers=bearer(PROJECT_KEY))
    assert response.status_code == 200
    assert trio.current_time() - began >= 0.3, "the view had to reach the moment of asking"


@pytest.mark.parametrize("gone", ["away", "silent"])
async def test_nodes_are_listed_without_a_state_while_the_live_view_is_away(world: World, gone: str) -> None:
    setattr(world.live, gone, True)
    answer = await (await world.client.get("/v1/nodes", headers=bearer(PROJECT_KEY))).get_json()
    assert [item["state"] for item in answer["items"]] == [None]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/v1/nodes?after=x", "take next_cursor"),
        ("/v1/events?after=x", "take next_cursor"),
        ("/v1/workloads/{old}/uptime", "ask in parts"),
    ],
)
async def test_a_refusal_says_what_to_do(world: World, path: str, advice: str) -> None:
    old = world.add_workload(world.node, slot=2)
    aged = msgspec.structs.replace(old, created_ms=BASE_MS - 500 * DAY_MS)
    world.directory.workloads[old.workload_id] = aged
    url = path.format(old=old.workload_id)
    response = await world.client.get(url, headers=bearer(PROJECT_KEY))
    assert response.status_code == 400
    assert advice in (await response.get_json(force=True))["detail"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "after=x"])
async def test_a_page_that_cannot_be_is_refused(world: World, query: str) -> None:
    response = await world.client.get(f"/v1/nodes?{query}", headers=bearer(ADMIN_KEY))
    assert response.status_code == 400


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Basic x"}, bearer(""), bearer("wrong"), bearer("x" * 999)]
)
async def test_without_a_valid_key_nothing_is_told(world: World, headers: dict[str, str]) -> None:
    response = await world.client.get("/v1/nodes", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert (await response.get_json(force=True))["code"] == "unauthorized"


async def test_a_revoked_key_stops_working_within_a_second(world: World) -> None:
    assert (await world.client.get("/v1/nodes", headers=bearer(PROJECT_KEY))).status_code == 200
    lookups = world.directory.lookups
    assert (await world.client.get("/v1/nodes", headers=bearer(PROJECT_KEY))).status_code == 200
    assert world.directory.lookups == lookups, "believed for a moment"
    world.revoke(PROJECT_KEY)
    await trio.sleep(1)
    assert (await world.client.get("/v1/nodes", headers=bearer(PROJECT_KEY))).status_code == 401
