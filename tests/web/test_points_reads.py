"""What was committed is read by those it concerns: totals, history, the board, one's own; and exported."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.sealed import DAY_MS
from storage.ids import new_id
from tests.web.control import Control
from tests.web.points_given import PATH, Row, body, nodes, seal

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
LICENCES = sorted(new_id() for _ in range(2))
STRANGER = "0x" + "e" * 40


async def wallet_of(control: Control, name: str) -> str:
    [[wallet]] = await control.sql("select wallet from account where user_id = $1", control.users[name])
    return wallet


async def committed(control: Control) -> list[Row]:
    """Three days, the second one corrected: a machine of olga's, one under her licence, one that is sold to a
    stranger on the way, one of nobody's."""
    olga = await wallet_of(control, "olga")
    machine, licensed = await nodes(control, 2, owner="olga")
    sold, lonely = await nodes(control, 2)
    licensed = licensed._replace(held=((LICENCES[0], olga, DAY_MS),))
    half = DAY_MS // 2
    sold = sold._replace(held=((LICENCES[1], olga, half), (LICENCES[1], STRANGER, half)))
    rows = [machine, licensed, sold, lonely]
    for day in DAYS:
        await seal(control, rows, day=day)
        given = body((machine, "1"), (licensed, "10"), (sold, "100"), (lonely, "1000"), day=day)
        assert (await control.ask("POST", PATH, by="owner", json=given)).status == 201
    given = body((machine, "2"), (licensed, "10"), (sold, "100"), day=DAYS[1], reason="the first was wrong")
    assert (await control.ask("POST", PATH, by="owner", json=given)).status == 201
    return rows


async def get(control: Control, path: str, *, by: str = "owner") -> Any:
    answer = await control.ask("GET", path, by=by)
    assert answer.status == 200, answer
    return answer.json


async def test_totals_are_read_by_user_licence_workload_and_day(control: Control) -> None:
    machine, licensed, sold, lonely = await committed(control)
    users = await get(control, PATH)
    assert users["total_points"] == "2334"
    told = [(each["user"], each["points"], each["licence_points"]) for each in users["items"]]
    assert told == [
        (lonely.node_id, "2000", "0"),
        (control.users["olga"], "184", "180"),  # her machines, her licences: one person
        (STRANGER, "150", "150"),
    ]
    assert [each["wallet"] for each in users["items"]] == [None, await wallet_of(control, "olga"), STRANGER]
    second = await get(control, f"{PATH}?from={DAYS[1]}&to={DAYS[2]}")
    assert (second["total_points"], second["items"][0]["points"]) == ("112", "62")
    licences = await get(control, f"{PATH}/licences")
    assert licences["items"] == [
        {"licence_id": LICENCES[0], "points": "30"},
        {"licence_id": LICENCES[1], "points": "300"},
    ]
    workloads = await get(control, f"{PATH}/workloads?day={DAYS[1]}")
    assert {each["workload_id"]: each["points"] for each in workloads["items"]} == {
        machine.workload_id: "2",
        licensed.workload_id: "10",
        sold.workload_id: "100",
    }
    days = await get(control, f"{PATH}/days")
    assert [(each["day"], each["revision"], each["total_points"]) for each in days["items"]] == [
        (DAYS[0], 1, "1111"),
        (DAYS[1], 2, "112"),
        (DAYS[2], 1, "1111"),
    ]


async def test_every_list_goes_on_where_its_page_ended(control: Control) -> None:
    await committed(control)
    paths = {
        PATH: 3,
        f"{PATH}/licences": 2,
        f"{PATH}/workloads": 4,
        f"{PATH}/days": 3,
        f"{PATH}/commits": 4,
        "/v1/projects/alpha/leaderboard": 2,
    }
    [corrected] = [
        each for each in (await get(control, f"{PATH}/commits"))["items"] if each["difference"] is not None
    ]
    paths[f"{PATH}/commits/{corrected['commit_id']}/changes"] = 2
    for path, count in paths.items():
        whole = (await get(control, path))["items"]
        assert len(whole) == count, path
        found, after = [], ""
        while True:
            page = await get(control, f"{path}?limit=1{after}")
            found += page["items"]
            if page["next_cursor"] is None:
                break
            after = f"&after={page['next_cursor']}"
        assert found == whole, path
        for cursor in ("x", "~", "2026-02-30~1", "1~user", "1~user~'", "wallet~" + "0" * 70, "2026-01-01~x"):
            assert (await control.ask("GET", f"{path}?after={cursor}", by="owner")).status == 400, (
                path,
                cursor,
            )


