"""What people come for, done in a browser against a living network: sign in, see a fall, commit, dispute."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import Eyes
from tests.browser.world import SEALED_S, World
from tests.e2e.node import Node
from tests.e2e.system import NODEPULSE, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOWN_S = 2.0  # the promise, from the fall to the page
OTHER = "grid-storage"


@contextmanager
def beating(node: Node) -> Iterator[None]:
    """It beats once a second until the block ends, and then falls silent."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.8):
            node.beat()

    thread = threading.Thread(target=run)
    node.beat()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def new_node(world: World) -> dict[str, Any]:
    """A node of olga's in a project of its own, as `admin provision` makes it."""
    where = ("--data-dir", str(world.demo.passing_folder), "--json")
    words = [
        "admin",
        "provision",
        "--project",
        "live",
        "--nodes",
        "1",
        "--workloads",
        "1",
        "--interval-ms",
        "1000",
    ]
    done = subprocess.run(
        [*NODEPULSE, *words, *where], env=world.demo.environment, capture_output=True, check=True, timeout=60
    )
    made: dict[str, Any] = json.loads(done.stdout)["nodes"][0]
    olga = world.api("olga").get("/v1/me")["user"]["user_id"]
    changed = world.api("ada").request(
        "PATCH",
        f"/v1/nodes/{made['node_id']}",
        body=json.dumps({"owner_id": olga}).encode(),
        headers={"content-type": "application/json"},
    )
    assert changed.status == 200, changed
    return made


def test_a_link_signs_in_once_and_leads_to_ones_own_machines(chromium: Browser, world: World):
    where = ("--data-dir", str(world.demo.passing_folder), "--json")
    done = subprocess.run(
        [*NODEPULSE, "admin", "user", "link", "omar@machines.example", *where],
        env=world.demo.environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    link = json.loads(done.stdout)["link"]
    with Eyes(chromium, world.url) as eyes:
        eyes.page.goto(link)
        eyes.page.get_by_role("heading", level=1, name="Your nodes").wait_for()
        assert "token" not in eyes.page.url
        assert eyes.wrong == []
        eyes.page.get_by_role("button", name="Sign out").click()
        expect(eyes.page.get_by_role("status").first).to_contain_text("signed out")
        eyes.go("/nodes")
        assert "/sign-in?next=" in eyes.page.url
    with Eyes(chromium, world.url) as eyes:
        eyes.page.goto(link)
        expect(eyes.page.get_by_role("alert")).to_contain_text("does not sign anybody in")


def test_a_nodes_fall_stands_on_open_pages_within_two_seconds(chromium: Browser, world: World):
    made = new_node(world)
    node = Node(world.api("olga"), made, ahead_ms=world.ahead_s * 1_000)
    path = f"/nodes/{made['node_id']}"
    with Eyes(chromium, world.url, token=world.token("olga")) as eyes:
        state = eyes.page.locator("#main .figures .state").first
        with beating(node):
            eventually(lambda: world.api("olga").node_state(made["node_id"]) == "up", within_s=20)
            eyes.go(path)
            expect(state).to_have_text("up")
        expect(state).to_have_text("down")
        shown_s = time.time() + world.ahead_s
        [fall] = [
            event
            for event in world.api("olga").get("/v1/events", node=made["node_id"])["items"]
            if event["kind"] == "node.down"
        ]
        late_s = shown_s - datetime.fromisoformat(fall["at"]).timestamp()
        assert late_s < SHOWN_S, f"{late_s:.2f} s after the verdict"
        expect(eyes.page.locator("#main .events")).to_contain_text("Node went down")
        assert eyes.wrong == []
    node.close()


def test_a_day_is_committed_once_by_one_click(chromium: Browser, world: World):
    petra = world.api("petra")
    eventually(
        lambda: petra.try_status(f"/v1/projects/{OTHER}/seals/{world.demo.day}") == 200, within_s=SEALED_S
    )
    with Eyes(chromium, world.url, token=world.token("petra")) as eyes:
        eyes.go(f"/projects/{OTHER}/days")
        eyes.page.get_by_role("link", name=world.demo.day, exact=True).click()
        reckon = eyes.page.get_by_role("link", name="Reckon what the rule gives")
        if reckon.count():
            reckon.click()
        button = eyes.page.get_by_role("button", name=re.compile("^Commit [0-9.]+ points$"))
        wanted = button.inner_text().split()[1]
        button.dblclick()
        expect(eyes.page.locator("#history ~ .scroll").first).to_contain_text(wanted)
        assert eyes.wrong == []
    commits = petra.get(f"/v1/projects/{OTHER}/points/commits", day=world.demo.day)["items"]
    assert [commit["total_points"] for commit in commits] == [wanted], "two clicks are one commit"


def test_an_operator_disputes_a_day_and_the_owner_answers(chromium: Browser, world: World):
    text = "My machine was on all morning <b>and</b> beat."
    workload_id = world.ids("olga")["workload_id"]
    with Eyes(chromium, world.url, token=world.token("olga")) as eyes:
        eyes.go(f"/workloads/{workload_id}?day={world.demo.day}#day")
        eventually(
            lambda: world.api("petra").try_status(f"/v1/projects/edge-ai/seals/{world.demo.day}") == 200,
            within_s=SEALED_S,
        )
        eyes.page.reload()
        form = eyes.page.locator(f"form[action^='/workloads/{workload_id}/disputes']")
        form.locator("textarea[name=text]").fill(text)
        form.get_by_role("button").click()
        expect(eyes.page.get_by_role("status").first).to_contain_text("dispute is open")
        dispute = eyes.page.url.partition("?")[0].rpartition("/")[2]
        expect(eyes.page.locator("blockquote").first).to_have_text(text)
        assert eyes.wrong == []
    with Eyes(chromium, world.url, token=world.token("petra")) as eyes:
        eyes.go(f"/disputes/{dispute}")
        form = eyes.page.locator(f"form[action^='/disputes/{dispute}/answer']")
        form.locator("textarea[name=text]").fill("We look at it.")
        form.get_by_role("button").click()
        expect(eyes.page.locator("#main .state").first).to_have_text("answered")
        assert eyes.wrong == []
