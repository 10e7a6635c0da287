"""Announcements: who is told, how many, by whom, how often; over real PostgreSQL."""

from __future__ import annotations

import trio

from engine.core.ports import NewNode
from storage.ids import new_id
from tests.web.control import Control
from web.main import system_ms
from web.settings import WebSettings

PATH = "/v1/notifications"
WORDS = {"title": "Version 2 is out", "text": "Please update."}


async def with_fleet(control: Control) -> None:
    """Alpha: olga's two nodes (eu with gpu 2.0.0, us), sam's one (us, gpu 1.0.0). Beta: one of paul's."""
    kind = await control.ask("POST", "/v1/projects/alpha/kinds", json={"slug": "gpu"})
    alpha, beta = control.alpha.project_id, control.beta.project_id
    new = [
        NewNode(alpha, "o2", "node", b"a" * 32, 60_000, ("w",), (), control.users["olga"], "us"),
        NewNode(alpha, "s1", "node", b"b" * 32, 60_000, ("w",), (), control.users["sam"], "us"),
        NewNode(beta, "p1", "node", b"c" * 32, 60_000, ("w",), (), control.users["paul"], "eu"),
    ]
    made = await control.stores.directory.create_nodes(new, now_ms=system_ms())
    for workload_id, version in (
        (control.node.workload_ids[0], "2.0.0"),
        (made[1].workload_ids[0], "1.0.0"),
    ):
        await control.sql(
            "update workload set kind_id = $1, running_version = $2 where workload_id = $3",
            kind.json["kind_id"],
            version,
            workload_id,
        )


async def add_channel(control: Control, by: str, **more: object) -> str:
    body = {"kind": "mail", "target": f"{by}@example.org", **more}
    made = await control.ask("POST", "/v1/me/channels", by=by, json=body)
    assert made.status == 201
    return made.json["channel"]["channel_id"]


async def reach(control: Control, by: str = "owner", **which: object) -> tuple[int, int, int, int]:
    body = {**WORDS, "project": "alpha", "filter": which}
    answer = await control.ask("POST", f"{PATH}/preview", by=by, json=body)
    assert answer.status == 200, answer.json
    return tuple(answer.json[name] for name in ("nodes", "operators", "people", "channels"))


async def test_a_preview_counts_people_and_messages_by_every_filter_and_sends_nothing(control: Control):
    await with_fleet(control)
    await add_channel(control, "olga")
    await add_channel(control, "olga", target="second@example.org")
    assert (await control.confirm_mail("second@example.org")).status == 200
    await add_channel(control, "paul")
    assert await reach(control) == (3, 2, 1, 2)
    assert await reach(control, region="eu") == (1, 1, 1, 2)
    assert await reach(control, region="us") == (2, 2, 1, 2)
    assert await reach(control, region="mars") == (0, 0, 0, 0)
    assert await reach(control, kind="gpu") == (2, 2, 1, 2)
    assert await reach(control, kind="gpu", version="1.0.0") == (1, 1, 0, 0)
    assert await reach(control, version="2.0.0", region="us") == (0, 0, 0, 0)
    assert await control.sql("select 1 from delivery") == []
    assert await control.sql("select 1 from announcement") == []


async def test_by_state_only_nodes_that_are_in_it_now_are_meant(control: Control):
    await with_fleet(control)
    assert await reach(control, states=["new"]) == (3, 2, 0, 0)
    assert await reach(control, states=["down"]) == (0, 0, 0, 0)
    assert await reach(control, states=["down", "new"], region="eu") == (1, 1, 0, 0)


async def test_each_operators_channels_get_one_message_and_the_list_tells_what_came_of_it(control: Control):
    await with_fleet(control)
    mine = await add_channel(control, "olga")
    sams = await add_channel(control, "sam", event_kinds=["announcement"])
    await add_channel(control, "sam", event_kinds=["node.down"])  # takes no announcements
    await add_channel(control, "paul")  # his node is beta's
    body = {**WORDS, "project": "alpha"}
    made = await control.ask("POST", PATH, by="paul", json=body, key="one")
    assert made.status == 201, made.json
    assert [made.json[name] for name in ("nodes", "people", "channels", "sent")] == [3, 2, 2, 0]
    again = await control.ask("POST", PATH, by="paul", json=body, key="one")
    assert again.json == made.json
    await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")  # it had crashed
    assert (await control.ask("POST", PATH, by="paul", json=body, key="one")).json == made.json
    rows = await control.sql("select channel_id::text, state from delivery")
    assert sorted(row["channel_id"] for row in rows) == sorted([mine, sams])
    await control.sql("update delivery set state = 'sent' where channel_id = $1", mine)
    await control.sql("update delivery set state = 'dead' where channel_id = $1", sams)
    (listed,) = (await control.ask("GET", PATH, by="owner")).json["items"]
    assert (listed["sent"], listed["dead"], listed["project"]) == (1, 1, "alpha")
    (entry,) = await control.sql("select subject, detail from audit where action = 'announcement.make'")
    assert entry["subject"] == made.json["announcement_id"]


