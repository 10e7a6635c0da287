"""Disputes over the API: who may open one of which day, what each side may say, and that it stays said."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from engine.core.sealed import Held
from tests.sealing import Day, seal_a_day
from tests.web.control import Answered, Control, system_ms

SAID = {"text": "I was up all day", "evidence": ["event:1", "gap:2"]}


@pytest.fixture
async def day(control: Control) -> Day:
    """Yesterday of alpha, sealed; its nodes are olga's."""
    made = await seal_a_day(control.stores, control.alpha.project_id, nodes=1)
    await control.sql(
        "update node set owner_id = $1 where node_id = $2", control.users["olga"], made.nodes[0].node_id
    )
    return made


async def open_one(control: Control, of: Day, *, by: str = "olga", number: int = 0, **more: Any) -> Answered:
    path = f"/v1/workloads/{of.workload_ids[number]}/disputes"
    return await control.ask("POST", path, by=by, json={"day": of.day, **SAID, **more})


async def say(control: Control, made: Answered, what: str, by: str, **more: Any) -> Answered:
    return await control.ask("POST", f"/v1/disputes/{made.json['dispute_id']}/{what}", by=by, json=more)


async def seal_again(control: Control, day: Day) -> None:
    """One more revision; what is in it is not looked at here."""
    await control.sql(
        """
        do $$ declare r seal; begin
          select * into r from seal order by revision desc, seal_no limit 1;
          r.seal_no := (select max(seal_no) + 1 from seal);
          r.revision := r.revision + 1; r.reason := 'looked again';
          insert into seal select r.*;
        end $$
        """
    )


async def events(control: Control, kind: str) -> list[tuple[Any, ...]]:
    found = await control.sql(
        """
        select project_id::text, node_id::text, workload_id::text from event where kind = $1 order by cursor
        """,
        kind,
    )
    return [tuple(record) for record in found]


async def test_a_dispute_is_answered_and_settled_and_both_sides_see_the_same(control: Control, day: Day):
    made = await open_one(control, day)
    assert (made.status, made.json["state"], made.json["revision"]) == (201, "open", 1)
    assert (await say(control, made, "comments", "olga", text="and I can prove it")).status == 201
    answered = await say(control, made, "answer", "paul", text="we look", evidence=["proof:ab"])
    assert (answered.status, answered.json["state"]) == (201, "answered")
    refused = await say(control, made, "correct", "paul", revision=1, text="same")
    assert (refused.status, refused.json["code"]) == (409, "refused")
    assert (await say(control, made, "correct", "paul", revision=2)).status == 409, "not sealed again yet"
    await seal_again(control, day)
    corrected = await say(control, made, "correct", "owner", revision=2, text="you were")
    assert (corrected.status, corrected.json["state"]) == (201, "corrected")
    path = f"/v1/disputes/{made.json['dispute_id']}"
    seen = [(await control.ask("GET", path, by=by)).json for by in ("olga", "paul", "owner", "admin")]
    assert seen[0] == seen[1] == seen[2] == seen[3] == corrected.json
    told = [(e["what"], e["side"], e["text"], e["evidence"], e["revision"]) for e in seen[0]["entries"]]
    assert told == [
        ("open", "operator", SAID["text"], SAID["evidence"], None),
        ("comment", "operator", "and I can prove it", [], None),
        ("answer", "project", "we look", ["proof:ab"], None),
        ("correct", "project", "you were", [], 2),
    ]
    assert seen[0]["entries"][0]["actor"] == f"user:{control.users['olga']}"
    for what, by in (("comments", "olga"), ("answer", "paul"), ("reject", "paul"), ("correct", "paul")):
        late = await say(control, made, what, by, **_body(what))
        assert (late.status, late.json["code"]) == (409, "refused"), what


def _body(what: str) -> dict[str, Any]:
    return {"reject": {"reason": "no"}, "correct": {"revision": 2, "text": ""}}.get(what, {"text": "x"})


async def test_the_project_hears_of_it_and_the_operator_of_each_answer(control: Control, day: Day):
    made = await open_one(control, day)
    await say(control, made, "comments", "olga", text="hello")
    await say(control, made, "answer", "paul", text="we look")
    await say(control, made, "answer", "paul", text="we look on")
    await say(control, made, "reject", "paul", reason="you were not")
    alpha, workload = control.alpha.project_id, day.workload_ids[0]
    assert await events(control, "dispute.opened") == [(alpha, None, workload)]
    assert await events(control, "dispute.answered") == [(alpha, day.nodes[0].node_id, workload)] * 3
    actions = await control.sql("select action from audit where action like 'dispute.%' order by seq")
    assert [record["action"] for record in actions] == [
        f"dispute.{what}" for what in ("open", "comment", "answer", "answer", "reject")
    ]


async def test_a_day_is_disputed_after_its_seal_and_not_for_ever(control: Control, day: Day):
    unsealed = await open_one(control, day, day="2031-01-01")
    assert (unsealed.status, unsealed.json["code"]) == (409, "not_sealed")
    elsewhere = f"/v1/workloads/{control.node.workload_ids[0]}/disputes"
    missing = await control.ask("POST", elsewhere, by="olga", json={"day": day.day, **SAID})
    assert (missing.status, missing.json["code"]) == (409, "refused"), "it was made after that day"
    late = system_ms() + 31 * 86_400_000
    control.app.backend.clock = lambda: late
    too_late = await open_one(control, day)
    assert (too_late.status, too_late.json["code"]) == (409, "refused")


