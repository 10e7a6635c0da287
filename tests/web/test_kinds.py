"""Workload kinds, their versions, and releases of the manager, over real stores."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.web.control import Answered, Control

KINDS = "/v1/projects/alpha/kinds"
VERSIONS = f"{KINDS}/gateway/versions"
MANIFEST = '{ "image" : "gateway:1", "é": [1, 2.50] }\n'


async def kind(control: Control, slug: str = "gateway") -> Any:
    made = await control.ask("POST", KINDS, by="owner", json={"slug": slug, "name": slug.title()})
    assert made.status == 201, made.json
    return made.json


async def version(control: Control, number: str, percent: int = 100, manifest: str = "{}") -> Answered:
    body = {"version": number, "manifest": manifest, "rollout_percent": percent}
    return await control.ask("POST", VERSIONS, by="owner", json=body)


async def tasks(control: Control) -> int:
    return (await control.sql("select count(*) from rollout_task"))[0][0]


async def test_a_kind_is_made_once_and_changed_by_who_runs_the_project(
    control: Control,
):
    made = await kind(control)
    assert (await control.ask("GET", f"{KINDS}/gateway", by="sam")).json == made
    assert (await control.ask("GET", KINDS, by="olga")).json["items"] == [made]
    again = await control.ask("POST", KINDS, by="owner", json={"slug": "gateway"})
    assert (again.status, again.json["code"]) == (409, "taken")
    for by, status in (("foreign", 404), ("olga", 403), ("manager", 403)):
        assert (await control.ask("PATCH", f"{KINDS}/gateway", by=by, json={"name": "x"})).status == status
        assert (await control.ask("POST", KINDS, by=by, json={"slug": "other"})).status == status
    changed = await control.ask(
        "PATCH", f"{KINDS}/gateway", by="paul", json={"name": "Gate", "retired": True}
    )
    assert (changed.json["name"], changed.json["retired_at"] is None) == ("Gate", False)
    back = await control.ask("PATCH", f"{KINDS}/gateway", by="paul", json={"retired": False})
    assert back.json == {**made, "name": "Gate"}


async def test_a_kind_of_another_project_is_not_found_under_this_one(control: Control):
    await kind(control)
    assert (await control.ask("GET", "/v1/projects/beta/kinds/gateway")).status == 404
    assert (await control.ask("GET", "/v1/projects/beta/kinds/gateway/versions")).status == 404
    assert (await control.ask("GET", f"{KINDS}/nothing")).status == 404
    assert (await control.ask("GET", f"{KINDS}/%00")).status == 404


async def test_a_manifest_is_kept_byte_for_byte_and_known_by_its_digest(control: Control):
    await kind(control)
    made = await version(control, "1.0.0+build.7", 0, MANIFEST)
    assert made.status == 201
    assert made.json["manifest"] == MANIFEST
    assert made.json["digest"] == f"sha256:{hashlib.sha256(MANIFEST.encode()).hexdigest()}"
    assert made.headers["location"].endswith("/versions/1.0.0%2Bbuild.7")
    got = await control.ask("GET", made.headers["location"], by="olga")
    assert got.json == made.json
    (item,) = (await control.ask("GET", VERSIONS, by="olga")).json["items"]
    assert item == {name: value for name, value in made.json.items() if name != "manifest"}


async def test_what_was_offered_does_not_change(control: Control):
    await kind(control)
    first = await version(control, "1.0.0")
    again = await version(control, "1.0.0", manifest='{"image": "another"}')
    assert (again.status, again.json["code"]) == (409, "taken")
    assert (await control.ask("GET", f"{VERSIONS}/1.0.0")).json == first.json


async def test_what_is_no_version_no_manifest_or_no_percentage_is_refused(control: Control):
    await kind(control)
    for number in ("1", "v1.0.0", "1.0.0\n", "01.0.0", "1.0.0-" + "a" * 200, ""):
        assert (await version(control, number)).status == 400
    for manifest in ("[]", "nothing", '{"a": }', '{"a": 1} x', '{"a":' + "[" * 100_000):
        assert (await version(control, "1.0.0", manifest=manifest)).status == 422
    big = '{"a": "' + "é" * 131_100 + '"}'
    assert (await version(control, "1.0.0", manifest=big)).status == 413
    for percent in (-1, 101, 10.5, "10"):
        assert (await version(control, "1.0.0", percent=percent)).status == 400  # type: ignore[arg-type]
    assert (await control.ask("GET", VERSIONS)).json["items"] == []


async def test_a_manifest_may_have_256_kib_however_it_is_written(control: Control):
    await kind(control)
    manifest = '{"a": "' + "\u00e9" * 131_066 + '"}'  # 262,141 bytes
    escaped = manifest.replace('"', '\\"').replace("\u00e9", "\\u00e9")
    body = f'{{"version": "1.0.0", "manifest": "{escaped}"}}'.encode()
    made = await control.ask(
        "POST", VERSIONS, by="owner", body=body, headers={"content-type": "application/json"}
    )
    assert made.status == 201
    assert made.json["manifest"] == manifest


async def test_a_rollout_grows_and_shrinks_and_each_change_is_brought_to_the_managers(control: Control):
    await kind(control)
    await version(control, "1.0.0", 0)
    assert await tasks(control) == 0  # nobody is asked to run it yet
    for percent in (10, 50, 20):
        changed = await control.ask(
            "PATCH", f"{VERSIONS}/1.0.0", by="paul", json={"rollout_percent": percent}
        )
        assert changed.json["rollout_percent"] == percent
        assert await tasks(control) == 1
        await control.sql("delete from rollout_task")
    same = await control.ask("PATCH", f"{VERSIONS}/1.0.0", by="paul", json={"rollout_percent": 20})
    assert same.status == 200
    assert await tasks(control) == 0
    withdrawn = await control.ask("PATCH", f"{VERSIONS}/1.0.0", by="owner", json={"withdrawn": True})
    assert withdrawn.json["withdrawn_at"] is not None
    assert await tasks(control) == 1
    audited = await control.sql("select count(*) from audit where action = 'version.change'")
    assert audited[0][0] == 4


async def test_the_minimum_is_one_of_the_versions_that_are_offered(control: Control):
    await kind(control)
    await version(control, "1.0.0")
    await version(control, "2.0.0", 0)
    path = f"{KINDS}/gateway"
    missing = await control.ask("PATCH", path, by="owner", json={"minimum_version": "3.0.0"})
    assert (missing.status, missing.json["code"]) == (422, "bad_minimum")
    raised = await control.ask("PATCH", path, by="owner", json={"minimum_version": "2.0.0"})
    assert raised.json["minimum_version"] == "2.0.0"
    held = await control.ask("PATCH", f"{VERSIONS}/2.0.0", by="owner", json={"withdrawn": True})
    assert (held.status, held.json["code"]) == (409, "refused")
    assert (await control.ask("PATCH", path, by="owner", json={"name": "G"})).json[
        "minimum_version"
    ] == "2.0.0"
    none = await control.ask("PATCH", path, by="owner", json={"minimum_version": None})
    assert none.json["minimum_version"] is None
    await control.ask("PATCH", f"{VERSIONS}/2.0.0", by="owner", json={"withdrawn": True})
    gone = await control.ask("PATCH", path, by="owner", json={"minimum_version": "2.0.0"})
    assert gone.status == 422


async def test_a_retired_kind_gets_no_more_versions(control: Control):
    await kind(control)
    await control.ask("PATCH", f"{KINDS}/gateway", by="owner", json={"retired": True})
    assert (await version(control, "1.0.0")).status == 409


async def test_kinds_and_versions_are_listed_page_by_page(control: Control):
    for slug in ("gateway", "relay", "storage"):
        await kind(control, slug)
    for number in ("2.0.0", "1.0.0"):
        await version(control, number)
    page = (await control.ask("GET", f"{KINDS}?limit=2", by="owner")).json
    assert [one["slug"] for one in page["items"]] == ["gateway", "relay"]
    rest = (await control.ask("GET", f"{KINDS}?limit=2&after={page['next_cursor']}", by="owner")).json
    assert ([one["slug"] for one in rest["items"]], rest["next_cursor"]) == (["storage"], None)
    page = (await control.ask("GET", f"{VERSIONS}?limit=1", by="owner")).json
    assert [one["version"] for one in page["items"]] == ["2.0.0"]
    rest = (await control.ask("GET", f"{VERSIONS}?after={page['next_cursor']}", by="owner")).json
    assert [one["version"] for one in rest["items"]] == ["1.0.0"]


# -- releases ---------------------------------------------------------------------------------------------

RELEASE = {"url": "https://example.org/m.tar.gz", "sha256": "ab" * 32, "signature": "c2ln"}


async def test_an_admin_publishes_releases_and_rolls_them_out(control: Control):
    made = await control.ask("POST", "/v1/releases", json={"version": "1.0.0", **RELEASE})
    assert (made.status, made.json["rollout_percent"]) == (201, 0)
    other = {"version": "1.0.0", **RELEASE, "sha256": "cd" * 32}
    assert (await control.ask("POST", "/v1/releases", json=other)).status == 409
    changed = await control.ask("PATCH", "/v1/releases/1.0.0", json={"rollout_percent": 100})
    assert changed.json == {**made.json, "rollout_percent": 100}
    assert (await control.ask("GET", "/v1/releases")).json["items"] == [changed.json]
    assert (await control.ask("PATCH", "/v1/releases/9.0.0", json={})).status == 404
    for by in ("owner", "paul", "manager"):
        assert (await control.ask("GET", "/v1/releases", by=by)).status == 403


async def test_what_is_no_release_is_refused(control: Control):
    for wrong in (
        {"url": "ftp://example.org/"},
        {"url": "https://example.org/\n"},
        {"url": "https://"},
        {"sha256": "AB" * 32},
        {"sha256": "ab" * 32 + "\n"},
        {"signature": ""},
        {"signature": "a b"},
        {"version": "one"},
    ):
        body = {"version": "1.0.0", **RELEASE, **wrong}
        assert (await control.ask("POST", "/v1/releases", json=body)).status == 400
