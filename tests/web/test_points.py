"""Points are committed against a seal, all or nothing, once, never as floats; corrections are revisions."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine.core.amounts import micro_of_points, points_of_micro
from storage.ids import new_id
from tests.web.control import Answered, Control
from tests.web.points_given import DAY, PATH, Row, body, nodes, seal, sums_match
from web.main import system_ms
from web.times import format_rfc3339

NDJSON = {"content-type": "application/x-ndjson"}
CSV = {"content-type": "text/csv"}


async def commit(control: Control, json: Any = None, *, by: str = "owner", **more: Any) -> Answered:
    return await control.ask("POST", more.pop("path", PATH), by=by, json=json, **more)


def code(answer: Answered) -> tuple[int, str]:
    return answer.status, answer.json["code"]


async def count(control: Control) -> int:
    [[commits]] = await control.sql("select count(*) from points_commit")
    return commits


async def test_a_commit_is_answered_and_found_in_the_totals(control: Control) -> None:
    one, two = await nodes(control, 1) + await nodes(control, 1, owner="olga")
    root = await seal(control, [one, two])
    answer = await commit(control, body((one, "0.000001"), (two, "12"), revision=1, root=root))
    assert answer.status == 201, answer
    told = {name: answer.json[name] for name in ("project", "day", "revision", "rows", "total_points")}
    assert told == {"project": "alpha", "day": DAY, "revision": 1, "rows": 2, "total_points": "12.000001"}
    assert (answer.json["seal_revision"], answer.json["seal_root"]) == (1, root)
    assert (answer.json["difference"], answer.json["reason"]) == (None, "")
    totals = (await control.ask("GET", f"{PATH}?day={DAY}", by="owner")).json
    assert (totals["total_points"], totals["next_cursor"]) == ("12.000001", None)
    assert [(each["user"], each["kind"], each["points"]) for each in totals["items"]] == [
        (control.users["olga"], "user", "12"),
        (one.node_id, "node", "0.000001"),
    ]
    empty = (await control.ask("GET", f"{PATH}?day=2020-01-01")).json
    assert (empty["items"], empty["total_points"]) == ([], "0")
    await sums_match(control)


async def test_the_same_key_and_body_again_get_the_stored_answer(control: Control) -> None:
    [row] = await nodes(control, 1)
    await seal(control, [row])
    first, again = [await commit(control, body((row, "1")), key="k") for _ in range(2)]
    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert code(await commit(control, body((row, "2")), key="k")) == (422, "idempotency_key_reused")
    csv = f"workload_id,points\n{row.workload_id},1\n".encode()
    path = f"{PATH}?day={DAY}&total=1"
    other = await commit(control, body=csv, path=path, headers=CSV, key="k")
    assert code(other) == (422, "idempotency_key_reused")
    assert await count(control) == 1


async def test_fifty_commits_with_one_key_at_once_make_one(control: Control) -> None:
    rows = await nodes(control, 20)
    await seal(control, rows)
    given, answers = body(*((row, "1") for row in rows)), []

    async def one() -> None:
        answers.append(await commit(control, given, key="k"))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
    statuses = {answer.status for answer in answers}
    assert statuses <= {201, 409}
    assert 201 in statuses
    assert {answer.json["code"] for answer in answers if answer.status == 409} <= {"still_running"}
    assert len({answer.body for answer in answers if answer.status == 201}) == 1
    assert (await count(control), (await commit(control, given, key="k")).status) == (1, 201)
    await sums_match(control)


async def test_a_day_is_committed_once_and_corrected_with_a_reason(control: Control) -> None:
    one, two, three = await nodes(control, 3)
    await seal(control, [one, two, three])
    assert code(await commit(control, body((one, "1"), reason="wrong"))) == (409, "nothing_to_correct")
    first = (await commit(control, body((one, "1"), (two, "2")))).json
    assert code(await commit(control, body((one, "1")))) == (409, "already_committed")
    second = await commit(control, body((two, "5"), (three, "0.5"), reason="one was not ours"))
    assert second.status == 201, second
    assert (second.json["revision"], second.json["reason"]) == (2, "one was not ours")
    who = sorted((one.node_id, two.node_id, three.node_id))
    changes = {one.node_id: ("1", "0"), two.node_id: ("2", "5"), three.node_id: ("0", "0.5")}
    assert second.json["difference"] == {
        "replaces": first["commit_id"],
        "rows_changed": 1,
        "rows_added": 1,
        "rows_removed": 1,
        "total_before": "3",
        "total_after": "5.5",
        "beneficiaries": [
            {"kind": "node", "beneficiary": each, "before": changes[each][0], "after": changes[each][1]}
            for each in who
        ],
    }
    totals = (await control.ask("GET", PATH)).json
    assert totals["total_points"] == "5.5"
    assert {each["user"] for each in totals["items"]} == {two.node_id, three.node_id}
    found = (await control.ask("GET", f"{PATH}/commits/{second.json['commit_id']}")).json
    assert found == second.json
    await sums_match(control)


async def test_only_the_newest_seal_counts(control: Control) -> None:
    [row] = await nodes(control, 1)
    old = await seal(control, [row])
    new = await seal(control, [row], revision=2)
    given = body((row, "1"))
    assert code(await commit(control, given)) == (409, "seal_ambiguous")
    assert code(await commit(control, {**given, "revision": 1})) == (409, "seal_outdated")
    assert code(await commit(control, {**given, "root": old})) == (409, "seal_outdated")
    assert code(await commit(control, {**given, "revision": 2, "root": old})) == (409, "seal_outdated")
    assert await count(control) == 0
    assert (await commit(control, {**given, "root": new})).json["seal_revision"] == 2


async def test_before_the_seal_nothing_is_committed(control: Control) -> None:
    [row] = await nodes(control, 1)
    assert code(await commit(control, body((row, "1")))) == (409, "not_sealed")
    today = format_rfc3339(system_ms())[:10]
    assert code(await commit(control, body((row, "1"), day=today))) == (409, "day_not_over")


async def test_everything_wrong_is_pointed_at_and_nothing_is_committed(control: Control) -> None:
    mine, other, unsealed = await nodes(control, 3)
    [theirs] = await nodes(control, 1, project_id=control.beta.project_id)
    nobodys = Row(new_id(), new_id())
    await seal(control, [mine, other])
    given = [
        (mine, "1"),
        (mine._replace(workload_id=mine.workload_id.upper()), "1"),
        (theirs, "1"),
        (nobodys, "1"),
        (mine._replace(workload_id="nonsense"), "1"),
        (other, "1.0000001"),
        (unsealed, "1"),
    ]
    answer = await commit(control, body(*given))
    assert code(answer) == (422, "rows_refused")
    assert {fault["pointer"]: fault["detail"] for fault in answer.json["errors"]} == {
        "/rows/1/workload_id": "is in the list twice",
        "/rows/2/workload_id": "no such workload in this project",
        "/rows/3/workload_id": "no such workload in this project",
        "/rows/4/workload_id": "not an id",
        "/rows/5/points": "must be a decimal string with at most 6 places, from 0 to below 10^12",
        "/rows/6/workload_id": "is not in the seal of that day",
    }
    without_form = [given[at] for at in (0, 1, 2, 6)]
    answer = await commit(control, body(*without_form))
    assert [fault["pointer"] for fault in answer.json["errors"]] == [
        f"/rows/{at}/workload_id" for at in (1, 2, 3)
    ]
    assert await count(control) == 0


async def test_a_total_is_checked_exactly(control: Control) -> None:
    one, two = await nodes(control, 2)
    await seal(control, [one, two])
    given = body((one, "0.1"), (two, "0.2"))
    assert code(await commit(control, {**given, "total": "0.300001"})) == (422, "total_mismatch")
    assert code(await commit(control, {**given, "total": "3e-1"})) == (400, "malformed")
    assert (await commit(control, {**given, "total": "0.3"})).status == 201


async def test_a_thousand_errors_are_told_and_the_rest_counted(control: Control) -> None:
    [row] = await nodes(control, 1)
    await seal(control, [row])
    answer = await commit(control, body(*[(row._replace(workload_id="nonsense"), "1")] * 2_500))
    assert len(answer.json["errors"]) == 1_000
    assert "of 2500" in answer.json["detail"]
    answer = await commit(control, body(*[(row, "1")] * 2_500))
    assert len(answer.json["errors"]) == 1_000
    assert "of 2499" in answer.json["detail"]


async def test_an_empty_list_does_not_close_the_day(control: Control) -> None:
    await seal(control, await nodes(control, 1))
    assert code(await commit(control, body())) == (422, "rows_refused")


async def test_a_commit_needs_an_idempotency_key(control: Control) -> None:
    for key in (None, "a b", "x" * 256):
        answer = await commit(control, body(), key=key)
        assert answer.status == 400
        assert "Idempotency-Key" in answer.json["detail"]


async def test_ndjson_and_csv_say_the_same_as_json(control: Control) -> None:
    one, two = await nodes(control, 2)
    days = ("2026-01-01", "2026-01-02")
    for day in days:
        await seal(control, [one, two], day=day)
    lines = (
        f'{{"day": "{days[0]}", "revision": 1, "total": "3.5"}}\n'
        f'{{"workload_id": "{one.workload_id}", "points": "1.5", "note": "ignored"}}\n\n'
        f'{{"points": "2", "workload_id": "{two.workload_id}"}}\n'
    )
    answer = await commit(control, body=lines.encode(), headers=NDJSON)
    assert (answer.status, answer.json["total_points"]) == (201, "3.5")
    text = f'\ufeffpoints,name,workload_id\r\n1.5,"a, b",{one.workload_id}\r\n2,c,{two.workload_id}\r\n'
    path = f"{PATH}?day={days[1]}&revision=1&total=3.5"
    answer = await commit(control, body=text.encode(), headers=CSV, path=path)
    assert (answer.status, answer.json["rows"], answer.json["total_points"]) == (201, 2, "3.5")
    await sums_match(control)


async def test_what_is_wrong_in_a_line_is_told_by_its_number(control: Control) -> None:
    [row] = await nodes(control, 1)
    await seal(control, [row])
    good = f'{{"workload_id": "{row.workload_id}", "points": "1"}}\n'
    head = f'{{"day": "{DAY}", "total": "1"}}\n'
    wrong = {
        head.replace('"1"', '"2"') + good + good: (422, "/lines/3/workload_id"),
        head + good.replace('"1"', '"-1"'): (422, "/lines/2/points"),
        head + good.replace('"1"', "1"): (400, "/lines/2"),
        head + good + '{"end": true, "rows": 2}': (400, "/lines/3"),
        head + good + '{"end": true}': (400, "/lines/3"),
        head + good + '{"end": true, "rows": "1"}': (400, "/lines/3"),
        head + good + '{"end": true, "ro': (400, "/lines/3"),
        head + good + '{"end": true, "rows": 1, "x": ' + "[" * 30_000: (400, "/lines/3"),
        head + good + '{"error": {"code": "unavailable"}}': (400, "/lines/3"),
        head + good + '{"end": true, "rows": 1}\n' + good: (400, "/lines/4"),
        head + "\n" + good[:-9]: (400, "/lines/3"),
        "[]\n" + good: (400, ""),
        f'{{"day": "{DAY}"}}\n' + good: (400, "/total"),
    }
    for text, (status, pointer) in wrong.items():
        answer = await commit(control, body=text.encode(), headers=NDJSON)
        assert answer.status == status, (text, answer)
        faults = [fault["pointer"] for fault in answer.json.get("errors", [])]
        assert faults == [pointer] * bool(pointer), (text, answer)
    told = {
        f"workload_id\n{row.workload_id}\n": (400, "/lines/1"),
        f"workload_id,points\n{row.workload_id}\n": (400, "/lines/2"),
        f"workload_id,points\n{row.workload_id},1\n{row.workload_id},x\n": (422, "/lines/3/points"),
        f'workload_id,points\n"{row.workload_id},1\n': (400, "/lines/2"),
        f"workload_id,points\n{'x' * 70_000}\n": (400, "/lines/2"),
    }
    for text, (status, pointer) in told.items():
        answer = await commit(control, body=text.encode(), headers=CSV, path=f"{PATH}?day={DAY}&total=1")
        assert answer.status == status, (text[:99], answer)
        assert pointer in {fault["pointer"] for fault in answer.json["errors"]}, answer
    assert (await commit(control, body=head.encode() + good.encode(), headers=NDJSON)).status == 201


MALFORMED = [
    ('{"day": "2020-01-01", "rows": [{"workload_id": "x", "points": 1.5}]}', "/rows/0/points"),
    ('{"day": "2020-01-01", "rows": [{"workload_id": "x"}]}', "/rows/0/points"),
    ('{"day": "2020-01-01", "rows": [1]}', "/rows/0"),
    ('{"day": "2020-02-30", "rows": []}', "/day"),
    ('{"day": 1, "rows": []}', "/day"),
    ('{"rows": []}', ""),
    ('{"day": "2020-01-01", "rows": {}}', "/rows"),
    ('{"day": "2020-01-01"}', ""),
    ('{"day": "2020-01-01", "reason": "\\u0000", "rows": []}', "/reason"),
    ('{"day": "2020-01-01", "reason": "\\ud800", "rows": []}', "/reason"),
    ('{"day": 1, "\\ud800": 1, "rows": []}', "/day"),
    ('{"day": "2020-01-01", "rows": [], "rows": []}', ""),
    ('{"day": "2020-01-01", "rows": []} x', ""),
    ('{"day": "2020-01-01", "rows": [],}', ""),
    ('{"day": "2020-01-01", "rows": [', ""),
    ('{"day": "2020-01-01", "revision": NaN, "rows": []}', ""),
    ('{"day": "2020-01-01", "rows": [' + "[" * 60_000, ""),
    ("", ""),
]


async def test_a_body_of_the_wrong_shape_is_malformed(control: Control) -> None:
    for text, pointer in MALFORMED:
        answer = await commit(control, body=text.encode())
        assert code(answer) == (400, "malformed"), text
        told = [fault["pointer"] for fault in answer.json.get("errors", [])]
        assert told == [pointer] * bool(pointer), text


async def test_only_whoever_runs_the_project_may_commit(control: Control) -> None:
    [row] = await nodes(control, 1)
    await seal(control, [row])
    long = body(*[(row, "1")] * 20_000)
    statuses = [(await commit(control, long, by=who)).status for who in ("foreign", "olga", "manager")]
    assert statuses == [404, 403, 403]
    assert (await control.ask("POST", PATH, by=None, json=long)).status == 401
    assert (await commit(control, body((row, "1")), by="paul")).status == 201


async def test_a_commit_is_an_event_and_in_the_audit_log(control: Control) -> None:
    [row] = await nodes(control, 1)
    await seal(control, [row])
    made = (await commit(control, body((row, "1")), by="paul")).json
    events = (await control.ask("GET", "/v1/events?project=alpha")).json["items"]
    assert [(each["kind"], each["detail"]) for each in events] == [("points.committed", f"{DAY} revision 1")]
    [entry] = (await control.ask("GET", "/v1/audit?project=alpha&limit=1")).json["items"]
    assert (entry["action"], entry["subject"]) == ("points.commit", made["commit_id"])
    assert entry["actor"] == made["committed_by"] == f"user:{control.users['paul']}"


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
