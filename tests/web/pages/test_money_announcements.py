"""Announcements to operators of a project: whom they reach is said before anything is sent."""

from __future__ import annotations

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from tests.web.pages.test_forms import alert

PATH = "/projects/alpha/announcements"
NEWS = {"title": "Version 2 <b>is out</b>", "text": "Please update.\nThank you."}


async def test_an_owner_looks_whom_it_reaches_and_sends_it_once(control: Control) -> None:
    body = {"kind": "mail", "target": "olga@example.org"}
    assert (await control.ask("POST", "/v1/me/channels", by="olga", json=body)).status == 201
    paul = Browser(control, "paul")
    empty = await paul.look(PATH)
    is_whole(empty)
    assert 'class="empty"' in empty.text
    assert 'name="project"' not in empty.text, "it is of this project"
    looked = await paul.fill(PATH, PATH, **NEWS, region="eu")
    assert "It would reach 1 of 1 operators, who have 1 nodes, in 1 messages." in looked.words
    assert await control.sql("select from announcement") == []
    assert "Version 2 &lt;b&gt;is out&lt;/b&gt;" in looked.text, "what was typed stays"
    nobody = await paul.fill(PATH, PATH, **NEWS, region="mars")
    assert "It would reach 0 of 0 operators" in nobody.words
    for _ in range(2):
        sent = await paul.send(PATH, {**NEWS, "region": "eu", "which": "send", "once": "one"})
        assert sent.headers["location"] == f"{PATH}?told=announced", sent.words
    [made] = (await control.ask("GET", "/v1/notifications?project=alpha", by="paul")).json["items"]
    assert (made["project"], made["people"], made["filter"]["region"]) == ("alpha", 1, "eu")
    listed = await paul.look(PATH)
    assert "alpha, region eu 1 0 of 1 0" in listed.words


async def test_what_is_wrong_is_told_at_its_field(control: Control) -> None:
    paul = Browser(control, "paul")
    refused = await paul.fill(PATH, PATH, title="x" * 201, text="y")
    assert (refused.status, "title" in alert(refused)) == (400, True)
    assert 'class="wrong-at"' in refused.text
    assert "x" * 201 in refused.text
    wrong = await paul.send(PATH, {**NEWS, "kind": "No Kind", "which": "send", "once": "one"})
    assert (wrong.status, "filter" in alert(wrong)) == (400, True)


async def test_only_whoever_runs_a_project_announces_in_it(control: Control) -> None:
    for by in ("olga", "sam", "foreign"):
        for which in ("preview", "send"):
            sent = await Browser(control, by).send(PATH, {**NEWS, "which": which, "once": "x"})
            assert sent.status in (403, 404), (by, sent.words)
    assert (await Browser(control, "sam").look(PATH)).status in (403, 404)
    assert await control.sql("select from announcement") == []
