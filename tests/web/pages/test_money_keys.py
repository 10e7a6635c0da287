"""Keys of a project in the browser: shown once, told by how they begin, rotated, revoked."""

from __future__ import annotations

import re

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.pages.test_forms import alert

PATH = "/projects/alpha/keys"


async def key_of(control: Control, name: str) -> str:
    [[key_id]] = await control.sql(
        "select key_id::text from api_key where name = $1 order by key_id limit 1", name
    )
    return key_id


async def test_a_projects_key_is_made_rotated_and_revoked(control: Control) -> None:
    paul = Browser(control, "paul")
    fields = [("name", "<b>night</b>"), ("days", "30"), ("permissions", "read"), ("permissions", "points")]
    made = await paul.send(PATH, [*fields, ("once", "one")])
    [secret] = re.findall(r'<code class="secret">([^<]+)</code>', made.text)
    assert secret in (await paul.send(PATH, [*fields, ("once", "one")])).text, "sent twice, made once"
    listed = await paul.look(PATH)
    is_whole(listed)
    assert secret not in listed.text
    assert f"<b>night</b> {secret[:9]}… read, points" in listed.words
    assert "by you" in listed.words
    assert "&lt;b&gt;night&lt;/b&gt;" in listed.text
    control.bearers["made"] = secret
    assert (await control.ask("GET", "/v1/projects/alpha/points", by="made")).status == 200
    key_id = await key_of(control, "<b>night</b>")
    rotated = await paul.fill(PATH, f"{PATH}/{key_id}/rotate", overlap_s="0")
    [other] = re.findall(r'<code class="secret">([^<]+)</code>', rotated.text)
    assert other != secret
    shown = await paul.look(PATH)
    assert f"in the place of {key_id[-8:]}" in shown.words
    assert "ended" in shown.words
    ended = await paul.send(f"{PATH}/{key_id}/rotate", {"once": "two"})
    assert (ended.status, "does not work any more" in alert(ended)) == (409, True)
    [new_id] = re.findall(rf'action="{PATH}/([0-9a-f-]+)/revoke"', shown.text.partition("in the place")[2])
    assert (await paul.fill(PATH, f"{PATH}/{new_id}/revoke")).headers[
        "location"
    ] == f"{PATH}?told=key-revoked"
    assert "revoked" in (await paul.look(PATH)).words


async def test_a_key_that_may_nothing_is_refused_at_its_field(control: Control) -> None:
    refused = await Browser(control, "paul").send(PATH, {"name": "none", "days": "90"})
    assert (refused.status, 'class="wrong-at"' in refused.text) == (400, True)
    assert 'value="none"' in refused.text


async def test_strangers_find_no_keys_of_a_project(control: Control) -> None:
    owners = control.key_ids["owner"]
    for by in ("olga", "sam", "foreign"):
        browser = Browser(control, by)
        for sent in (
            await browser.look(PATH),
            await browser.send(PATH, {"name": "x", "permissions": "read"}),
            await browser.send(f"{PATH}/{owners}/rotate"),
            await browser.send(f"{PATH}/{owners}/revoke"),
        ):
            assert sent.status in (403, 404), (by, sent.words)
    [[keys]] = await control.sql(
        "select count(*) from api_key where scope = 'project' and revoked_ms is null"
    )
    assert keys == 2