async def test_one_dispute_at_a_time_of_a_day_by_a_person(control: Control, day: Day):
    first = await open_one(control, day)
    again = await open_one(control, day)
    assert (again.status, again.json["code"]) == (409, "already_open")
    assert first.json["dispute_id"] in again.json["detail"]
    assert (await open_one(control, day, number=1)).status == 201, "another workload"
    await say(control, first, "reject", "paul", reason="no")
    assert (await open_one(control, day)).status == 201, "the first is settled"


async def test_the_same_request_again_says_nothing_twice(control: Control, day: Day):
    path, body = f"/v1/workloads/{day.workload_ids[0]}/disputes", {"day": day.day, **SAID}
    first = await control.ask("POST", path, by="olga", json=body, key="once")
    # As after a crash before the answer was stored: the handler runs once more, with the same id to give.
    await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")
    again = await control.ask("POST", path, by="olga", json=body, key="once")
    assert first.status == again.status == 201
    assert first.json == again.json
    comments = f"/v1/disputes/{first.json['dispute_id']}/comments"
    for _ in range(2):
        await control.ask("POST", comments, by="olga", json={"text": "x"}, key="said")
        await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")
    assert len((await control.ask("GET", comments.removesuffix("/comments"), by="olga")).json["entries"]) == 2
    assert len(await events(control, "dispute.opened")) == 1


async def test_who_owned_the_licence_that_day_may_dispute_it_and_no_stranger(control: Control, day: Day):
    assert (await open_one(control, day, by="sam")).status == 404
    assert (await open_one(control, day, by="paul")).status == 403, "runs the project, not the machine"
    await control.sql("alter table sealed_row disable trigger all")
    (wallet,) = await control.sql("select wallet from account where name = 'sam'")
    await control.sql(
        "update sealed_row set held = $1 where workload_id = $2",
        msgspec.json.encode([Held("l", wallet["wallet"], 0, 1, 1)]).decode(),
        day.workload_ids[0],
    )
    made = await open_one(control, day, by="sam")
    assert made.status == 201
    assert (await open_one(control, day, by="sam", number=1)).status == 404, "not of that licence"
    path = f"/v1/disputes/{made.json['dispute_id']}"
    assert (await control.ask("GET", path, by="sam")).status == 200
    assert (await control.ask("GET", path, by="olga")).status == 404, "the machine's operator did not open it"


async def test_lists_tell_each_side_its_own(control: Control, day: Day):
    mine = await open_one(control, day)
    other = await open_one(control, day, number=1)
    await say(control, other, "answer", "paul", text="we look")
    both = [mine.json["dispute_id"], other.json["dispute_id"]]

    async def listed(query: str = "", by: str = "olga") -> list[str]:
        found = await control.ask("GET", f"/v1/disputes{query}", by=by)
        assert found.status == 200, found.json
        return [item["dispute_id"] for item in found.json["items"]]

    for by in ("olga", "paul", "owner", "admin"):
        assert await listed(by=by) == both
    assert await listed(by="sam") == await listed(by="foreign") == []
    assert await listed("?state=answered") == both[1:]
    assert await listed(f"?workload_id={day.workload_ids[0]}") == both[:1]
    assert await listed(f"?day={day.day}&project=alpha&mine=true") == both
    assert await listed("?mine=true", by="paul") == await listed("?day=2020-01-01") == []
    page = await control.ask("GET", "/v1/disputes?limit=1", by="olga")
    assert 'rel="next"' in page.headers["link"]
    assert await listed(f"?limit=1&after={page.json['next_cursor']}") == both[1:]
    for query in ("?state=x", "?day=2026-02-30", "?workload_id=x", "?mine=x", "?after=x"):
        assert (await control.ask("GET", f"/v1/disputes{query}", by="olga")).status == 400, query
    assert (await control.ask("GET", "/v1/disputes?mine=true", by="owner")).status == 400


async def test_what_is_no_dispute_is_refused(control: Control):
    bodies: tuple[dict[str, Any], ...] = (
        {},
        {"day": "2026-01-01"},
        {"day": "x", "text": "x"},
        {"day": "2026-01-01", "text": ""},
        {"day": "2026-01-01", "text": "x" * 4_001},
        {"day": "2026-01-01", "text": "x\0"},
        {"day": "2026-01-01", "text": "x", "evidence": ["e"] * 33},
        {"day": "2026-01-01", "text": "x", "evidence": ["e" * 201]},
        {"day": "2026-01-01", "text": "x", "more": 1},
        {"day": "2026-02-30", "text": "x"},
    )
    path = f"/v1/workloads/{control.node.workload_ids[0]}/disputes"
    for body in bodies:
        answer = await control.ask("POST", path, by="olga", json=body)
        assert answer.status in (400, 422), (body, answer.json)


async def test_what_was_said_cannot_be_changed_in_the_database_either(control: Control, day: Day):
    made = await open_one(control, day)
    await say(control, made, "answer", "paul", text="we look")
    for statement in (
        "update dispute_entry set text = 'other'",
        "delete from dispute_entry",
        "truncate dispute_entry",
        "delete from dispute",
        "update dispute set day = day - 1",
        "update dispute set opener_id = project_id",
        "update dispute set state = 'open'",
    ):
        with pytest.raises(asyncpg.RaiseError, match=r"never changes|only the state"):
            await control.sql(statement)
