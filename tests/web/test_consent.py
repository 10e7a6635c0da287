"""Who may be written to: strangers are asked once and left alone, and who unsubscribed is asked again."""

from __future__ import annotations

from engine.core.consent import LETTER_EVERY_MS, LINK_LIFE_MS, OWNERS_LETTERS_MAX
from engine.core.news import notice_of
from engine.core.newsroom import Policy
from tests.contract.given import batch, make_event
from tests.web.control import Answered, Control
from web.main import system_ms
from worker.deciding.step import step

ALPHA, BETA, MINE = "/v1/projects/alpha/channels", "/v1/projects/beta/channels", "/v1/me/channels"
OLGA = "olga@example.org"


async def make(control: Control, path: str, by: str, target: str = OLGA, **more: object) -> dict:
    made = await control.ask("POST", path, by=by, json={"kind": "mail", "target": target, **more})
    assert made.status == 201, made.json
    return made.json["channel"]


async def state_of(control: Control, path: str, by: str, channel_id: str) -> tuple[str, bool]:
    items = (await control.ask("GET", path, by=by)).json["items"]
    (found,) = [item for item in items if item["channel_id"] == channel_id]
    return found["state"], found["announcements"]


async def letters(control: Control) -> list[str]:
    return [row["address"] for row in await control.sql("select address from letter order by letter_id")]


async def unsubscribe(control: Control, channel_id: str, query: str = "") -> None:
    (row,) = await control.sql("select unsubscribe_token from channel where channel_id = $1", channel_id)
    link = f"/v1/unsubscribe/{row['unsubscribe_token']}{query}"
    assert (await control.ask("POST", link, by=None, key=None)).status == 200


async def a_day_passes(control: Control) -> None:
    await control.sql("update mail_consent set asked_ms = asked_ms - $1::bigint", LETTER_EVERY_MS)


async def test_a_strangers_address_gets_one_letter_and_nothing_else_until_its_reader_confirms(
    control: Control,
):
    made = await make(control, ALPHA, "owner", "Olga@example.org")
    channel_id = made["channel_id"]
    assert (made["state"], made["disabled_because"]) == (
        "unconfirmed",
        "its recipient has not confirmed it yet",
    )
    path = f"{ALPHA}/{channel_id}"
    tested = await control.ask("POST", f"{path}/test", by="owner")
    assert (tested.status, tested.json["code"]) == (409, "channel_disabled")
    event = make_event(project_id=control.alpha.project_id)
    assert await control.stores.outbox.put([(notice_of(event), channel_id)], now_ms=system_ms()) == 0
    assert (await control.ask("POST", f"{path}/enable", by="owner")).json["state"] == "unconfirmed"
    assert await letters(control) == ["Olga@example.org"]

    (row,) = await control.sql("select body from letter")
    assert "the project 'alpha'" in row["body"]
    link = next(word for word in row["body"].split() if "/v1/confirm/" in word)
    link = link[link.index("/v1/confirm/") :]
    for _ in range(2):  # scanners follow links
        page = await control.ask("GET", link, by=None)
        assert page.status == 200
        assert b'<form method="post">' in page.body
        assert b"olga" not in page.body
    assert await state_of(control, ALPHA, "owner", channel_id) == ("unconfirmed", True)
    assert (await control.confirm_mail("Olga@example.org")).status == 200
    assert await state_of(control, ALPHA, "owner", channel_id) == ("on", True)
    assert (await control.confirm_mail("Olga@example.org")).status == 404, "a link works once"
    assert (await control.ask("POST", f"{path}/test", by="owner")).status == 202
    (entry,) = await control.sql("select actor, subject from audit where action = 'channel.confirm'")
    assert tuple(entry) == ("public", channel_id)

    again = await make(control, ALPHA, "owner")  # confirmed is the project, not this one channel
    assert again["state"] == "on"
    assert len(await letters(control)) == 1


async def test_the_makers_own_address_and_what_an_admin_makes_are_asked_nothing(control: Control):
    assert (await make(control, MINE, "olga", "OLGA@example.org"))["state"] == "on"
    assert (await make(control, ALPHA, "paul", "paul@example.org"))["state"] == "on"
    assert (await make(control, ALPHA, "admin", "ops@example.org"))["state"] == "on"
    hook = {"kind": "webhook", "target": "https://example.org/"}
    made = await control.ask("POST", ALPHA, by="owner", json=hook)
    assert made.json["channel"]["state"] == "on"
    assert await letters(control) == []
    assert (await make(control, MINE, "sam"))["state"] == "unconfirmed"
    assert (await make(control, ALPHA, "paul", "sam@example.org"))["state"] == "unconfirmed"


async def test_an_address_is_asked_once_a_day_whoever_asks(control: Control):
    await make(control, ALPHA, "owner")
    second = await make(control, BETA, "foreign")
    assert second["state"] == "unconfirmed"
    assert "could not be asked" in second["disabled_because"]
    again = f"{BETA}/{second['channel_id']}/confirm-again"
    answer = await control.ask("POST", again, by="foreign")
    assert (answer.status, answer.json["code"]) == (429, "too_many_letters")
    await a_day_passes(control)
    assert (await control.ask("POST", again, by="foreign")).status == 202
    assert await letters(control) == [OLGA, OLGA]
    await control.confirm_mail(OLGA)
    assert await state_of(control, BETA, "foreign", second["channel_id"]) == ("on", True)
    answer = await control.ask("POST", again, by="foreign")
    assert (answer.status, answer.json["code"]) == (409, "nothing_to_confirm")


