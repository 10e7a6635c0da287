"""One Chromium for all tests of this folder, and the demonstration that the slow ones look at.

No `run_on_uvloop` in here: Playwright's own loop runs in this thread for as long as the package is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import ARGUMENTS, found_chromium
from tests.browser.world import World
from tests.e2e.demo import demonstrated


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", action="store_true", help="Write docs/screenshots anew while the pages are driven."
    )


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A headless browser; tests are skipped where there is none."""
    path = found_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[World]:
    """A living network with something on each page."""
    with demonstrated(tmp_path_factory.mktemp("demo"), "--nodes", "12") as demo:
        yield World(demo)


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """Where pictures of the pages go; None: none are wanted."""
    wanted = request.config.getoption("--screenshots", default=False)
    return Path(__file__).parents[2] / "docs/screenshots" if wanted else None
