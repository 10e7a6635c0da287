"""Keys that take the place of others, and what a key is told by."""

from __future__ import annotations

from tests.web.control import Control
from web.main import system_ms

KEYS = "/v1/keys"


async def made_key(control: Control, *, by: str = "paul", **more: object) -> tuple[str, str]:
    """(id, secret) of a key of alpha."""
    body = {"scope": "project", "project": "alpha", "name": "wallet", "permissions": ["read"], **more}
    made = await control.ask("POST", KEYS, by=by, json=body)
    assert made.status == 201, made.json
    return made.json["key"]["key_id"], made.json["api_key"]


async def works(control: Control, secret: str) -> bool:
    control.bearers["tried"] = secret
    return (await control.ask("GET", "/v1/me", by="tried")).status == 200


async def test_a_key_says_how_it_begins_and_who_made_it(control: Control) -> None:
    key_id, secret = await made_key(control)
    listed = (await control.ask("GET", f"{KEYS}?project=alpha", by="paul")).json["items"]
    [key] = [each for each in listed if each["key_id"] == key_id]
    assert (key["prefix"], key["made_by"]) == (secret[:9], f"user:{control.users['paul']}")
    assert key["replaces"] is None
    assert len(secret) - len(key["prefix"]) > 32, "what is not shown is too much to guess"


async def test_a_rotated_key_takes_the_place_of_the_old_one_which_ends_in_time(control: Control) -> None:
    key_id, old = await made_key(control, expires_at="2099-01-01T00:00:00Z")
    path, before_ms = f"{KEYS}/{key_id}/rotate", system_ms()
    made = await control.ask("POST", path, by="paul", json={"overlap_s": 3_600}, key="once")
    again = await control.ask("POST", path, by="paul", json={"overlap_s": 3_600}, key="once")
    assert made.json == again.json
    key = made.json["key"]
    assert (made.status, key["replaces"], key["name"], key["permissions"], key["expires_at"]) == (
        201,
        key_id,
        "wallet",
        ["read"],
        "2099-01-01T00:00:00.000Z",
    )
    assert await works(control, old)
    assert await works(control, made.json["api_key"])
    [[ends_ms]] = await control.sql("select expires_ms from api_key where key_id = $1", key_id)
    assert 0 <= ends_ms - before_ms - 3_600_000 < 60_000
    at_once = await control.ask("POST", f"{KEYS}/{key['key_id']}/rotate", by="paul", json={"overlap_s": 0})
    assert at_once.status == 201
    fresh = control.new_app()  # which remembers no key
    client = fresh.test_client()
    gone = await client.get("/v1/me", headers={"authorization": f"Bearer {made.json['api_key']}"})
    assert gone.status_code == 401


async def test_only_a_key_that_works_is_rotated_and_nobody_gives_more_than_they_have(
    control: Control,
) -> None:
    key_id, _ = await made_key(control)
    path = f"{KEYS}/{key_id}/rotate"
    for overlap_s in (-1, 8 * 86_400, "x"):
        assert (await control.ask("POST", path, by="paul", json={"overlap_s": overlap_s})).status == 400
    more_id, _ = await made_key(control, permissions=["read", "write", "points"])
    await control.add_key(
        "lesser", scope="project", project_id=control.alpha.project_id, permissions=("read", "write")
    )
    refused = await control.ask("POST", f"{KEYS}/{more_id}/rotate", by="lesser", json={})
    assert refused.status == 403
    assert (await control.ask("DELETE", f"{KEYS}/{key_id}", by="paul")).status == 204
    ended = await control.ask("POST", path, by="paul", json={})
    assert (ended.status, ended.json["code"]) == (409, "key_ended")