async def test_a_letter_that_could_not_be_sent_uses_nothing_up(control: Control):
    made = await make(control, ALPHA, "owner")
    await control.sql("update letter set state = 'dead', body = ''")
    again = await control.ask("POST", f"{ALPHA}/{made['channel_id']}/confirm-again", by="owner")
    assert again.status == 202


async def test_an_owner_has_only_so_many_strangers_asked_a_day(control: Control):
    for number in range(OWNERS_LETTERS_MAX + 2):
        made = await make(control, ALPHA, "owner", f"stranger{number}@example.org")
        await control.ask("DELETE", f"{ALPHA}/{made['channel_id']}", by="owner")
    assert len(await letters(control)) == OWNERS_LETTERS_MAX


async def test_a_link_ends_after_a_week_and_who_never_answered_is_forgotten(control: Control):
    await make(control, ALPHA, "owner")
    await control.sql("update mail_consent set asked_ms = asked_ms - $1::bigint", LINK_LIFE_MS)
    assert (await control.confirm_mail(OLGA)).status == 404
    assert await control.stores.consent.prune(now_ms=system_ms(), limit=10) == 1
    for wrong in ("x", "npm_" + "A" * 43):
        for method in ("GET", "POST"):
            assert (await control.ask(method, f"/v1/confirm/{wrong}", by=None, key=None)).status == 404


async def test_what_would_have_been_told_meanwhile_is_counted_and_not_told_later(control: Control):
    await make(control, ALPHA, "owner", event_kinds=["node.down"])
    event = make_event(project_id=control.alpha.project_id)
    await control.stores.history.flush(batch(position=10_000, events=(event,)))
    decided = await control.stores.newsroom.decide(
        step, policy=Policy(project_delay_ms=0), now_ms=system_ms(), limit=100
    )
    assert decided.dropped == {"unconfirmed": 1}
    await control.confirm_mail(OLGA)
    assert await control.sql("select from delivery") == []
    assert await control.sql("select from news_item") == []


async def test_the_sender_cannot_undo_an_unsubscription(control: Control):
    first, second = [(await make(control, ALPHA, "admin"))["channel_id"] for _ in range(2)]
    await unsubscribe(control, first)
    assert await state_of(control, ALPHA, "owner", second) == ("disabled", True), "of the same sender"
    for by in ("owner", "admin"):
        enabled = await control.ask("POST", f"{ALPHA}/{first}/enable", by=by)
        assert (enabled.status, enabled.json["state"]) == (200, "unconfirmed")
    for by in ("owner", "admin"):  # nor by making it anew
        assert (await make(control, ALPHA, by))["state"] == "unconfirmed"
    assert await letters(control) == [OLGA]
    assert (await make(control, BETA, "admin"))["state"] == "on", "another sender is another matter"
    await control.confirm_mail(OLGA)
    assert await state_of(control, ALPHA, "owner", first) == ("on", True)
    assert (await make(control, ALPHA, "owner"))["state"] == "on"


async def test_nor_that_of_announcements(control: Control):
    channel_id = (await make(control, MINE, "sam"))["channel_id"]
    await control.confirm_mail(OLGA)
    await unsubscribe(control, channel_id, "?only=announcements")
    await a_day_passes(control)
    enabled = await control.ask("POST", f"{MINE}/{channel_id}/enable", by="sam")
    assert (enabled.json["state"], enabled.json["announcements"]) == ("on", False)
    again = await make(control, MINE, "sam")
    assert (again["state"], again["announcements"]) == ("on", False)
    page: Answered = await control.confirm_mail(OLGA)
    assert b"announcements" in page.body
    assert await state_of(control, MINE, "sam", channel_id) == ("on", True)
    assert await state_of(control, MINE, "sam", again["channel_id"]) == ("on", True)


async def test_whoever_sends_knows_whose_mail_it_is_and_whether_to_their_own_address(control: Control):
    mine = await make(control, MINE, "olga", "Olga@example.org")
    theirs = await make(control, ALPHA, "admin")
    sams = await make(control, MINE, "sam")
    await control.confirm_mail(OLGA)
    event = notice_of(make_event(project_id=control.alpha.project_id))
    now_ms = system_ms()
    told = [(event, channel["channel_id"]) for channel in (mine, theirs, sams)]
    assert await control.stores.outbox.put(told, now_ms=now_ms) == 3
    claimed = await control.stores.sending.claim(kind="mail", limit=9, now_ms=now_ms, lease_ms=1_000)
    assert {(one.owner, one.own_address) for one in claimed} == {
        (control.users["olga"], True),
        (control.alpha.project_id, False),
        (control.users["sam"], False),
    }


async def test_people_end_and_begin_mail_to_their_own_address_as_they_like(control: Control):
    one, other = [(await make(control, MINE, "olga"))["channel_id"] for _ in range(2)]
    await unsubscribe(control, one)
    assert await state_of(control, MINE, "olga", other) == ("on", True)
    enabled = await control.ask("POST", f"{MINE}/{one}/enable", by="olga")
    assert enabled.json["state"] == "on"
    assert (await make(control, MINE, "olga"))["state"] == "on"
    assert await letters(control) == []
