"""API keys: made by whom they speak for, shown once, and refused everywhere within a second of their end."""

from __future__ import annotations

import hashlib

import trio

from storage.ids import new_id
from tests.web.control import Control
from web.main import system_ms
from web.times import format_rfc3339


async def make(control: Control, *, by: str, named: str = "made", **fields):
    """A key made by somebody, known to `control` as `named`."""
    answer = await control.ask("POST", "/v1/keys", by=by, json=fields)
    if answer.status == 201:
        control.bearers[named] = answer.json["api_key"]
        control.key_ids[named] = answer.json["key"]["key_id"]
    return answer


async def status_of(control: Control, by: str, method: str = "GET", path: str = "/v1/me", **more) -> int:
    return (await control.ask(method, path, by=by, **more)).status


async def test_a_secret_is_shown_once_and_only_its_hash_is_kept(control: Control):
    made = await make(control, by="olga", scope="user", name="laptop")
    assert made.status == 201
    secret, key = made.json["api_key"], made.json["key"]
    assert secret.startswith("np_")
    assert (key["scope"], key["user_id"], key["project_id"]) == ("user", control.users["olga"], None)
    assert key["permissions"] == ["read", "write", "points"]
    assert await status_of(control, "made") == 200
    listed = await control.ask("GET", "/v1/keys", by="olga")
    assert secret.encode() not in listed.body
    (row,) = await control.sql("select key_sha256 from api_key where key_id = $1", key["key_id"])
    assert row["key_sha256"] == hashlib.sha256(secret.encode()).digest()
    (entry,) = await control.sql("select actor, action, subject, detail from audit")
    actor = f"user:{control.users['olga']}"
    assert (entry["actor"], entry["action"], entry["subject"]) == (actor, "key.create", key["key_id"])
    assert secret not in entry["detail"]


async def test_everybody_makes_keys_for_what_is_theirs_only(control: Control):
    olga, sam = control.users["olga"], control.users["sam"]
    for by, fields, status in (
        ("admin", {"scope": "admin"}, 201),
        ("admin", {"scope": "project", "project": "beta"}, 201),
        ("admin", {"scope": "user", "user_id": olga}, 201),
        ("admin", {"scope": "user"}, 422),  # this admin is no person
        ("admin", {"scope": "user", "user_id": new_id()}, 404),
        ("owner", {"scope": "project", "project": "alpha"}, 201),
        ("owner", {"scope": "project", "project": "beta"}, 404),
        ("owner", {"scope": "admin"}, 403),
        ("owner", {"scope": "user", "user_id": olga}, 404),
        ("paul", {"scope": "project", "project": "alpha"}, 201),
        ("paul", {"scope": "user"}, 201),
        ("paul", {"scope": "user", "user_id": control.users["paul"]}, 201),
        ("paul", {"scope": "user", "user_id": sam}, 404),
        ("olga", {"scope": "project", "project": "alpha"}, 404),
        ("olga", {"scope": "admin"}, 403),
        ("olga", {"scope": "project"}, 422),
        ("olga", {"scope": "user", "project": "alpha"}, 422),
        ("admin", {"scope": "admin", "user_id": olga}, 422),
        ("manager", {"scope": "user"}, 403),
        ("olga", {"scope": "manager"}, 400),
        ("olga", {"scope": "user", "permissions": []}, 400),
        ("olga", {"scope": "user", "permissions": ["all"]}, 400),
    ):
        answer = await make(control, by=by, **fields)
        assert answer.status == status, (by, fields, answer.json)


async def test_nobody_gives_more_than_they_have(control: Control):
    reads_and_writes = {"permissions": ["write", "read", "read"]}
    made = await make(control, by="owner", scope="project", project="alpha", **reads_and_writes)
    assert made.json["key"]["permissions"] == ["read", "write"]
    more = await make(control, by="made", scope="project", project="alpha", permissions=["points"])
    assert (more.status, more.json["errors"][0]["pointer"]) == (403, "/permissions")
    same = await make(control, by="made", named="heir", scope="project", project="alpha")
    assert same.json["key"]["permissions"] == ["read", "write"]


async def test_a_key_may_do_what_it_was_permitted_and_no_more(control: Control):
    await make(control, by="owner", named="reads", scope="project", project="alpha", permissions=["read"])
    await make(control, by="owner", named="writes", scope="project", project="alpha", permissions=["write"])
    body = {"scope": "project", "project": "alpha"}
    assert await status_of(control, "reads") == 200
    assert await status_of(control, "reads", "POST", "/v1/keys", json=body) == 403
    assert await status_of(control, "reads", "POST", "/v1/projects/alpha/points", body=b"{}") == 403
    assert await status_of(control, "writes") == 403
    assert await status_of(control, "writes", "POST", "/v1/keys", json=body) == 201
    assert await status_of(control, "writes", "POST", "/v1/projects/alpha/points", body=b"{}") == 403
    assert await status_of(control, "owner", "POST", "/v1/projects/alpha/points", body=b"{}") == 400


