"""Channels of projects and of people, and who reads the audit log."""

from __future__ import annotations

import base64

from engine.core.news import notice_of
from engine.core.notices import CHANNELS_MAX
from storage.ids import new_id
from tests.contract.given import batch, make_event
from tests.web.control import Control
from web.main import system_ms

ALPHA = "/v1/projects/alpha/channels"
MINE = "/v1/me/channels"
HOOK = {"kind": "webhook", "target": "https://example.org/hook"}


async def test_a_webhook_has_a_secret_that_is_shown_once(control: Control):
    made = await control.ask("POST", ALPHA, by="owner", json={**HOOK, "name": "ops"})
    assert made.status == 201
    secret = made.json["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    (listed,) = (await control.ask("GET", ALPHA, by="paul")).json["items"]
    assert listed == made.json["channel"]
    assert (listed["name"], listed["event_kinds"], listed["disabled_at"]) == ("ops", [], None)
    (channel,) = await control.stores.outbox.channels(control.alpha.project_id)
    assert (channel.target, channel.secret) == (HOOK["target"], secret)
    (entry,) = await control.sql("select action, project_id::text, detail from audit")
    assert (entry["action"], entry["project_id"]) == ("channel.create", control.alpha.project_id)
    assert secret not in entry["detail"]


async def test_a_channel_made_again_by_the_same_request_is_the_same(control: Control):
    first = await control.ask("POST", ALPHA, by="owner", json=HOOK, key="once")
    again = await control.ask("POST", ALPHA, by="owner", json=HOOK, key="once")
    assert first.json == again.json
    await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")  # it had crashed
    rerun = await control.ask("POST", ALPHA, by="owner", json=HOOK, key="once")
    assert rerun.json == first.json
    assert len((await control.ask("GET", ALPHA, by="owner")).json["items"]) == 1
    assert len(await control.sql("select 1 from audit")) == 1


async def test_targets_that_nobody_can_be_told_at_are_refused(control: Control):
    for kind, target in (
        ("webhook", "example.org"),
        ("webhook", "ftp://example.org/"),
        ("webhook", "https://"),
        ("webhook", "https://user:secret@example.org/"),
        ("webhook", "https://example.org:0/"),
        ("webhook", "https://example.org:99999/"),
        ("webhook", "https://[::1/"),
        ("webhook", "https://example.org/\r\nx: y"),
        ("mail", "https://example.org/"),
        ("mail", "a@b@"),
        ("mail", "a@example.org\r\nbcc: x@example.org"),
    ):
        answer = await control.ask("POST", ALPHA, by="owner", json={"kind": kind, "target": target})
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/target"), target
    for body in (
        {"kind": "sms", "target": "1"},
        {**HOOK, "event_kinds": ["node.dwn"]},
        {**HOOK, "secret": "x"},
    ):
        assert (await control.ask("POST", ALPHA, by="owner", json=body)).status == 400, body


async def test_channels_are_seen_and_changed_by_their_owners_only(control: Control):
    made = await control.ask("POST", ALPHA, by="paul", json=HOOK)
    channel_id = made.json["channel"]["channel_id"]
    path = f"{ALPHA}/{channel_id}"
    for by in ("foreign", "olga", "sam"):
        status = 404 if by == "foreign" else 403  # operators run no project at all
        assert (await control.ask("GET", ALPHA, by=by)).status == status
        assert (await control.ask("POST", ALPHA, by=by, json=HOOK)).status == status
        assert (await control.ask("DELETE", path, by=by)).status == status
    elsewhere = path.replace("alpha", "beta")
    assert (await control.ask("DELETE", elsewhere, by="foreign")).status == 404
    assert (await control.ask("DELETE", elsewhere, by="admin")).status == 404
    assert (
        await control.ask("DELETE", f"{MINE}/{made.json['channel']['channel_id']}", by="paul")
    ).status == 404
    for channel_id in (new_id(), "x"):
        assert (await control.ask("DELETE", f"{ALPHA}/{channel_id}", by="owner")).status == 404
    assert (await control.ask("DELETE", path, by="owner")).status == 204
    assert (await control.ask("DELETE", path, by="owner")).status == 404
    assert (await control.ask("GET", ALPHA, by="owner")).json["items"] == []


async def test_people_have_channels_of_their_own_which_no_project_is_told_by(control: Control):
    made = await control.ask("POST", MINE, by="olga", json={"kind": "mail", "target": "Olga@example.org"})
    assert (made.status, made.json["secret"]) == (201, None)
    assert (await control.ask("GET", MINE, by="olga")).json["items"] == [made.json["channel"]]
    assert (await control.ask("GET", MINE, by="sam")).json["items"] == []
    assert (await control.ask("GET", ALPHA, by="owner")).json["items"] == []
    assert await control.stores.outbox.channels(control.alpha.project_id) == []
    path = f"{MINE}/{made.json['channel']['channel_id']}"
    assert (await control.ask("DELETE", path, by="sam")).status == 404
    assert (await control.ask("DELETE", path, by="olga")).status == 204
    for by, status in (("owner", 403), ("admin", 409)):
        assert (await control.ask("GET", MINE, by=by)).status == status
        assert (await control.ask("POST", MINE, by=by, json=HOOK)).status == status


async def test_what_was_still_to_be_told_dies_with_its_channel(control: Control):
    made = await control.ask("POST", ALPHA, by="owner", json=HOOK)
    (channel,) = await control.stores.outbox.channels(control.alpha.project_id)
    event = make_event(project_id=control.alpha.project_id)
    await control.stores.history.flush(batch(position=10_000, events=(event,)))
    await control.stores.outbox.put([(notice_of(event), channel.channel_id)], now_ms=system_ms())
    path = f"{ALPHA}/{made.json['channel']['channel_id']}"
    assert (await control.ask("DELETE", path, by="owner")).status == 204
    rows = await control.sql("select state, note from delivery")
    assert [tuple(row) for row in rows] == [("dead", "the channel was removed")]


async def test_the_worker_knows_which_kinds_a_channel_takes(control: Control):
    kinds = ["workload.up", "node.down", "node.down"]
    made = await control.ask("POST", ALPHA, by="owner", json={**HOOK, "event_kinds": kinds})
    assert made.json["channel"]["event_kinds"] == ["workload.up", "node.down"]
    (channel,) = await control.stores.outbox.channels(control.alpha.project_id)
    assert channel.event_kinds == ("workload.up", "node.down")


async def test_a_channel_whose_receiver_wants_no_more_is_shown_as_such(control: Control):
    await control.ask("POST", ALPHA, by="owner", json=HOOK)
    (channel,) = await control.stores.outbox.channels(control.alpha.project_id)
    await control.stores.sending.disable_channel(channel.channel_id, now_ms=system_ms(), note="410")
    (listed,) = (await control.ask("GET", ALPHA, by="owner")).json["items"]
    assert listed["disabled_at"] is not None


async def test_only_so_many_channels_are_taken(control: Control):
    await control.sql(
        """
        insert into channel (channel_id, project_id, kind, target, created_ms)
        select gen_random_uuid(), $1::uuid, 'mail', 'x@example.org', 0 from generate_series(1, $2::int)
        """,
        control.alpha.project_id,
        CHANNELS_MAX,
    )
    answer = await control.ask("POST", ALPHA, by="owner", json=HOOK)
    assert (answer.status, answer.json["code"]) == (409, "too_many")
    assert (await control.ask("POST", MINE, by="paul", json=HOOK)).status == 201


# The audit log


async def test_an_owner_reads_what_was_done_in_a_project_newest_first(control: Control):
    for number in range(5):
        await control.ask("POST", ALPHA, by="owner", json={**HOOK, "name": f"{number}"})
    await control.ask("POST", MINE, by="olga", json=HOOK)
    first = await control.ask("GET", "/v1/audit?limit=3", by="owner")
    names = [item["detail"]["name"] for item in first.json["items"]]
    link = first.headers["link"]
    second = await control.ask("GET", link[1 : link.index(">")], by="owner")
    names += [item["detail"]["name"] for item in second.json["items"]]
    assert (names, second.json["next_cursor"]) == (["4", "3", "2", "1", "0"], None)
    entry = first.json["items"][0]
    assert entry["actor"] == f"key:{control.key_ids['owner']}"
    assert (entry["action"], entry["project_id"]) == ("channel.create", control.alpha.project_id)
    assert entry["previous"] == first.json["items"][1]["hash"]
    assert len((await control.ask("GET", "/v1/audit", by="admin")).json["items"]) == 6
    assert len((await control.ask("GET", "/v1/audit?project=alpha", by="paul")).json["items"]) == 5


async def test_the_audit_log_of_others_is_not_there(control: Control):
    await control.ask("POST", ALPHA, by="owner", json=HOOK)
    assert (await control.ask("GET", "/v1/audit", by="foreign")).json["items"] == []
    for by, query, status in (
        ("foreign", "?project=alpha", 404),
        ("olga", "?project=alpha", 403),
        ("manager", "", 403),
        ("admin", "?project=nosuch", 404),
        ("admin", "?after=0", 400),
        ("admin", "?after=99999999999999999999", 400),
        ("admin", "?after=999999999999999999", 200),
    ):
        assert (await control.ask("GET", f"/v1/audit{query}", by=by)).status == status, (by, query)


async def test_who_owns_several_projects_says_which(control: Control):
    await control.sql(
        "insert into project_owner (project_id, user_id, created_ms) values ($1, $2, 0)",
        control.beta.project_id,
        control.users["paul"],
    )
    assert (await control.ask("GET", "/v1/audit", by="paul")).status == 400
    assert (await control.ask("GET", "/v1/audit?project=beta", by="paul")).status == 200
