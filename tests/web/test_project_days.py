"""`/v1/projects/{slug}/days`: every day of a project with how far it is closed, newest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from tests.sealing import make_day, seal_days, yesterday_ms
from tests.web.control import Control
from tests.web.pages.owned import unsettle
from tests.web.points_given import PATH, body, nodes, seal

DAYS = "/v1/projects/alpha/days"


def day(back: int) -> str:
    return str((datetime.now(UTC) - timedelta(days=back)).date())


async def test_days_go_from_running_to_corrected(control: Control) -> None:
    rows = await nodes(control, 1)
    for back in (3, 2, 1):
        await seal(control, rows, day=day(back))
    for back, points in ((3, "1"), (2, "2")):
        mine = body((rows[0], points), day=day(back))
        assert (await control.ask("POST", PATH, by="owner", json=mine)).status == 201
    mine = body((rows[0], "3"), day=day(3), reason="wrong")
    assert (await control.ask("POST", PATH, by="owner", json=mine)).status == 201
    await seal(control, rows, day=day(2), revision=2)
    listed = await control.ask("GET", DAYS, by="owner")
    found = [(each["day"], each["state"], each["outdated"]) for each in listed.json["items"]]
    assert found == [
        (day(0), "running", False),
        (day(1), "sealed", False),
        (day(2), "committed", True),
        (day(3), "corrected", False),
    ]
    first = listed.json["items"][-1]
    assert (first["commit"]["total_points"], first["seal"]["revision"]) == ("3", 1)
    assert [each["waits_for"] for each in listed.json["items"]] == [None] * 4


async def test_days_are_told_by_pages_down_to_the_first(control: Control) -> None:
    rows = await nodes(control, 1)
    await seal(control, rows, day=day(6))
    found, path = [], f"{DAYS}?limit=3"
    while path:
        page = await control.ask("GET", path, by="owner")
        found += [each["day"] for each in page.json["items"]]
        link = page.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert found == [day(back) for back in range(7)]
    empty = await control.ask("GET", f"{DAYS}?after={day(6)}", by="owner")
    assert empty.json == {"items": [], "next_cursor": None}
    for wrong in ("after=x", "after=2026-02-30", "limit=0"):
        assert (await control.ask("GET", f"{DAYS}?{wrong}", by="owner")).status == 400, wrong


async def test_a_day_says_all_that_its_seal_waits_for(control: Control) -> None:
    made = await make_day(control.stores, control.alpha.project_id, day_ms=yesterday_ms() - 86_400_000)
    await unsettle(control, made)
    due = (await control.ask("GET", f"{DAYS}/{made.day}", by="owner")).json
    assert due["state"] == "waiting"
    lacks = {each["what"]: each["lacks"] for each in due["conditions"]}
    assert lacks["leases"] == due["waits_for"] == "leases are not settled up to midnight"
    assert lacks["history"] == lacks["view"] == ""
    assert lacks["gaps"] == lacks["degraded"] == ""
    later = (await control.ask("GET", f"{DAYS}/{day(1)}", by="owner")).json
    assert [each["what"] for each in later["conditions"]] == ["turn"]
    assert made.day in later["waits_for"]
    await control.sql("delete from lease_say")
    assert (await control.ask("GET", f"{DAYS}/{made.day}", by="owner")).json["waits_for"] == ""
    assert len(await seal_days(control.stores)) == 2, "what the route says and what the worker does agree"
    assert (await control.ask("GET", f"{DAYS}/{made.day}", by="owner")).json["state"] == "sealed"


async def test_a_day_that_datagram_measures_waits_for_its_figures(control: Control) -> None:
    made = await make_day(control.stores, control.alpha.project_id)
    await control.sql(
        "insert into project_policy values ($1, '2020-01-01', 1, 'datagram', true, $2, 1, '')",
        control.alpha.project_id,
        msgspec.json.encode({}).decode(),
    )
    told = (await control.ask("GET", f"{DAYS}/{made.day}", by="owner")).json
    assert "source" in {each["what"] for each in told["conditions"]}


async def test_only_days_that_there_are_can_be_looked_at(control: Control) -> None:
    made = await make_day(control.stores, control.alpha.project_id)
    for wrong in (day(-1), day(3), "x", "0001-01-01", "9999-12-31"):
        assert (await control.ask("GET", f"{DAYS}/{wrong}", by="owner")).status == 404, wrong
    assert (await control.ask("GET", f"{DAYS}/{made.day}", by="owner")).status == 200
    assert (await control.ask("GET", "/v1/projects/beta/days", by="foreign")).json["items"] != []
