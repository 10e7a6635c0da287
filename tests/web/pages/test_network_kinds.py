"""Kinds, versions and rollouts from the pages of whoever runs a project."""

from __future__ import annotations

import re

import pytest
import trio

from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole
from web import summaries

KINDS, KIND = "/projects/alpha/kinds", "/projects/alpha/kinds/edge"
MANIFEST = '{"image": "<edge>:1"}'


async def offered(control: Control, version: str = "1.0.0", percent: str = "0") -> Browser:
    """The kind edge with a version, made in the pages."""
    owner = Browser(control, "owner")
    made = await owner.fill(KINDS, KINDS, slug="edge", name="Edge & co")
    assert (made.status, made.headers["location"]) == (303, f"{KIND}?told=kind-made"), made.words
    fields = {"version": version, "manifest": MANIFEST, "rollout_percent": percent}
    assert (await owner.fill(KIND, f"{KIND}/versions", **fields)).status == 303
    return owner


async def test_a_kind_is_made_and_a_version_rolled_out_in_waves(control: Control):
    empty = await Browser(control, "owner").look(KINDS)
    is_whole(empty)
    assert "Make the first one" in empty.words
    owner = await offered(control, "1.0.0+b1")
    shown = await owner.look(KIND)
    is_whole(shown)
    assert "Edge &amp; co" in shown.text
    assert "not rolled out" in shown.words
    action = f"{KIND}/versions/1.0.0+b1/rollout"
    for percent in (1, 5, 10, 25, 50, 100):
        assert f"Next wave: {percent} %" in (await owner.look(KIND)).words
        assert (await owner.fill(KIND, action, wave=str(percent))).status == 303
    last = await owner.look(KIND)
    assert ("everywhere" in last.words, "Next wave" in last.words) == (True, False)
    assert (await owner.fill(KIND, action, rollout_percent="30")).status == 303
    assert "30 % of nodes" in (await owner.look(KIND)).words
    version = (await control.ask("GET", "/v1/projects/alpha/kinds/edge/versions/1.0.0%2Bb1")).json
    assert version["rollout_percent"] == 30


async def test_a_manifest_is_shown_as_it_was_sent_and_is_no_markup(control: Control):
    owner = await offered(control)
    shown = await owner.look(f"{KIND}/versions/1.0.0")
    is_whole(shown)
    assert "{&#34;image&#34;: &#34;&lt;edge&gt;:1&#34;}" in shown.text


async def test_what_is_refused_stays_in_its_form(control: Control):
    owner = await offered(control)
    taken = await owner.fill(KINDS, KINDS, slug="edge")
    assert (taken.status, 'role="alert"' in taken.text, 'value="edge"' in taken.text) == (409, True, True)
    bad = await owner.fill(
        KIND, f"{KIND}/versions", version="1.0.1", manifest="<b>no JSON", rollout_percent="0"
    )
    assert bad.status == 422
    [alert] = re.findall(r'<div role="alert" class="wrong">(.*?)</div>', bad.text, re.DOTALL)
    assert "not a JSON object" in alert
    assert "&lt;b&gt;no JSON</textarea>" in bad.text
    for percent in ("101", "-1", "many", ""):
        refused = await owner.fill(KIND, f"{KIND}/versions/1.0.0/rollout", rollout_percent=percent)
        assert (refused.status, "from 0 to 100" in refused.words) == (422, True), percent


async def test_the_minimum_version_is_chosen_and_cannot_be_withdrawn(control: Control):
    owner = await offered(control)
    assert (await owner.fill(KIND, f"{KIND}/change", name="Edge", minimum_version="1.0.0")).status == 303
    assert "Minimum version 1.0.0" in (await owner.look(KIND)).words
    refused = await owner.send(f"{KIND}/versions/1.0.0/withdraw", {"withdrawn": "true"})
    assert (refused.status, 'role="alert"' in refused.text) == (409, True)
    assert (await owner.fill(KIND, f"{KIND}/change", minimum_version="")).status == 303
    assert (await owner.send(f"{KIND}/versions/1.0.0/withdraw", {"withdrawn": "true"})).status == 303
    assert "withdrawn" in (await owner.look(KIND)).words
    assert (await owner.send(f"{KIND}/versions/1.0.0/withdraw", {"withdrawn": "false"})).status == 303


async def test_progress_tells_who_runs_what(control: Control, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(summaries, "CENSUS_S", 0.0)
    monkeypatch.setattr(summaries, "VIEW_S", 0.0)
    owner = await offered(control, percent="50")
    [kind] = await control.sql("select kind_id from workload_kind")
    await control.sql(
        "update workload set kind_id = $1, running_version = case slot when 0 then '1.0.0' end"
        " where node_id = $2",
        kind[0],
        control.node.node_id,
    )
    with trio.fail_after(20):  # pages tell what was counted last
        while "1 of 2 workloads run it (50.000 %)" not in (words := (await owner.look(KIND)).words):  # noqa: ASYNC110
            await trio.sleep(0.1)
    assert "Not reported 1" in words


async def test_a_restart_is_ordered_once_from_the_list(control: Control):
    owner, path = Browser(control, "owner"), "/projects/alpha/workloads"
    action = f"{path}/{control.node.workload_ids[0]}/restart"
    fields = {"once": "01a2030a-b3cd-7000-bc48-0760097a84b4", "back": f"{path}?q=w0&told=restarted"}
    for _ in range(2):
        sent = await owner.send(action, fields)
        assert (sent.status, sent.headers["location"]) == (303, f"{path}?q=w0&told=restarted"), sent.words
    assert "The restart is ordered" in (await owner.look(f"{path}?q=w0&told=restarted")).words
    rows = await control.sql("select restarts from workload where name = 'w0' and restarts > 0")
    assert [row[0] for row in rows] == [1]


async def test_only_who_runs_the_project_changes_its_kinds(control: Control):
    await offered(control)
    for by, status in (("olga", 403), ("sam", 403), ("foreign", 404)):
        browser = Browser(control, by)
        for path in (
            KINDS,
            f"{KIND}/change",
            f"{KIND}/retire",
            f"{KIND}/versions",
            f"{KIND}/versions/1.0.0/rollout",
            f"{KIND}/versions/1.0.0/withdraw",
        ):
            sent = await browser.send(
                path, {"slug": "x", "version": "2.0.0", "manifest": "{}", "rollout_percent": "9"}
            )
            assert sent.status == status, (by, path, sent.status)
    found = await control.sql("select count(*), max(rollout_percent) from workload_version")
    assert tuple(found[0]) == (1, 0)
