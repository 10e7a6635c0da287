"""People: entered and changed by admins, seen by themselves, never deleted; and what one sets for oneself."""

from __future__ import annotations

import pytest

from storage.ids import new_id
from tests.web.control import Control
from tests.web.wallets import Wallet
from web.me import time_zones
from web.wallet import with_checksum

ANNA = Wallet("anna").address


async def create(control: Control, **fields):
    return await control.ask("POST", "/v1/users", json=fields)


async def test_a_person_is_entered_in_one_form_and_shown_with_the_checksum(control: Control):
    made = await create(control, name="Anna", wallet=with_checksum(ANNA), email="Anna@Example.ORG")
    assert made.status == 201
    user = made.json
    assert (user["wallet"], user["email"]) == (with_checksum(ANNA), "anna@example.org")
    assert (user["admin"], user["retired_at"]) == (False, None)
    assert made.headers["location"] == f"/v1/users/{user['user_id']}"
    assert (await control.ask("GET", made.headers["location"])).json == user
    kept = await control.sql("select wallet, email from account where user_id = $1", user["user_id"])
    assert tuple(kept[0]) == (ANNA, "anna@example.org")
    entries = await control.sql("select action, subject, actor from audit")
    assert [tuple(entry) for entry in entries] == [
        ("user.create", user["user_id"], f"key:{control.key_ids['admin']}")
    ]


async def test_what_is_wrong_is_refused_with_a_pointer(control: Control):
    mistyped = "0xDe709f2102306220921060314715629080e2fb77"
    for fields, status, pointer in (
        ({}, 422, "/wallet"),
        ({"name": "nobody"}, 422, "/wallet"),
        ({"wallet": mistyped}, 422, "/wallet"),
        ({"email": "not an address"}, 422, "/email"),
        ({"wallet": "0x12"}, 400, "/wallet"),
        ({"email": "sam@example.org", "name": "n" * 201}, 400, "/name"),
        ({"email": "SAM@example.org"}, 409, "/email"),
        ({"wallet": ANNA, "email": "x@example.org", "admin": "yes"}, 400, "/admin"),
    ):
        answer = await create(control, **fields)
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (status, pointer), fields
    assert (await create(control, wallet=ANNA, user_id="x")).status == 400
    taken = (await control.sql("select wallet from account where name = 'sam'"))[0]["wallet"]
    answer = await create(control, wallet=with_checksum(taken))
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (409, "/wallet")


async def test_a_nul_in_a_name_is_malformed_and_a_backslash_is_not(control: Control):
    for body, status in (
        (rb'{"email": "a@example.org", "name": "x\u0000"}', 400),
        (rb'{"email": "a@example.org", "name": "x\\\u0000"}', 400),
        (rb'{"email": "a@example.org", "name": "x\\u0000"}', 201),
    ):
        answer = await control.ask("POST", "/v1/users", body=body)
        assert answer.status == status, body


async def test_people_are_listed_by_cursor_and_found_by_wallet_and_address(control: Control):
    ids = []
    path = "/v1/users?limit=2"
    while path:
        page = await control.ask("GET", path)
        ids += [user["user_id"] for user in page.json["items"]]
        assert len(page.json["items"]) <= 2
        link = page.headers.get("link")
        path = link[1 : link.index(">")] if link else None
    assert ids == sorted(control.users.values())
    for query in ("email=Olga@example.org", "wallet=" + (await _wallet(control, "olga"))):
        (found,) = (await control.ask("GET", f"/v1/users?{query}")).json["items"]
        assert found["name"] == "olga"
    for query in ("email=x", "wallet=0x12", "after=x", "limit=0", "limit=1001", "after="):
        assert (await control.ask("GET", f"/v1/users?{query}")).status == 400, query


async def _wallet(control: Control, name: str) -> str:
    found = await control.sql("select wallet from account where name = $1", name)
    return with_checksum(found[0]["wallet"])


async def test_others_see_themselves_and_nobody_else(control: Control):
    mine, theirs = f"/v1/users/{control.users['olga']}", f"/v1/users/{control.users['sam']}"
    assert (await control.ask("GET", mine, by="olga")).json["name"] == "olga"
    nobody = await control.ask("GET", f"/v1/users/{new_id()}", by="olga")
    foreign = await control.ask("GET", theirs, by="olga")
    assert nobody.status == foreign.status == 404
    assert nobody.json["detail"] == foreign.json["detail"]
    for by in ("owner", "manager"):
        assert (await control.ask("GET", mine, by=by)).status == 403
    for by in ("olga", "paul", "owner"):
        assert (await control.ask("GET", "/v1/users", by=by)).status == 403
        assert (await control.ask("PATCH", mine, by=by, json={"admin": True})).status == 403


async def test_an_admin_changes_what_is_named_and_nothing_else(control: Control):
    path = f"/v1/users/{control.users['olga']}"
    before = (await control.ask("GET", path)).json
    changed = await control.ask("PATCH", path, json={"wallet": with_checksum(ANNA), "admin": True})
    assert changed.json == {**before, "wallet": with_checksum(ANNA), "admin": True}
    assert (await control.ask("PATCH", path, json={"email": None})).json["email"] is None
    last = await control.ask("PATCH", path, json={"wallet": None})
    assert (last.status, last.json["code"]) == (422, "invalid")
    taken = await control.ask("PATCH", path, json={"email": "sam@example.org"})
    assert (taken.status, taken.json["errors"][0]["pointer"]) == (409, "/email")
    details = await control.sql("select detail from audit order by seq")
    assert [row["detail"] for row in details] == [f'{{"admin":true,"wallet":"{ANNA}"}}', '{"email":null}']


