"""What holds of every page of an operator: who gets what, what it may run, that it says what to do."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from engine.core.version import VERSION
from storage.ids import new_id
from tests.web.control import Control
from tests.web.pages.browsing import Browser, Looked, forms_of
from tests.web.pages.furnished import Furnished
from web.pages import disputes, licences, me, nodes, notifications, points, workloads

TEMPLATES = Path(nodes.__file__).parent / "templates"
LISTS = ("/nodes", "/licences", "/points", "/disputes", "/notifications", "/me")
MODULES = (nodes, workloads, licences, points, disputes, notifications, me)


def things(furnished: Furnished) -> list[str]:
    """Pages of one thing each."""
    return [
        f"/nodes/{furnished.node_id}",
        f"/nodes/{furnished.node_id}/receipts/{furnished.day}",
        f"/workloads/{furnished.workload_id}",
        f"/workloads/{furnished.workload_id}?day={furnished.day}",
        f"/workloads/{furnished.workload_id}/proofs/{furnished.day}",
        f"/licences/{furnished.licence_id}",
        f"/disputes/{furnished.dispute_id}",
        f"/notifications/{furnished.channel_id}",
    ]


def posts(furnished: Furnished) -> list[str]:
    """Where all forms of the operator's pages go."""
    given = {
        "node_id": furnished.node_id,
        "workload_id": furnished.workload_id,
        "licence_id": furnished.licence_id,
        "dispute_id": furnished.dispute_id,
        "channel_id": furnished.channel_id,
        "delivery_id": furnished.delivery_id,
        "window_id": new_id(),
        "key_id": furnished.control.key_ids["olga"],
    }
    return [page.path.format(**given) for module in MODULES for page in module.PAGES if page.method == "POST"]


def is_whole(looked: Looked) -> None:
    """An HTML page that loads from here only, with one h1, headings in order, and a label on each field."""
    policy = looked.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert looked.headers["cache-control"] == "no-store"
    levels = [int(level) for level in re.findall(r"<h([1-6])", looked.text)]
    assert levels.count(1) == 1, looked.words
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    assert f"NodePulse {VERSION} · times are UTC" in looked.words
    assert len(re.findall(r"<table", looked.text)) == len(re.findall(r"<caption", looked.text))
    for area in re.findall(r"<(?:input|select|textarea)\b[^>]*>", looked.text):
        if 'type="hidden"' not in area:
            before = looked.text.partition(area)[0]
            assert before.rfind("<label") > before.rfind("</label"), f"no label around {area}"


async def test_every_page_renders_with_data_and_its_forms_lead_to_pages(furnished: Furnished):
    olga = furnished.browser()
    known = {page.path for module in MODULES for page in module.PAGES}
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in known]
    for path in (*LISTS, *things(furnished), f"/points/alpha/{furnished.day}"):
        looked = await olga.look(path)
        assert looked.status == 200, (path, looked.words)
        if looked.headers["content-type"] == "application/json":
            assert "attachment" in looked.headers["content-disposition"]
            continue
        is_whole(looked)
        assert 'class="empty"' not in looked.text, path
        for form in forms_of(looked.text):
            action = form.action.partition("#")[0]
            assert action == "/sign-out" or any(each.fullmatch(action) for each in patterns), (path, action)
        if "/disputes/" in path:
            assert "I was up &lt;b&gt;all&lt;/b&gt; day" in looked.text, "what people wrote is no markup"


async def test_every_list_says_what_to_do_next_when_it_is_empty(control: Control):
    sam = Browser(control, "sam")
    for path in LISTS:
        looked = await sam.look(path)
        assert looked.status == 200, (path, looked.words)
        is_whole(looked)
        if path != "/me":
            empty = re.search(r'class="empty">(.*?)</div>', looked.text, re.DOTALL)
            assert empty is not None, path
            assert re.search(r"<a href|<pre>|Add ", empty[1]), f"{path} says nothing of what comes next"
    day = await sam.look("/points/alpha/2026-01-31")
    assert (day.status, "none were committed" in day.words) == (200, True)