async def test_history_tells_all_revisions_and_their_differences(control: Control) -> None:
    *_, lonely = await committed(control)
    commits = (await get(control, f"{PATH}/commits?day={DAYS[1]}"))["items"]
    assert [(each["revision"], each["total_points"]) for each in commits] == [(2, "112"), (1, "1111")]
    difference = commits[0]["difference"]
    assert difference == {
        "replaces": commits[1]["commit_id"],
        "rows_changed": 1,
        "rows_added": 0,
        "rows_removed": 1,
        "total_before": "1111",
        "total_after": "112",
        "beneficiaries": [],
    }
    changes = await get(control, f"{PATH}/commits/{commits[0]['commit_id']}/changes")
    assert changes["items"] == [
        {"kind": "node", "beneficiary": lonely.node_id, "before": "1000", "after": "0"},
        {"kind": "user", "beneficiary": control.users["olga"], "before": "1", "after": "2"},
    ]
    assert (await control.ask("GET", f"{PATH}/commits/{new_id()}", by="owner")).status == 404
    assert (await control.ask("GET", f"{PATH}/commits/nonsense", by="owner")).status == 404
    foreign = f"/v1/projects/beta/points/commits/{commits[0]['commit_id']}"
    assert (await control.ask("GET", foreign, by="foreign")).status == 404


async def test_the_board_shows_people_and_tells_me_which_one_i_am(control: Control) -> None:
    await committed(control)
    board = await get(control, "/v1/projects/alpha/leaderboard", by="olga")
    olga = await wallet_of(control, "olga")
    assert board["items"] == [
        {"rank": 1, "name": "olga", "wallet": olga, "points": "184", "mine": True},
        {"rank": 2, "name": "", "wallet": STRANGER, "points": "150", "mine": False},
    ]
    others = await get(control, f"/v1/projects/alpha/leaderboard?day={DAYS[0]}", by="sam")
    assert [each["mine"] for each in others["items"]] == [False, False]
    assert [each["points"] for each in others["items"]] == ["61", "50"]


async def test_an_operator_reads_what_was_earned_by_day(control: Control) -> None:
    await committed(control)
    mine = await get(control, "/v1/me/points", by="olga")
    told = [(each["day"], each["project"], each["points"], each["licence_points"]) for each in mine["items"]]
    assert told == [
        (DAYS[2], "alpha", "61", "60"),
        (DAYS[1], "alpha", "62", "60"),
        (DAYS[0], "alpha", "61", "60"),
    ]
    page = await get(control, "/v1/me/points?limit=2", by="olga")
    rest = await get(control, f"/v1/me/points?limit=2&after={page['next_cursor']}", by="olga")
    assert page["items"] + rest["items"] == mine["items"]
    assert (await get(control, "/v1/me/points", by="sam"))["items"] == []
    assert (await get(control, "/v1/me/points"))["items"] == []


async def test_an_export_tells_whose_every_row_is_and_can_be_posted_back(control: Control) -> None:
    rows = await committed(control)
    [first] = (await get(control, f"{PATH}/commits?day={DAYS[0]}"))["items"]
    path = f"{PATH}/commits/{first['commit_id']}/rows"
    document = await get(control, path)
    assert {name: document[name] for name in ("day", "revision", "total")} == {
        "day": DAYS[0],
        "revision": 1,
        "total": "1111",
    }
    sold = next(each for each in document["rows"] if each["workload_id"] == rows[2].workload_id)
    assert {(each["kind"], each["licence_id"], each["points"]) for each in sold["shares"]} == {
        ("wallet", LICENCES[1], "50")
    }
    assert len(sold["shares"]) == 2
    for number, (form, kind) in enumerate((("ndjson", "application/x-ndjson"), ("csv", "text/csv")), start=2):
        exported = await control.ask("GET", f"{path}?format={form}", by="owner")
        assert exported.body.count(b"\n") == (6 if form == "ndjson" else 5)
        text, target = exported.body, PATH
        if form == "ndjson":
            head, _, lines = text.partition(b"\n")
            text = msgspec.json.encode(msgspec.json.decode(head) | {"reason": "again"}) + b"\n" + lines
        else:
            target = exported.headers["link"].removeprefix("<").partition(">")[0] + "&reason=again"
        again = await control.ask("POST", target, by="owner", body=text, headers={"content-type": kind})
        assert (again.status, again.json["revision"]) == (201, number), again
        assert again.json["difference"]["rows_changed"] == 0