async def test_who_takes_no_announcements_gets_none(control: Control):
    await with_fleet(control)
    channel_id = await add_channel(control, "olga")
    await control.sql("update channel set no_announcements_ms = 1 where channel_id = $1", channel_id)
    assert await reach(control) == (3, 2, 0, 0)
    await control.sql("update channel set no_announcements_ms = null, disabled_ms = 1")
    assert await reach(control) == (3, 2, 0, 0)
    await control.sql("update channel set disabled_ms = null")
    assert await reach(control) == (3, 2, 1, 1)
    await control.ask("DELETE", f"/v1/me/channels/{channel_id}", by="olga")
    assert await reach(control) == (3, 2, 0, 0)


async def test_retired_and_revoked_nodes_have_no_operators_to_tell(control: Control):
    await with_fleet(control)
    await control.sql("update node set retired_ms = 1 where name = 's1'")
    assert await reach(control) == (2, 1, 0, 0)
    await control.sql("update node set revoked_ms = 1 where name = 'o2'")
    assert await reach(control) == (1, 1, 0, 0)


async def test_owners_speak_for_their_own_projects_and_only_an_admin_to_all(control: Control):
    await with_fleet(control)
    for path in (PATH, f"{PATH}/preview"):
        alpha, everybody = {**WORDS, "project": "alpha"}, dict(WORDS)
        assert (await control.ask("POST", path, by="foreign", json=alpha)).status == 404
        assert (await control.ask("POST", path, by="olga", json=alpha)).status == 403
        refused = await control.ask("POST", path, by="owner", json=everybody)
        assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/project")
    told = await control.ask("POST", PATH, by="admin", json=WORDS)
    assert (told.json["project"], told.json["nodes"]) == (None, 5)
    await control.ask("POST", PATH, by="owner", json={**WORDS, "project": "alpha"})
    seen = {by: len((await control.ask("GET", PATH, by=by)).json["items"]) for by in ("admin", "owner")}
    assert seen == {"admin": 2, "owner": 1}
    assert (await control.ask("GET", PATH, by="foreign")).json["items"] == []
    assert (await control.ask("GET", f"{PATH}?project=beta", by="owner")).status == 404
    assert (await control.ask("GET", f"{PATH}?project=alpha", by="admin")).json["items"][0][
        "project"
    ] == "alpha"


async def test_a_project_may_announce_only_so_often_a_day_even_all_at_once(control: Control):
    most = WebSettings().announcements_per_day_max
    body = {**WORDS, "project": "alpha"}
    statuses: list[int] = []

    async def announce() -> None:
        statuses.append((await control.ask("POST", PATH, by="owner", json=body)).status)

    async with trio.open_nursery() as nursery:
        for _ in range(most + 5):
            nursery.start_soon(announce)
    assert sorted(statuses) == [201] * most + [429] * 5
    assert (await control.ask("POST", PATH, by="admin", json=WORDS)).status == 201
    await control.sql("update announcement set created_ms = created_ms - 86400000")
    assert (await control.ask("POST", PATH, by="owner", json=body)).status == 201


async def test_announcements_are_listed_newest_first_by_cursor(control: Control):
    for number in range(3):
        body = {"title": f"{number}", "text": "t", "project": "alpha"}
        await control.ask("POST", PATH, by="owner", json=body)
    first = await control.ask("GET", f"{PATH}?limit=2", by="owner")
    link = first.headers["link"]
    second = await control.ask("GET", link[1 : link.index(">")], by="owner")
    titles = [item["title"] for item in first.json["items"] + second.json["items"]]
    assert titles == ["2", "1", "0"]


async def test_what_is_no_announcement_is_refused(control: Control):
    for more in (
        {"title": ""},
        {"title": " "},
        {"title": "two\nlines"},
        {"title": "x" * 201},
        {"text": ""},
        {"text": "x" * 10_001},
        {"text": "nul \0"},
        {"project": "No Slug"},
        {"filter": {"states": ["asleep"]}},
        {"filter": {"region": ""}},
        {"filter": {"node": new_id()}},
    ):
        answer = await control.ask("POST", PATH, by="owner", json={**WORDS, "project": "alpha", **more})
        assert answer.status == 400, more
