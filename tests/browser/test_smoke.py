"""The one quick look: a real server's page for strangers in a real browser. The other pages are looked at by
the slow tests beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import Eyes
from tests.e2e.system import System, running

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("browser") / "data"
    folder.mkdir(mode=0o700)
    with running(System(folder)) as started:
        yield started


def test_a_stranger_can_sign_in_with_a_key_and_finds_nothing_that_is_wrong(system: System, chromium: Browser):
    key = system.admin("key", "create", "--admin")["api_key"]
    with Eyes(chromium, system.web_url) as eyes:
        eyes.go("/nodes")
        assert eyes.page.url.startswith(f"{system.web_url}/sign-in?next=")
        assert eyes.violations() == []
        eyes.page.get_by_label("API key").fill(key)
        eyes.page.get_by_role("button", name="Look around with it").click()
        eyes.page.get_by_role("heading", level=1, name="Nodes").wait_for()
        assert eyes.page.url == f"{system.web_url}/nodes"
        assert eyes.wrong == []
    with Eyes(chromium, system.web_url) as eyes:
        eyes.go("/no/such/page")
        eyes.page.get_by_role("link", name="To the start").wait_for()
        assert eyes.violations() == []
