"""What was told at a channel, tests, dead letters and the link out of mails, over real PostgreSQL."""

from __future__ import annotations

import re

from engine.core.news import notice_of
from engine.core.sending import Settled
from engine.core.told import OWNERS_TESTS_PER_HOUR_MAX, TESTS_PER_HOUR_MAX
from storage.ids import new_id
from tests.contract.given import make_event
from tests.web.control import Control
from web.main import system_ms

ALPHA = "/v1/projects/alpha/channels"
MINE = "/v1/me/channels"
MAIL = {"kind": "mail", "target": "olga@example.org"}


async def made_channel(control: Control, path: str = ALPHA, by: str = "admin", **more: object) -> str:
    """An admin's counts as confirmed, as does one to the maker's own address (test_consent.py)."""
    made = await control.ask("POST", path, by=by, json=MAIL | more)
    assert made.status == 201, made.json
    return made.json["channel"]["channel_id"]


async def told(control: Control, channel_id: str, count: int) -> list[str]:
    """Notices in the outbox, the ids of their events."""
    events = [make_event(number, project_id=control.alpha.project_id) for number in range(count)]
    await control.stores.outbox.put([(notice_of(event), channel_id) for event in events], now_ms=system_ms())
    return [event.event_id for event in events]


async def settle_all(control: Control, *states: str, kind: str = "mail") -> None:
    """Claim what is due and settle it so, in order of its being due."""
    now_ms = system_ms()
    claimed = await control.stores.sending.claim(kind=kind, limit=100, now_ms=now_ms, lease_ms=60_000)
    settled = [Settled(one.delivery_id, state, state) for one, state in zip(claimed, states, strict=True)]
    await control.stores.sending.settle(settled, now_ms=now_ms)


async def test_the_history_of_a_channel_has_every_message_newest_first_by_cursor(control: Control):
    channel_id = await made_channel(control)
    ids = await told(control, channel_id, 5)
    await settle_all(control, "sent", "dead", "sent", "dead", "sent")
    path = f"{ALPHA}/{channel_id}/deliveries"
    first = await control.ask("GET", f"{path}?limit=3", by="owner")
    link = first.headers["link"]
    second = await control.ask("GET", link[1 : link.index(">")], by="owner")
    items = first.json["items"] + second.json["items"]
    assert sorted(item["notice_id"] for item in items) == sorted(ids)
    assert [item["delivery_id"] for item in items] == sorted((i["delivery_id"] for i in items), reverse=True)
    assert second.json["next_cursor"] is None
    dead = (await control.ask("GET", f"{path}?state=dead", by="owner")).json["items"]
    assert [(one["state"], one["attempts"], one["note"], one["due_at"]) for one in dead] == [
        ("dead", 1, "dead", None)
    ] * 2
    assert dead[0]["kind"] == "node.down"
    assert dead[0]["attempted_at"] is not None
    assert (await control.ask("GET", f"{path}?state=lost", by="owner")).status == 400
    assert (await control.ask("GET", f"{path}?after=x", by="owner")).status == 400


async def test_another_owners_channel_is_not_there_for_any_of_the_tools(control: Control):
    theirs = await made_channel(control, MINE, "olga")
    for method, rest in (
        ("GET", "deliveries"),
        ("POST", "test"),
        ("POST", "replay"),
        ("POST", f"deliveries/{new_id()}/replay"),
        ("POST", "enable"),
        ("POST", "disable"),
    ):
        assert (await control.ask(method, f"{ALPHA}/{theirs}/{rest}", by="owner")).status == 404
        assert (await control.ask(method, f"{MINE}/{theirs}/{rest}", by="sam")).status == 404
        assert (await control.ask(method, f"{MINE}/nonsense/{rest}", by="olga")).status == 404


async def test_a_test_goes_through_the_outbox_once_however_often_it_is_asked_for(control: Control):
    channel_id = await made_channel(control, MINE, "olga")
    path = f"{MINE}/{channel_id}"
    first = await control.ask("POST", f"{path}/test", by="olga", key="t")
    again = await control.ask("POST", f"{path}/test", by="olga", key="t")
    await control.sql("update idempotency set status = null, answer = null, lease_ms = 0")  # it had crashed
    rerun = await control.ask("POST", f"{path}/test", by="olga", key="t")
    assert first.status == 202
    assert first.json == again.json == rerun.json
    assert first.json["look_at"] == f"{path}/deliveries"
    (item,) = (await control.ask("GET", first.json["look_at"], by="olga")).json["items"]
    assert (item["delivery_id"], item["form"]) == (first.json["delivery_id"], "test")
    assert item["title"] == "A test of this channel"


