"""Every page that is registered, as people meet it: on a desk and on a phone, in the light and in the dark,
with scripts and without. A page that is new is looked at by itself, or says here what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import PHONE, Eyes
from tests.browser.pictures import take
from tests.browser.world import World
from tests.web.pages.browsing import forms_of
from web.pages.pages import Page
from web.pages.site import all_pages
from web.settings import WebSettings

pytestmark = [pytest.mark.browser, pytest.mark.slow]
BACKEND: Any = SimpleNamespace(settings=WebSettings())
PAGES: tuple[Page, ...] = all_pages(BACKEND)
GETS = sorted({page.path for page in PAGES if page.method == "GET"})
# What is no page for eyes, with what it is.
NO_PAGES = {
    "/live/events": "a stream",
    "/live/network/{slug}": "a stream",
    "/": "leads to where one belongs",
    "/static/{fingerprint}/{name}": "a file",
    "/static/{fingerprint}/vendor/{name}": "a file",
}
LOOKED_AT = [path for path in GETS if path not in NO_PAGES]
# Forms that stand on a page only in a state that the demonstration does not come to by itself.
SOMETIMES = {
    "/nodes/{node_id}/windows/{window_id}/end": "a window is open or to come",
    **dict.fromkeys(
        (
            f"{channel}/{form}"
            for channel in ("/notifications/{channel_id}", "/projects/{slug}/channels/{channel_id}")
            for form in ("enable", "confirm-again", "replay", "deliveries/{delivery_id}/replay")
        ),
        "a channel was disabled, waits for its reader's word, or has dead letters",
    ),
    "/installation/outbox/{delivery_id}/replay": "a letter is dead",
}


class Windows:
    """Open windows by person and kind, so that each is opened once."""

    def __init__(self, browser: Browser, world: World) -> None:
        self._browser, self._world = browser, world
        self._open: dict[tuple[str, str], Eyes] = {}

    def of(self, who: str, kind: str) -> Eyes:
        made = self._open.get((who, kind))
        if made is None:
            ways: dict[str, Any] = {
                "light": {},
                "phone": {"size": PHONE},
                "dark": {"size": PHONE, "dark": True},
                "plain": {"scripts": False},
            }[kind]
            token = "" if who == "nobody" else self._world.token(who)
            made = Eyes(self._browser, self._world.url, token=token, **ways)
            self._open[who, kind] = made
        made.wrong.clear()
        return made

    def close(self) -> None:
        for eyes in self._open.values():
            eyes.context.close()


@pytest.fixture(scope="module")
def windows(chromium: Browser, world: World) -> Iterator[Windows]:
    made = Windows(chromium, world)
    yield made
    made.close()


def where(world: World, pattern: str) -> tuple[str, str]:
    return ("nobody", pattern) if pattern == "/sign-in" else world.path(pattern)


def is_file(world: World, who: str, path: str) -> bool:
    """Whether it is downloaded and not shown."""
    answer = world.api(who).request(
        "GET", path, headers={"cookie": f"nodepulse_login={world.token(who)}", "accept": "text/html"}
    )
    assert answer.status in (200, 303), (path, answer.status, answer.body[:300])
    return "attachment" in answer.headers.get("content-disposition", "")


@pytest.mark.parametrize("pattern", LOOKED_AT)
def test_a_page_is_whole_for_everybody(
    world: World, windows: Windows, pattern: str, screenshots: Path | None
):
    who, path = where(world, pattern)
    if who != "nobody" and is_file(world, who, path):
        return
    said = {}
    for kind in ("light", "phone", "dark", "plain"):
        eyes = windows.of(who, kind)
        answer = eyes.go(path)
        assert answer.status == 200, (kind, path)
        if kind != "plain":
            eyes.page.wait_for_load_state("load")
            if kind != "phone":  # what is on a phone is on a dark one, too
                assert eyes.violations() == [], (kind, path)
            said[kind] = eyes.page.locator("main").inner_text()
        if kind in ("phone", "dark"):
            assert eyes.sideways() <= 0, f"{path} is wider than a phone"
        if screenshots is not None and kind in ("light", "phone"):
            take(eyes, screenshots, pattern, of=kind)
        assert eyes.wrong == [], (kind, path)
    plain = windows.of(who, "plain").page
    assert plain.locator("h1").count() == 1
    # What changes from look to look are numbers; what there is to read must be there without scripts.
    headings = plain.locator("h1, h2, h3").all_inner_texts()
    assert headings
    for heading in headings:
        assert re.sub(r"\d+", "", heading.strip()) in re.sub(r"\d+", "", said["light"]), heading


def test_every_form_stands_on_a_page_that_was_looked_at(world: World):
    found: set[str] = set()
    for pattern in LOOKED_AT:
        who, path = where(world, pattern)
        if who != "nobody" and is_file(world, who, path):
            continue
        readers = {"ada" if who == "nobody" else who}
        if pattern.startswith("/disputes/"):
            readers.add("petra")  # of a dispute both sides look at one page
        found |= {
            re.split("[#?]", form.action)[0]
            for reader in readers
            for form in forms_of(world.page(reader, path))
        }
    missing = [
        page.path
        for page in PAGES
        if page.method == "POST"
        and page.path not in SOMETIMES
        and not any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", page.path), action) for action in found)
    ]
    assert not missing, "no page has a form for:\n" + "\n".join(missing)
