"""What a project's own rule gives for a sealed day: told, posted back as it is, or committed."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.sealed import DAY_MS
from storage.ids import new_id
from tests.web.control import Control
from tests.web.points_given import DAY, PATH, Row, nodes, seal, sums_match
from web.times import parse_day

SUGGESTED = f"{PATH}/suggested"


async def given(control: Control, *, rule: dict[str, Any] | None = None) -> list[Row]:
    rows = await nodes(control, 3)
    rows = [
        rows[0]._replace(kind="gpu"),
        rows[1]._replace(paid_ms=DAY_MS // 2),
        rows[2]._replace(paid_ms=1_000),
    ]
    rule = rule or {
        "micro_points_per_paid_s": 100,
        "floor_paid_ms": 60_000,
        "kind_weights_ppm": {"gpu": 2_000_000},
    }
    await control.sql(
        "insert into project_policy values ($1, '2026-01-01', 1, 'native', true, $2, 1, '')",
        control.alpha.project_id,
        msgspec.json.encode(rule).decode(),
    )
    return rows


async def test_the_suggestion_can_be_posted_back_as_it_is_in_every_form(control: Control) -> None:
    rows = await given(control)
    days = {"json": "2026-01-11", "ndjson": "2026-01-12", "csv": "2026-01-13"}
    for form, day in days.items():
        root = await seal(control, rows, day=day)
        told = await control.ask("GET", f"{SUGGESTED}?day={day}&format={form}", by="owner")
        assert told.status == 200, told
        if form == "json":
            assert told.json == {
                "day": day,
                "revision": 1,
                "root": root,
                "total": "21.6",
                "rows": [
                    {"workload_id": rows[0].workload_id, "points": "17.28"},
                    {"workload_id": rows[1].workload_id, "points": "4.32"},
                    {"workload_id": rows[2].workload_id, "points": "0"},
                ],
            }
        path = told.headers["link"].removeprefix("<").partition(">")[0] if form == "csv" else PATH
        kind = told.headers["content-type"]
        made = await control.ask("POST", path, by="owner", body=told.body, headers={"content-type": kind})
        assert (made.status, made.json["total_points"], made.json["rows"]) == (201, "21.6", 3), made
    await sums_match(control)


async def test_the_suggestion_is_committed_in_one_call(control: Control) -> None:
    rows = await given(control)
    root = await seal(control, rows)
    post = {"method": "POST", "path": SUGGESTED, "by": "owner"}
    wrong = {
        ("root", "0" * 64): (409, "seal_outdated"),
        ("revision", 2): (409, "seal_outdated"),
        ("total", "21.600001"): (422, "total_mismatch"),
        ("reason", "no first"): (409, "nothing_to_correct"),
        ("day", "2026-01-30"): (409, "not_sealed"),
    }
    for (name, value), refused in wrong.items():
        answer = await control.ask(**post, json={"day": DAY, name: value})
        assert (answer.status, answer.json["code"]) == refused, answer
    made = await control.ask(**post, json={"day": DAY, "root": root, "total": "21.6"}, key="k")
    assert (made.status, made.json["total_points"], made.json["rows"]) == (201, "21.6", 3)
    again = await control.ask(**post, json={"day": DAY, "root": root, "total": "21.6"}, key="k")
    assert (again.status, again.body) == (201, made.body)
    other = await control.ask(**post, json={"day": DAY})
    assert (other.status, other.json["code"]) == (409, "already_committed")
    await sums_match(control)


async def test_the_newest_seal_is_reckoned_from(control: Control) -> None:
    rows = await given(control)
    await seal(control, rows)
    await seal(control, [rows[0], rows[1]._replace(paid_ms=DAY_MS)], revision=2)
    told = await control.ask("GET", f"{SUGGESTED}?day={DAY}", by="owner")
    assert (told.json["revision"], told.json["total"], len(told.json["rows"])) == (2, "25.92", 2)
    made = await control.ask("POST", SUGGESTED, by="owner", json={"day": DAY})
    assert (made.json["seal_revision"], made.json["total_points"]) == (2, "25.92")


async def test_without_a_seal_or_a_rule_nothing_is_suggested(control: Control) -> None:
    unsealed = await control.ask("GET", f"{SUGGESTED}?day={DAY}", by="owner")
    assert (unsealed.status, unsealed.json["code"]) == (409, "not_sealed")
    await seal(control, await nodes(control, 1))
    for method in ("GET", "POST"):
        json = {"day": DAY} if method == "POST" else None
        path = SUGGESTED if json else f"{SUGGESTED}?day={DAY}"
        answer = await control.ask(method, path, by="owner", json=json)
        assert (answer.status, answer.json["code"]) == (409, "no_reward_rule")
    for query in ("", "?day=x", "?day=2026-01-31&format=xml"):
        assert (await control.ask("GET", SUGGESTED + query, by="owner")).status == 400


async def test_the_rule_of_the_day_counts_not_todays(control: Control) -> None:
    rows = await given(control)
    await control.sql(
        "insert into project_policy values ($1, '2026-02-01', 1, 'native', true, $2, 1, '')",
        control.alpha.project_id,
        '{"micro_points_per_paid_s": 1000000}',
    )
    for day, total in (("2026-01-31", "21.6"), ("2026-02-01", "129601")):
        await seal(control, rows, day=day)
        assert (await control.ask("GET", f"{SUGGESTED}?day={day}", by="owner")).json["total"] == total


async def add_collection(control: Control, *, standard: str = "erc721", created_ms: int = 1) -> None:
    await control.sql(
        """
        insert into collection (collection_id, project_id, chain_id, contract, standard, name, created_ms)
        values (gen_random_uuid(), $1, 1, '0x' || substr(md5(random()::text) || md5(random()::text), 1, 40),
          $2, 'c', $3)
        """,
        control.alpha.project_id,
        standard,
        created_ms,
    )


async def told_points(control: Control) -> list[str]:
    told = await control.ask("GET", f"{SUGGESTED}?day={DAY}", by="owner")
    assert told.status == 200, told
    return [row["points"] for row in told.json["rows"]]


async def given_held(control: Control, **rule: Any) -> None:
    """A whole day under a licence, a half, and one without."""
    licence_id, owner = new_id(), "0x" + "a" * 40
    rows = await nodes(control, 3)
    rows = [
        rows[0]._replace(held=((licence_id, owner, DAY_MS // 2), (licence_id, owner, DAY_MS // 2))),
        rows[1]._replace(held=((licence_id, owner, DAY_MS // 2),)),
        rows[2],
    ]
    await given(control, rule={"micro_points_per_paid_s": 100, **rule})
    await seal(control, rows)


async def test_one_licence_does_not_pay_for_runs_that_are_bound_to_none(control: Control) -> None:
    """Who bound one run and left the second unbound was paid for both."""
    await given_held(control)
    await add_collection(control, standard="erc20")
    await add_collection(control, created_ms=parse_day(DAY) + DAY_MS)  # not on that day
    assert await told_points(control) == ["8.64", "8.64", "8.64"]
    await add_collection(control, created_ms=parse_day(DAY) + DAY_MS - 1)
    assert await told_points(control) == ["8.64", "4.32", "0"]
    made = await control.ask("POST", SUGGESTED, by="owner", json={"day": DAY})
    assert (made.status, made.json["total_points"]) == (201, "12.96")
    await sums_match(control)
    # All of it was earned under the licence: nothing is left to the time that nobody held.
    shares = await control.sql("select distinct kind from points_share")
    assert [kind for (kind,) in shares] == ["wallet"]
    await control.sql("update collection set retired_ms = $1", parse_day(DAY) + DAY_MS)  # later than the day
    assert await told_points(control) == ["8.64", "4.32", "0"]
    await control.sql("update collection set retired_ms = $1", parse_day(DAY) + DAY_MS - 1)
    assert await told_points(control) == ["8.64", "8.64", "8.64"]


async def test_a_rule_that_says_so_counts_by_licences_or_not(control: Control) -> None:
    await given_held(control, licensed_only=True)
    assert await told_points(control) == ["8.64", "4.32", "0"]
    await control.sql(
        "insert into project_policy values ($1, '2026-01-02', 1, 'native', true, $2, 1, '')",
        control.alpha.project_id,
        '{"micro_points_per_paid_s": 100, "licensed_only": false}',
    )
    await add_collection(control)
    assert await told_points(control) == ["8.64", "8.64", "8.64"]
