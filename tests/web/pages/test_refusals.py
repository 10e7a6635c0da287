"""What is answered where there is no page: a page to browsers, a problem document to programs."""

from __future__ import annotations

import pytest

from engine.core.ports import StoreUnavailableError
from tests.web.control import Control
from tests.web.pages.browsing import Browser
from tests.web.pages.test_every_page import is_whole

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("by", [None, "olga"])
async def test_an_unknown_address_answers_a_browser_with_a_page_that_says_where_to_go(
    control: Control, by: str | None
):
    looked = await Browser(control, by).look("/no/such/page", accept=HTML)
    assert looked.status == 404
    is_whole(looked)
    assert 'href="/"' in looked.text
    assert ("/sign-in" in looked.text) == (by is None)
    assert ("Your nodes" in looked.words) == (by == "olga")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "application/problem+json, */*"])
async def test_a_program_gets_the_problem_document(control: Control, accept: str):
    looked = await Browser(control, None).look("/no/such/page", accept=accept)
    assert (looked.status, looked.headers["content-type"]) == (404, "application/problem+json")


async def test_below_the_api_everybody_gets_the_problem_document(control: Control):
    looked = await Browser(control).look("/v1/no-such-thing", accept=HTML)
    assert (looked.status, looked.headers["content-type"]) == (404, "application/problem+json")


async def test_a_form_without_its_form_is_told_what_to_do(control: Control):
    looked = await Browser(control).look("/sign-out", accept=HTML)
    assert looked.status == 405
    is_whole(looked)
    assert looked.headers["allow"]


async def test_what_breaks_is_a_page_and_tells_nothing_of_the_inside(control: Control):
    async def broken() -> str:
        raise ZeroDivisionError("a secret of the inside")

    control.app.view_functions["page GET /nodes"] = broken
    browser = Browser(control)
    looked = await browser.look("/nodes", accept=HTML)
    assert looked.status == 500
    is_whole(looked)
    assert "secret" not in looked.text
    assert "Your nodes" in looked.words, "who looks is still known"
    program = await browser.look("/nodes", accept="*/*")
    assert (program.status, program.headers["content-type"]) == (500, "application/problem+json")


async def test_with_the_database_away_nobody_is_sent_to_sign_in(control: Control):
    async def away(*_: object) -> object:
        raise StoreUnavailableError("away")

    control.app.backend.keys.caller = away
    looked = await Browser(control).look("/nodes", accept=HTML)
    assert looked.status == 503
    is_whole(looked)