async def test_a_key_expires(control: Control):
    for text in ("soon", format_rfc3339(system_ms() - 1), "2026-13-01T00:00:00Z"):
        answer = await make(control, by="olga", scope="user", expires_at=text)
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/expires_at")
    until = format_rfc3339(system_ms() + 3_600_000)
    made = await make(control, by="olga", scope="user", expires_at=until)
    assert made.json["key"]["expires_at"] == until
    assert await status_of(control, "made") == 200
    await control.sql(
        "update api_key set expires_ms = $2 where key_id = $1", control.key_ids["made"], system_ms()
    )
    control.client = control.new_app().test_client()  # which believes nothing yet
    assert await status_of(control, "made") == 401


async def test_a_key_that_ends_makes_none_that_ends_later(control: Control):
    until_ms = system_ms() + 3_600_000
    until, later = format_rfc3339(until_ms), format_rfc3339(until_ms + 1)
    for name, scope in (("brief", {"scope": "project", "project": "alpha"}), ("guest", {"scope": "user"})):
        maker = "owner" if name == "brief" else "olga"
        await make(control, by=maker, named=name, **scope, expires_at=until)
        more = await make(control, by=name, **scope, expires_at=later)
        assert (more.status, more.json["errors"][0]["pointer"]) == (403, "/expires_at")
        heir = await make(control, by=name, named="heir", **scope)
        assert heir.json["key"]["expires_at"] == until
        sooner = await make(control, by="heir", **scope, expires_at=format_rfc3339(until_ms - 1))
        assert sooner.json["key"]["expires_at"] == format_rfc3339(until_ms - 1)


async def test_a_stolen_key_is_refused_everywhere_a_second_after_its_end(
    control: Control, nursery: trio.Nursery
):
    made = await make(control, by="owner", named="stolen", scope="project", project="alpha")
    other = control.new_app()  # one more web process over the same database
    nursery.start_soon(other.backend.run)
    here, elsewhere = control.client, other.test_client()

    async def answers() -> list[set[int]]:
        found = []
        for control.client in (here, elsewhere):
            paths = ("/v1/me", "/v1/nodes", "/v1/keys", "/v1/events")
            found.append({await status_of(control, "stolen", path=path) for path in paths})
        control.client = here
        return found

    assert await answers() == [{200}, {200}]
    assert await status_of(control, "owner", "DELETE", f"/v1/keys/{made.json['key']['key_id']}") == 204
    await trio.sleep(1.0)
    assert await answers() == [{401}, {401}]


async def test_keys_are_revoked_by_whose_they_are_and_once_more_changes_nothing(control: Control):
    for named, by, fields in (
        ("a", "admin", {"scope": "admin"}),
        ("p", "owner", {"scope": "project", "project": "alpha"}),
        ("u", "olga", {"scope": "user"}),
    ):
        assert (await make(control, by=by, named=named, **fields)).status == 201
    for named, by, status in (
        ("a", "owner", 404),
        ("a", "paul", 404),
        ("p", "foreign", 404),
        ("p", "olga", 404),
        ("u", "sam", 404),
        ("u", "owner", 404),
        ("u", "manager", 403),
        ("p", "paul", 204),  # who owns the project as a person
        ("u", "olga", 204),
        ("a", "admin", 204),
        ("a", "admin", 204),
    ):
        path = f"/v1/keys/{control.key_ids[named]}"
        assert await status_of(control, by, "DELETE", path) == status, (named, by)
    for key_id in (new_id(), "x", "0"):
        assert await status_of(control, "admin", "DELETE", f"/v1/keys/{key_id}") == 404
    revoked = await control.sql("select subject from audit where action = 'key.revoke' order by seq")
    assert [row["subject"] for row in revoked] == [control.key_ids[named] for named in "pua"]


async def test_one_lists_the_keys_that_one_may_revoke(control: Control):
    async def listed(by: str, query: str = "") -> set[str]:
        items = (await control.ask("GET", f"/v1/keys{query}", by=by)).json["items"]
        return {key["name"] for key in items}

    assert await listed("olga") == {"olga"}
    assert await listed("paul") == {"paul", "owner"}
    assert await listed("owner") == await listed("paul", "?project=alpha") == {"owner"}
    assert await listed("admin") == {"admin", "owner", "foreign", "olga", "paul", "sam"}
    assert await listed("admin", "?project=beta") == {"foreign"}
    assert await status_of(control, "owner", path="/v1/keys?project=beta") == 404
    assert await status_of(control, "owner", path="/v1/keys?project=%00") == 404
    page = await control.ask("GET", "/v1/keys?limit=4")
    rest = await control.ask("GET", f"/v1/keys?limit=4&after={page.json['next_cursor']}")
    assert (len(page.json["items"]), len(rest.json["items"]), rest.json["next_cursor"]) == (4, 2, None)


async def test_the_last_use_of_a_key_is_told_to_the_minute(control: Control):
    await make(control, by="olga", scope="user")

    async def last_used() -> str | None:
        items = (await control.ask("GET", "/v1/keys", by="olga")).json["items"]
        return next(key["last_used_at"] for key in items if key["key_id"] == control.key_ids["made"])

    assert await last_used() is None
    assert await status_of(control, "made") == 200
    first = await last_used()
    assert first is not None
    control.client = control.new_app().test_client()  # which must look it up again
    assert await status_of(control, "made") == 200
    assert await last_used() == first  # of the same minute


async def test_a_key_for_who_is_retired_is_not_made(control: Control):
    await control.sql("update account set retired_ms = 1 where name = 'sam'")
    answer = await make(control, by="admin", scope="user", user_id=control.users["sam"])
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/user_id")
