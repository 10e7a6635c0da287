"""Points are committed all or nothing, once, for a day that is over, and never as floats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.web.fakes import ADMIN_KEY, DAY_MS, FOREIGN_KEY, PROJECT_KEY, World, bearer
from web.points import micro_of_points, points_of_micro
from web.times import format_rfc3339

PATH = "/v1/projects/alpha/points"


def yesterday(world: World) -> str:
    return format_rfc3339(world.now_ms() - DAY_MS)[:10]


async def commit(world: World, body: Any, *, key: str | None = "k-1", api_key: str = PROJECT_KEY) -> Any:
    headers = {**bearer(api_key), **({} if key is None else {"idempotency-key": key})}
    return await world.client.post(PATH, data=json.dumps(body), headers=headers)


def body_of(world: World, **changes: Any) -> dict[str, Any]:
    row = {"workload_id": world.workload.workload_id, "points": "1.5"}
    return {"day": yesterday(world), "rows": [row], **changes}


async def test_a_commit_is_answered_and_found_in_the_totals(world: World) -> None:
    second = world.add_workload(world.node, slot=1)
    rows = [
        {"workload_id": world.workload.workload_id, "points": "0.000001"},
        {"workload_id": second.workload_id, "points": "12"},
    ]
    response = await commit(world, body_of(world, rows=rows))
    answer = await response.get_json()
    assert response.status_code == 201
    assert (answer["project"], answer["rows"], answer["total_points"]) == ("alpha", 2, "12.000001")
    url = f"{PATH}?day={yesterday(world)}"
    totals = await (await world.client.get(url, headers=bearer(PROJECT_KEY))).get_json()
    assert totals == {
        "project": "alpha",
        "day": yesterday(world),
        "total_points": "12.000001",
        "items": [{"user": "node-1", "points": "12.000001"}],
    }
    empty = await (await world.client.get(f"{PATH}?day=2020-01-01", headers=bearer(ADMIN_KEY))).get_json()
    assert (empty["items"], empty["total_points"]) == ([], "0")


async def test_the_same_key_and_body_again_get_the_stored_answer(world: World) -> None:
    first = await commit(world, body_of(world))
    again = await commit(world, body_of(world))
    assert (first.status_code, again.status_code) == (201, 201)
    assert await first.get_data() == await again.get_data()
    assert len(world.ledger.commits) == 1


async def test_the_same_key_with_another_body_is_refused(world: World) -> None:
    await commit(world, body_of(world))
    other = body_of(world, rows=[{"workload_id": world.workload.workload_id, "points": "2"}])
    response = await commit(world, other)
    assert (response.status_code, (await response.get_json(force=True))["code"]) == (
        422,
        "idempotency_key_reused",
    )


async def test_a_day_is_committed_once(world: World) -> None:
    await commit(world, body_of(world))
    response = await commit(world, body_of(world), key="k-2")
    assert (response.status_code, (await response.get_json(force=True))["code"]) == (409, "already_committed")


@pytest.mark.parametrize("key", [None, "", "a b", "é", "x" * 256])
async def test_a_commit_needs_an_idempotency_key(world: World, key: str | None) -> None:
    response = await commit(world, body_of(world), key=key)
    assert response.status_code == 400
    assert "Idempotency-Key" in (await response.get_json(force=True))["detail"]


async def test_a_day_that_is_not_over_is_refused(world: World) -> None:
    today = format_rfc3339(world.now_ms())[:10]
    response = await commit(world, body_of(world, day=today))
    assert (response.status_code, (await response.get_json(force=True))["code"]) == (409, "day_not_over")


async def test_a_day_that_is_over_by_our_clock_alone_is_not_over(world: World) -> None:
    """The engine's clock counts: beats of that day are still being taken by it."""
    import trio

    await trio.sleep(1)
    world.system_offset_ms = DAY_MS
    today = format_rfc3339(world.now_ms())[:10]
    assert (await commit(world, body_of(world, day=today))).status_code == 409


async def test_everything_wrong_is_pointed_at_and_nothing_is_committed(world: World) -> None:
    theirs = world.add_workload(world.add_node(world.foreign, row=9, key=None), slot=0)
    mine = world.workload.workload_id
    rows = [
        {"workload_id": mine, "points": "1"},
        {"workload_id": mine.upper(), "points": "1"},
        {"workload_id": theirs.workload_id, "points": "1"},
        {"workload_id": "00000000-0000-7000-8000-000000000000", "points": "1"},
        {"workload_id": "nonsense", "points": "1"},
        {"workload_id": world.add_workload(world.node, slot=1).workload_id, "points": "1.0000001"},
    ]
    response = await commit(world, body_of(world, rows=rows))
    problem = await response.get_json(force=True)
    assert (response.status_code, problem["code"]) == (422, "rows_refused")
    assert {fault["pointer"] for fault in problem["errors"]} == {
        "/rows/1/workload_id",
        "/rows/2/workload_id",
        "/rows/3/workload_id",
        "/rows/4/workload_id",
        "/rows/5/points",
    }
    assert world.ledger.commits == {}


async def test_an_empty_list_does_not_close_the_day(world: World) -> None:
    assert (await commit(world, body_of(world, rows=[]))).status_code == 422


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"day": "2020-01-01", "rows": [{"workload_id": "x", "points": 1.5}]}, "/rows/0/points"),
        ({"day": "2020-02-30", "rows": []}, "/day"),
        ({"day": 1, "rows": []}, "/day"),
        ({"day": "2020-01-01", "rows": {}}, "/rows"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_malformed(world: World, body: Any, pointer: str) -> None:
    response = await commit(world, body)
    problem = await response.get_json(force=True)
    assert (response.status_code, problem["code"]) == (400, "malformed")
    assert problem["errors"][0]["pointer"] == pointer


async def test_only_the_project_and_an_admin_may_commit(world: World) -> None:
    assert (await commit(world, body_of(world), api_key=FOREIGN_KEY)).status_code == 404
    assert (await commit(world, body_of(world), api_key="wrong")).status_code == 401
    assert (await commit(world, body_of(world), api_key=ADMIN_KEY)).status_code == 201


async def test_a_hundred_errors_are_told_and_the_rest_counted(world: World) -> None:
    rows = [{"workload_id": "nonsense", "points": "1"}] * 250
    problem = await (await commit(world, body_of(world, rows=rows))).get_json(force=True)
    assert len(problem["errors"]) == 100
    assert "of 250" in problem["detail"]


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("0", 0),
        ("1", 1_000_000),
        ("0.1", 100_000),
        ("1.000001", 1_000_001),
        ("999999999999.999999", 10**18 - 1),
    ],
)
def test_points_become_micro_points_exactly_and_back(text: str, micro: int) -> None:
    assert micro_of_points(text) == micro
    assert points_of_micro(micro) == text


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.", ".5", "1e3", "01", "1.0000001", "1000000000000", "NaN", "١", "1\n", " 1"]
)
def test_what_is_no_decimal_with_six_places_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal string"):
        micro_of_points(text)
