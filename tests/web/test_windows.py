"""Maintenance windows over the API: who opens which, what is refused, and taking them back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.control import Control
from web.main import system_ms
from web.times import format_rfc3339

MINUTE_MS = 60_000


def span(from_minutes: float, minutes: float, **more: Any) -> dict[str, Any]:
    """A window that begins so many minutes after the beginning of the day after tomorrow."""
    begin_ms = (system_ms() // 86_400_000 + 2) * 86_400_000 + int(from_minutes * MINUTE_MS)
    end_ms = begin_ms + int(minutes * MINUTE_MS)
    return {"from": format_rfc3339(begin_ms), "to": format_rfc3339(end_ms), **more}


@pytest.fixture
def path(control: Control) -> str:
    return f"/v1/nodes/{control.node.node_id}/windows"


async def test_an_operators_window_is_their_own_and_the_projects_is_not(control: Control, path: str):
    operators = await control.ask("POST", path, by="olga", json=span(0, 10))
    owners = await control.ask("POST", path, by="owner", json=span(20, 10))
    assert (operators.status, operators.json["own"]) == (201, True)
    assert (owners.status, owners.json["own"]) == (201, False)
    paid = await control.ask("POST", path, by="olga", json=span(40, 10, own=False))
    assert paid.status == 403
    listed = await control.ask("GET", path, by="olga")
    assert [one["window_id"] for one in listed.json["items"]] == [
        operators.json["window_id"],
        owners.json["window_id"],
    ]


async def test_the_engine_hears_of_a_window_and_of_its_end(control: Control, path: str):
    made = await control.ask("POST", path, by="owner", json=span(0, 10))
    position = await control.stores.registry.position()
    _, (spec,) = await control.stores.registry.changes(position - 1, shard=0, shards=1)
    assert [window.window_id for window in spec.windows] == [made.json["window_id"]]
    gone = await control.ask("DELETE", f"{path}/{made.json['window_id']}", by="owner")
    assert gone.status == 204
    _, (spec,) = await control.stores.registry.changes(position, shard=0, shards=1)
    assert spec.windows == ()
    assert (await control.ask("DELETE", f"{path}/{made.json['window_id']}", by="owner")).status == 404


async def test_the_same_request_again_opens_nothing_twice(control: Control, path: str):
    asked = span(0, 60)
    first = await control.ask("POST", path, by="owner", json=asked, headers={"idempotency-key": "once"})
    again = await control.ask("POST", path, by="owner", json=asked, headers={"idempotency-key": "once"})
    assert first.status == again.status == 201
    assert first.json == again.json
    more = await control.ask("POST", path, by="olga", json=span(100, 1))
    assert (more.status, more.json["code"]) == (422, "window_refused")
    assert "60 at most" in more.json["detail"]


async def test_what_is_late_or_no_window_is_refused_with_what_to_do(control: Control, path: str):
    late = {"from": "2020-01-01T00:00:00Z", "to": "2020-01-01T00:10:00Z"}
    for asked, status in ((late, 422), (span(10, -5), 422), ({**late, "from": "now"}, 400)):
        answer = await control.ask("POST", path, by="owner", json=asked)
        assert answer.status == status, answer.json
    foreign = control.foreign_node.workload_ids[0]
    answer = await control.ask("POST", path, by="owner", json=span(0, 5, workload_id=foreign))
    assert answer.status == 409, answer.json


async def test_one_that_is_open_ends_now_and_one_that_is_over_stays(control: Control, path: str):
    made = await control.ask("POST", path, by="owner", json=span(0, 10))
    window_id, now_ms = made.json["window_id"], system_ms()
    await control.sql(
        "update maintenance_window set from_ms = $2, to_ms = $3 where window_id = $1",
        window_id,
        now_ms - MINUTE_MS,
        now_ms + MINUTE_MS,
    )
    assert (await control.ask("DELETE", f"{path}/{window_id}", by="olga")).status == 403
    assert (await control.ask("DELETE", f"{path}/{window_id}", by="owner")).status == 204
    (left,) = (await control.ask("GET", path, by="olga")).json["items"]
    assert now_ms <= system_ms()
    assert left["to"] <= format_rfc3339(system_ms())
    assert (await control.ask("DELETE", f"{path}/{window_id}", by="owner")).status == 409


async def test_windows_taken_back_still_count_among_the_twenty_four_of_their_day(control: Control, path: str):
    """A hundred of a millisecond each, opened and taken back, put off every verdict of the day."""
    for number in range(24):
        made = await control.ask("POST", path, by="olga", json=span(number * 2, 1))
        assert made.status == 201, made.json
        assert (await control.ask("DELETE", f"{path}/{made.json['window_id']}", by="olga")).status == 204
    more = await control.ask("POST", path, by="olga", json=span(100, 1))
    assert (more.status, more.json["code"]) == (422, "window_refused")
    assert "24 at most" in more.json["detail"]
    short = await control.ask("POST", path, by="olga", json=span(1_500, 0.01))
    assert "a minute at least" in short.json["detail"]
    assert (await control.ask("POST", path, by="olga", json=span(1_500, 1))).status == 201
