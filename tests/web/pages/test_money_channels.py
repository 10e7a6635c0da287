"""A project's channels in the browser: made with a secret shown once, tested, switched off, sent again."""

from __future__ import annotations

import re

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.pages.test_forms import alert

PATH = "/projects/alpha/channels"
HOOK = {"kind": "webhook", "target": "https://example.org/hook", "name": "<b>points</b>"}


async def made(control: Control, browser: Browser) -> str:
    """A webhook's page."""
    looked = await browser.fill(PATH, PATH, **HOOK)
    assert looked.status == 200, looked.words
    [[channel_id]] = await control.sql("select channel_id::text from channel where project_id is not null")
    return f"{PATH}/{channel_id}"


async def test_a_projects_webhook_is_made_with_a_secret_that_is_shown_once(control: Control) -> None:
    paul = Browser(control, "paul")
    empty = await paul.look(PATH)
    is_whole(empty)
    assert "Nothing of this project is told anywhere yet." in empty.words
    looked = await paul.fill(PATH, PATH, **HOOK)
    is_whole(looked)
    [secret] = re.findall(r'<code class="secret">(whsec_[^<]+)</code>', looked.text)
    after = await paul.look(PATH)
    assert secret not in after.text
    assert "&lt;b&gt;points&lt;/b&gt;" in after.text
    again = await Browser(control, "owner").look(PATH)
    assert again.status == 200, "a project's key runs it as well"


async def test_a_double_click_makes_one_channel_and_tells_its_secret_twice(control: Control) -> None:
    paul = Browser(control, "paul")
    answers = [await paul.send(PATH, {**HOOK, "once": "one"}) for _ in range(2)]
    secrets = [re.findall(r"whsec_[^<]+", each.text) for each in answers]
    assert secrets[0] == secrets[1] != []
    [[count]] = await control.sql("select count(*) from channel")
    assert count == 1


async def test_it_is_tested_switched_off_on_and_removed(control: Control) -> None:
    paul = Browser(control, "paul")
    path = await made(control, paul)
    is_whole(await paul.look(path))
    assert (await paul.fill(path, f"{path}/test")).headers["location"] == f"{path}?told=test-sent"
    assert "due" in (await paul.look(path)).words
    assert (await paul.send(f"{path}/disable")).status == 303
    off = await paul.look(path)
    assert "switched off by its owner" in off.words
    refused = await paul.send(f"{path}/test", {"once": "x"})
    assert (refused.status, "enable it first" in alert(refused)) == (409, True)
    assert (await paul.send(f"{path}/enable")).status == 303
    [[delivery_id]] = await control.sql("select delivery_id::text from delivery where state = 'dead'")
    assert (await paul.fill(path, f"{path}/deliveries/{delivery_id}/replay")).status == 303
    assert (await paul.send(f"{path}/replay")).status == 303
    assert (await paul.send(f"{path}/remove")).headers["location"] == f"{PATH}?told=channel-removed#channels"
    assert (await paul.look(path)).status == 404


async def test_a_wrong_target_is_told_at_its_field(control: Control) -> None:
    refused = await Browser(control, "paul").fill(PATH, PATH, **{**HOOK, "target": "ftp://x"})
    assert refused.status == 422
    assert '<small class="wrong-at">a webhook needs an http or https URL</small>' in refused.text
    assert 'value="ftp://x"' in refused.text


async def test_a_reader_who_was_asked_is_shown_and_can_be_asked_again(control: Control) -> None:
    paul = Browser(control, "paul")
    await paul.fill(PATH, PATH, kind="mail", target="stranger@example.org", name="")
    listed = await paul.look(PATH)
    assert "its reader has not said yes yet" in listed.words
    [path] = set(re.findall(rf'href="({PATH}/[^"]+)"', listed.text))
    assert "was asked by a letter" in (await paul.look(path)).words
    refused = await paul.send(f"{path}/confirm-again")
    assert refused.status == 429, "a letter a day"


async def test_strangers_find_no_channels_of_a_project(control: Control) -> None:
    path = await made(control, Browser(control, "paul"))
    for by in ("olga", "sam", "foreign"):
        browser = Browser(control, by)
        for page in (PATH, path):
            assert (await browser.look(page)).status in (403, 404), (by, page)
        for what in ("test", "disable", "enable", "replay", "remove", "confirm-again"):
            assert (await browser.send(f"{path}/{what}")).status in (403, 404), (by, what)
        assert (await browser.send(PATH, HOOK)).status in (403, 404)
    [[count]] = await control.sql("select count(*) from channel where removed_ms is null")
    assert count == 1
