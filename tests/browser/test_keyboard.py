"""Pages by keyboard alone: the way past the navigation, an order as it is read, a focus that is seen."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import Eyes
from tests.browser.world import World

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STEPS_MAX = 40


@pytest.mark.parametrize("dark", [False, True])
def test_the_skip_link_is_first_is_seen_and_leads_past_the_navigation(
    chromium: Browser, world: World, dark: bool
):
    with Eyes(chromium, world.url, token=world.token("olga"), dark=dark) as eyes:
        eyes.go("/nodes")
        eyes.page.keyboard.press("Tab")
        first = eyes.focused()
        assert (first["words"], first["onScreen"]) == ("Skip to the content", True)
        eyes.page.keyboard.press("Enter")
        eyes.page.keyboard.press("Tab")
        inside = eyes.page.evaluate("document.querySelector('main').contains(document.activeElement)")
        assert inside, eyes.focused()


@pytest.mark.parametrize(
    ("who", "path"), [("olga", "/nodes"), ("petra", "/projects/edge-ai"), ("olga", "/me")]
)
def test_tabbing_goes_down_the_page_and_one_sees_where_one_is(
    chromium: Browser, world: World, who: str, path: str
):
    with Eyes(chromium, world.url, token=world.token(who)) as eyes:
        eyes.go(path)
        tops: list[float] = []
        for _ in range(STEPS_MAX):
            eyes.page.keyboard.press("Tab")
            focused = eyes.focused()
            if focused["tag"] == "BODY":
                break
            assert focused["seen"], f"nothing shows that it has the focus: {focused}"
            assert focused["onScreen"], focused
            tops.append(focused["top"])
        assert len(tops) > 5
        # Columns beside each other begin again at their top; never further up than their box.
        jumps = [after - before for before, after in pairwise(tops)]
        assert sum(jump < -300 for jump in jumps) == 0, jumps


def test_a_form_is_filled_in_and_sent_by_keys(chromium: Browser, world: World):
    with Eyes(chromium, world.url, token=world.token("olga")) as eyes:
        eyes.go("/me")
        for _ in range(STEPS_MAX):
            eyes.page.keyboard.press("Tab")
            if eyes.page.evaluate("document.activeElement.name") == "name":
                break
        eyes.page.keyboard.press("Control+A")
        eyes.page.keyboard.type("Olga B.")
        eyes.page.keyboard.press("Enter")
        expect(eyes.page.get_by_role("heading", level=1)).to_have_text(re.compile("Olga B."))
        assert eyes.wrong == []


def test_without_scripts_a_form_works_as_well(chromium: Browser, world: World):
    with Eyes(chromium, world.url, token=world.token("olga"), scripts=False) as eyes:
        eyes.go("/me")
        eyes.page.locator("form[action^='/me/name'] input[name=name]").fill("Olga Brandt")
        eyes.page.locator("form[action^='/me/name'] button").click()
        assert eyes.page.get_by_role("heading", level=1).inner_text() == "Olga Brandt"