async def test_nobody_is_sent_to_sign_in_and_back(furnished: Furnished):
    nobody = furnished.browser(None)
    for path in (*LISTS, *things(furnished)):
        looked = await nobody.look(path)
        assert looked.status == 303, path
        assert looked.headers["location"].startswith("/sign-in?next=/"), path
    for path in posts(furnished):
        assert (await nobody.send(path)).headers.get("location") == "/sign-in?next=/", path


async def test_strangers_find_nothing_and_change_nothing(furnished: Furnished):
    sam = furnished.browser("sam")
    for path in things(furnished):
        looked = await sam.look(path)
        assert looked.status == 404, (path, looked.words)
        is_whole(looked)
    before = await _state(furnished)
    for path in posts(furnished):
        if "_id" not in path and path.count("/") < 3:
            continue  # a stranger's own settings and keys
        looked = await sam.send(path, {"workload": furnished.workload_id, "text": "x", "revision": "2"})
        assert looked.status in (404, 422), (path, looked.status, looked.words)
    assert await _state(furnished) == before


async def test_a_form_that_another_site_sent_is_refused(furnished: Furnished):
    olga, before = furnished.browser(), await _state(furnished)
    for path in posts(furnished):
        for site in ("cross-site", "same-site"):
            looked = await olga.send(path, {"text": "x", "workload": furnished.workload_id}, site=site)
            assert looked.status == 403, (path, site)
    assert await _state(furnished) == before


async def _state(furnished: Furnished) -> list[tuple[object, ...]]:
    """How much there is of what forms make and end."""
    tables = ("maintenance_window", "dispute_entry", "channel", "api_key", "licence_binding", "audit")
    counts = ", ".join(f"(select count(*) from {table})" for table in tables)
    return [tuple(row) for row in await furnished.control.sql(f"select {counts}")]


def test_no_template_has_anything_that_a_strict_policy_forbids():
    wrong = []
    for path in sorted(TEMPLATES.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for name, pattern in (
            ("inline script", r"<script(?![^>]*\bsrc=)"),
            ("inline style", r"<style|\sstyle="),
            ("handler", r"\son[a-z]+="),
            ("script in a link", r"javascript:"),
            ("something from elsewhere", r"""(?:src|href)=["'](?:https?:)?//"""),
            ("unescaped text", r"\|\s*safe\b(?<!aria-current=\"page\"'\|safe)"),
        ):
            wrong += [f"{path.name}: {name}: {found[0]}" for found in re.finditer(pattern, text)]
    assert wrong == []


async def test_addresses_that_nobody_wrote_are_no_fault_of_ours(furnished: Furnished):
    olga = furnished.browser()
    for path in (
        "/nodes/x",
        "/nodes/%00",
        "/nodes/%ff",
        "/nodes/a%3Fb",
        "/nodes?state=x",
        "/nodes?after=x",
        "/nodes?name=" + "x" * 500,
        "/workloads/%F0%9F%92%A9",
        f"/workloads/{furnished.workload_id}?day=9999-12-31",
        f"/workloads/{furnished.workload_id}?day=0001-01-01",
        f"/workloads/{furnished.workload_id}?day=x",
        f"/workloads/{furnished.workload_id}/proofs/x",
        f"/nodes/{furnished.node_id}/receipts/2000-01-01",
        "/points/alpha/x",
        "/points/nothing/2026-01-31",
        "/points/alpha/9999-12-31",
        "/points?after=x",
        "/licences?after=x",
        "/disputes?state=x",
        "/disputes?project=x",
        "/notifications/x",
        "/notifications?told=x",
        "/me?after=x",
    ):
        looked = await olga.look(path)
        assert looked.status < 500, (path, looked.words)
        assert looked.status == 200 or "html" in looked.headers["content-type"], path