async def test_only_so_many_tests_an_hour_go_to_a_target_that_may_be_a_strangers(control: Control):
    path = f"{ALPHA}/{await made_channel(control)}/test"
    statuses = [(await control.ask("POST", path, by="owner")).status for _ in range(TESTS_PER_HOUR_MAX + 1)]
    assert statuses == [202] * TESTS_PER_HOUR_MAX + [429]


async def test_a_channel_made_anew_does_not_begin_to_count_its_targets_tests_anew(control: Control):
    for expected in [202] * TESTS_PER_HOUR_MAX + [429]:
        channel_id = await made_channel(control)
        answer = await control.ask("POST", f"{ALPHA}/{channel_id}/test", by="owner")
        assert answer.status == expected
        await control.ask("DELETE", f"{ALPHA}/{channel_id}", by="owner")
    other = await made_channel(control, target="other@example.org")
    assert (await control.ask("POST", f"{ALPHA}/{other}/test", by="owner")).status == 202
    mine = await made_channel(control, MINE, by="olga")
    assert (await control.ask("POST", f"{MINE}/{mine}/test", by="olga")).status == 202


async def test_an_owner_sends_only_so_many_tests_an_hour_wherever_they_go(control: Control):
    statuses = []
    for number in range(OWNERS_TESTS_PER_HOUR_MAX // TESTS_PER_HOUR_MAX + 1):
        channel_id = await made_channel(control, target=f"stranger{number}@example.org")
        for _ in range(TESTS_PER_HOUR_MAX):
            statuses.append((await control.ask("POST", f"{ALPHA}/{channel_id}/test", by="owner")).status)
    assert statuses == [202] * OWNERS_TESTS_PER_HOUR_MAX + [429] * TESTS_PER_HOUR_MAX


async def test_dead_letters_are_sent_again_one_or_all_and_only_they(control: Control):
    channel_id = await made_channel(control)
    await told(control, channel_id, 4)
    await settle_all(control, "dead", "dead", "sent", "dead")
    path = f"{ALPHA}/{channel_id}"
    items = (await control.ask("GET", f"{path}/deliveries", by="owner")).json["items"]
    dead = [item["delivery_id"] for item in items if item["state"] == "dead"]
    (sent,) = [item["delivery_id"] for item in items if item["state"] == "sent"]
    one = await control.ask("POST", f"{path}/deliveries/{dead[0]}/replay", by="owner")
    assert (one.status, one.json) == (200, {"replayed": 1})
    for other in (dead[0], sent, new_id(), "x"):
        answer = await control.ask("POST", f"{path}/deliveries/{other}/replay", by="owner")
        assert answer.status == 404, other
    assert (await control.ask("POST", f"{path}/replay", by="owner")).json == {"replayed": 2}
    assert (await control.ask("POST", f"{path}/replay", by="owner")).json == {"replayed": 0}
    items = (await control.ask("GET", f"{path}/deliveries", by="owner")).json["items"]
    assert {(item["state"], item["replays"], item["attempts"]) for item in items} == {
        ("due", 1, 0),
        ("sent", 0, 1),
    }
    await settle_all(control, "sent", "sent", "sent")
    actions = [row["action"] for row in await control.sql("select action from audit order by seq")]
    assert actions == ["channel.create", "channel.replay", "channel.replay"]


async def test_a_disabled_channel_is_sent_nothing_until_it_is_enabled(control: Control):
    channel_id = await made_channel(control)
    await told(control, channel_id, 1)
    now_ms = system_ms()
    await control.stores.sending.disable_channel(channel_id, now_ms=now_ms, note="HTTP 410")
    path = f"{ALPHA}/{channel_id}"
    for rest in ("test", "replay"):
        answer = await control.ask("POST", f"{path}/{rest}", by="owner")
        assert (answer.status, answer.json["code"]) == (409, "channel_disabled")
    (listed,) = (await control.ask("GET", ALPHA, by="owner")).json["items"]
    assert listed["disabled_because"] == "HTTP 410"
    enabled = await control.ask("POST", f"{path}/enable", by="owner")
    assert (enabled.json["disabled_at"], enabled.json["disabled_because"]) == (None, "")
    assert (await control.ask("POST", f"{path}/enable", by="owner")).status == 200
    assert (await control.ask("POST", f"{path}/replay", by="owner")).json == {"replayed": 1}
    assert (await control.ask("POST", f"{path}/test", by="owner")).status == 202


# Channels of services


async def test_an_owner_switches_a_channel_off_and_on_and_sends_again_what_was_given_up(control: Control):
    channel_id = await made_channel(control)
    path = f"{ALPHA}/{channel_id}"
    await told(control, channel_id, 2)
    for _ in range(2):
        off = await control.ask("POST", f"{path}/disable", by="owner")
        assert (off.status, off.json["state"]) == (200, "disabled")
        assert off.json["disabled_because"] == "switched off by its owner"
    dead = (await control.ask("GET", f"{path}/deliveries?state=dead", by="owner")).json["items"]
    assert len(dead) == 2
    assert (await control.ask("POST", f"{path}/test", by="owner")).json["code"] == "channel_disabled"
    [[entries]] = await control.sql("select count(*) from audit where action = 'channel.disable'")
    assert entries == 1, "once more changes nothing"
    assert (await control.ask("POST", f"{path}/enable", by="owner")).json["state"] == "on"
    assert (await control.ask("POST", f"{path}/replay", by="owner")).json == {"replayed": 2}


async def test_a_services_url_is_a_secret_that_is_shown_nowhere(control: Control):
    target = "discord://123456789012345678/aVerySecretToken-0123456789"
    made = await control.ask("POST", ALPHA, by="owner", json={"kind": "apprise", "target": target})
    assert made.status == 201, made.json
    assert (made.json["channel"]["target"], made.json["secret"]) == ("discord://***", None)
    listed = await control.ask("GET", ALPHA, by="owner")
    assert b"aVerySecretToken" not in listed.body
    assert listed.json["items"][0]["target"] == "discord://***"
    (entry,) = await control.sql("select detail from audit")
    assert "aVerySecretToken" not in entry["detail"]
    (channel,) = await control.stores.outbox.channels(control.alpha.project_id)
    assert channel.target == target


async def test_services_that_reach_inside_or_that_apprise_cannot_read_are_refused_without_echo(
    control: Control,
):
    for target in (
        "discord://onlyOnePart",
        "json://127.0.0.1/hunter22",
        "file:///etc/hunter22",
        "syslog://hunter22",
        "discord://123456789012345678/hunter22hunter22?template=/etc/passwd",
        "hunter22",
    ):
        body = {"kind": "apprise", "target": target}
        answer = await control.ask("POST", ALPHA, by="owner", json=body)
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/target"), target
        assert b"hunter22" not in answer.body


# The link in mails


async def link_of(control: Control, channel_id: str) -> str:
    (row,) = await control.sql("select unsubscribe_token from channel where channel_id = $1", channel_id)
    return f"/v1/unsubscribe/{row['unsubscribe_token']}"


async def test_a_scanner_that_follows_the_link_ends_nothing_and_one_click_ends_it(control: Control):
    channel_id = await made_channel(control, MINE, "olga")
    await told(control, channel_id, 1)
    link = await link_of(control, channel_id)
    for method in ("GET", "HEAD"):
        assert (await control.ask(method, link, by=None)).status == 200
    page = (await control.ask("GET", link, by=None)).body.decode()
    assert '<form method="post">' in page
    assert "o***@example.org" in page
    assert "olga" not in page
    (listed,) = (await control.ask("GET", MINE, by="olga")).json["items"]
    assert listed["disabled_at"] is None
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = b"List-Unsubscribe=One-Click"
    for _ in range(2):
        done = await control.ask("POST", link, by=None, body=body, headers=form, key=None)
        assert done.status == 200
    (listed,) = (await control.ask("GET", MINE, by="olga")).json["items"]
    assert listed["disabled_because"] == "its recipient unsubscribed"
    assert [row["state"] for row in await control.sql("select state from delivery")] == ["dead"]
    (entry,) = await control.sql("select actor from audit where action = 'channel.unsubscribe'")
    assert entry["actor"] == "public"


async def test_the_link_of_an_announcement_ends_announcements_alone(control: Control):
    channel_id = await made_channel(control, MINE, "olga")
    link = await link_of(control, channel_id)
    done = await control.ask("POST", f"{link}?only=announcements", by=None, key=None)
    assert done.status == 200
    (listed,) = (await control.ask("GET", MINE, by="olga")).json["items"]
    assert (listed["announcements"], listed["disabled_at"]) == (False, None)
    enabled = await control.ask("POST", f"{MINE}/{channel_id}/enable", by="olga")
    assert enabled.json["announcements"] is True


async def test_links_are_of_one_channel_long_and_nobodys_to_guess(control: Control):
    links = [await link_of(control, await made_channel(control)) for _ in range(3)]
    assert len(set(links)) == 3
    assert all(re.fullmatch(r"/v1/unsubscribe/[0-9a-f]{64}", link) for link in links)
    for wrong in ("x", "0" * 64, links[0][-64:-1] + "G", links[0][-64:].upper()):
        for method in ("GET", "POST"):
            answer = await control.ask(method, f"/v1/unsubscribe/{wrong}", by=None, key=None)
            assert answer.status == 404, wrong