async def test_a_change_of_nothing_is_no_entry_in_the_audit_log(control: Control):
    path = f"/v1/users/{control.users['olga']}"
    assert (await control.ask("PATCH", path, json={"name": "olga"})).status == 200
    assert (await control.ask("PATCH", path, json={})).status == 200
    assert await control.sql("select 1 from audit") == []


async def test_who_is_retired_stays_there_and_their_keys_are_refused(control: Control):
    path = f"/v1/users/{control.users['olga']}"
    retired = await control.ask("PATCH", path, json={"retired": True})
    assert retired.json["retired_at"] is not None
    assert (await control.ask("GET", path)).json == retired.json
    assert (await control.ask("PATCH", path, json={"retired": True})).json == retired.json
    control.client = control.new_app().test_client()
    assert (await control.ask("GET", "/v1/me", by="olga")).status == 401
    (key,) = await control.sql("select revoked_ms from api_key where name = 'olga'")
    assert key["revoked_ms"] is not None


async def test_no_admin_locks_themselves_out(control: Control):
    await control.sql("update account set admin = true where name = 'olga'")
    path = f"/v1/users/{control.users['olga']}"
    for change in ({"retired": True}, {"admin": False}):
        assert (await control.ask("PATCH", path, by="olga", json=change)).status == 409
    assert (await control.ask("PATCH", path, by="olga", json={"name": "Olga"})).status == 200


async def test_one_is_told_who_one_is(control: Control):
    paul = (await control.ask("GET", "/v1/me", by="paul")).json
    alpha = {"project_id": control.alpha.project_id, "slug": "alpha"}
    assert (paul["scope"], paul["user"]["name"], paul["projects"]) == ("user", "paul", [alpha])
    owner = (await control.ask("GET", "/v1/me", by="owner")).json
    assert (owner["scope"], owner["user"], owner["projects"]) == ("project", None, [alpha])
    assert owner["credential_id"] == control.key_ids["owner"]
    admin = (await control.ask("GET", "/v1/me", by="admin")).json
    assert (admin["scope"], admin["user"], admin["projects"]) == ("admin", None, [])


async def test_one_changes_ones_name_and_nothing_that_one_signs_in_with(control: Control):
    assert (await control.ask("PATCH", "/v1/me", by="olga", json={"name": "Olga O."})).status == 200
    assert (await control.ask("GET", "/v1/me", by="olga")).json["user"]["name"] == "Olga O."
    for body in ({"wallet": ANNA}, {"email": "x@example.org"}, {"admin": True}, {"name": "x", "admin": True}):
        assert (await control.ask("PATCH", "/v1/me", by="olga", json=body)).status == 400
    assert (await control.ask("PATCH", "/v1/me", by="owner", json={"name": "x"})).status == 403
    assert (await control.ask("PATCH", "/v1/me", by="admin", json={"name": "x"})).status == 409


async def test_notification_settings_have_defaults_and_are_replaced_as_a_whole(control: Control):
    path = "/v1/me/notifications"
    first = (await control.ask("GET", path, by="olga")).json
    assert first == {
        "down_delay_s": 300,
        "quiet_from": None,
        "quiet_to": None,
        "time_zone": "UTC",
        "daily_report": False,
        "weekly_report": True,
    }
    night = {**first, "quiet_from": "22:30", "quiet_to": "07:00", "time_zone": "Europe/Lisbon"}
    for setting in (night, {**first, "down_delay_s": 0}):
        assert (await control.ask("PUT", path, by="olga", json=setting)).json == setting
        assert (await control.ask("GET", path, by="olga")).json == setting
    assert (await control.ask("GET", path, by="sam")).json == first
    assert len(await control.sql("select 1 from audit where action = 'notifications.change'")) == 2


async def test_settings_that_mean_nothing_are_refused(control: Control):
    for body, status in (
        ({"quiet_from": "22:00"}, 422),
        ({"quiet_from": "24:00", "quiet_to": "07:00"}, 400),
        ({"time_zone": "Mars/Olympus"}, 422),
        ({"time_zone": "../../etc/passwd"}, 422),
        ({"down_delay_s": -1}, 400),
        ({"down_delay_s": 86_401}, 400),
        ({"weekly": True}, 400),
    ):
        answer = await control.ask("PUT", "/v1/me/notifications", by="olga", json=body)
        assert answer.status == status, body
    assert (await control.ask("PUT", "/v1/me/notifications", by="admin", json={})).status == 409


async def test_the_directory_of_time_zones_is_read_once(control: Control, monkeypatch: pytest.MonkeyPatch):
    """It takes 15 ms, in which nobody else is served: a person's key could hold a whole process up."""
    reads: list[None] = []

    def read() -> set[str]:
        reads.append(None)
        return {"UTC"}

    time_zones.cache_clear()
    monkeypatch.setattr("web.me.available_timezones", read)
    for zone, status in (("UTC", 200), ("Mars/Base", 422), ("UTC", 200)):
        answer = await control.ask("PUT", "/v1/me/notifications", by="olga", json={"time_zone": zone})
        assert answer.status == status
    time_zones.cache_clear()
    assert len(reads) == 1
