"""What a commit would come to: previews are what the commit then is, and write nothing."""

from __future__ import annotations

from typing import Any

from engine.core.sealed import DAY_MS
from tests.web.control import Control
from tests.web.points_given import DAY, PATH, Row, body, nodes, seal
from tests.web.test_points_suggested import given

PREVIEW, SUGGESTED = f"{PATH}/preview", f"{PATH}/suggested/preview?day={DAY}"
WALLET = "0x" + "a" * 40
LICENCE = "0199a1b2-0000-7000-8000-000000000001"


async def written(control: Control) -> list[int]:
    """How many rows there are of everything that a commit writes."""
    tables = ("points_commit", "points", "points_share", "points_total", "event", "audit")
    return [(await control.sql(f"select count(*) from {table}"))[0][0] for table in tables]


async def test_a_preview_is_what_the_commit_then_is_and_writes_nothing(control: Control) -> None:
    rows = await given(control)
    mine = await nodes(control, 1, owner="olga")
    held = rows[1]._replace(held=((LICENCE, WALLET, DAY_MS // 2),))
    root = await seal(control, [rows[0], held, mine[0]])
    before = await written(control)
    told = await control.ask("GET", SUGGESTED, by="owner")
    assert told.status == 200, told
    assert (told.json["revision"], told.json["root"], told.json["rows"]) == (1, root, 3)
    assert told.json["counted"] is told.json["suggested"] is None
    assert await written(control) == before
    made = await control.ask("POST", f"{PATH}/suggested", by="owner", json={"day": DAY})
    assert made.json["total_points"] == told.json["total_points"]
    totals = (await control.ask("GET", f"{PATH}?day={DAY}", by="owner")).json["items"]
    assert {each["user"]: each["points"] for each in totals} == {
        each["beneficiary"]: each["points"] for each in told.json["top"]
    }
    assert len(totals) == told.json["receivers"] == 3
    names = {each["kind"]: each["name"] for each in told.json["top"]}
    assert names == {"user": "olga", "wallet": "", "node": ""}


async def test_own_rows_are_compared_with_the_rule_and_with_what_counts(control: Control) -> None:
    rows = await given(control)
    await seal(control, rows)
    await control.ask("POST", f"{PATH}/suggested", by="owner", json={"day": DAY})
    mine = body((rows[0], "20"), (rows[1], "4.32"))
    told = await control.ask("POST", PREVIEW, by="owner", json=mine)
    assert told.status == 200, told
    difference = {
        "rows_changed": 1,
        "rows_added": 0,
        "rows_removed": 1,
        "total_points": "21.6",
        "most": [{"workload_id": rows[0].workload_id, "here": "20", "there": "17.28"}],
    }
    assert told.json["counted"] == told.json["suggested"] == difference
    assert [each["before"] for each in told.json["top"]] == ["17.28", "4.32"]
    mine["reason"] = "by hand"
    made = await control.ask("POST", PATH, by="owner", json=mine)
    compared = await control.ask("GET", f"{PATH}/commits/{made.json['commit_id']}/suggested", by="owner")
    assert compared.json == difference
    assert {name: made.json["difference"][name] for name in ("rows_changed", "rows_removed")} == {
        "rows_changed": 1,
        "rows_removed": 1,
    }


async def test_a_preview_is_refused_as_the_commit_would_be(control: Control) -> None:
    rows = await given(control)
    [other] = await nodes(control, 1, project_id=control.beta.project_id)
    await seal(control, rows)
    cases: list[tuple[dict[str, Any], int, str]] = [
        (body((other, "1")), 422, "rows_refused"),
        (body((rows[0], "1"), (rows[0], "2")), 422, "rows_refused"),
        (body((rows[0], "-1")), 422, "rows_refused"),
        (body((rows[0], "1"), total="2"), 422, "total_mismatch"),
        (body((rows[0], "1"), day="2026-01-30"), 409, "not_sealed"),
        (body((rows[0], "1"), revision=2), 409, "seal_outdated"),
    ]
    for mine, status, code in cases:
        told = await control.ask("POST", PREVIEW, by="owner", json=mine)
        assert (told.status, told.json["code"]) == (status, code), told
        same = await control.ask("POST", PATH, by="owner", json=mine)
        assert (same.status, same.json["code"]) == (status, code), same
        assert same.json.get("errors") == told.json.get("errors")
    assert (await control.ask("GET", f"{PATH}/suggested/preview", by="owner")).status == 400
    empty = await control.ask("POST", PREVIEW, by="owner", json=body())
    assert empty.json["errors"][0]["pointer"] == "/rows"


async def test_a_day_without_a_rule_has_no_suggestion_to_compare_with(control: Control) -> None:
    rows: list[Row] = await nodes(control, 1)
    await seal(control, rows)
    told = await control.ask("POST", PREVIEW, by="owner", json=body((rows[0], "1")))
    assert (told.status, told.json["suggested"]) == (200, None)
    assert (await control.ask("GET", SUGGESTED, by="owner")).json["code"] == "no_reward_rule"
