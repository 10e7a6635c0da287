"""docs/pages.md beside what there is: every page has words and pictures, and no picture is of nothing."""

from __future__ import annotations

import re
from pathlib import Path

from tests.browser.pictures import name_of
from tests.browser.test_every_page import GETS, NO_PAGES

DOCS = Path(__file__).parents[2] / "docs"
BYTES_MAX = 3 << 20  # of all pictures together
FILES = re.compile(r"/(proof|seal|suggested|transaction|rows|export|receipts/\{day\}|proofs/\{day\})$")


def test_every_page_is_told_of():
    text = (DOCS / "pages.md").read_text(encoding="utf-8")
    told = re.findall(r"^### `(.*)`$", text, re.MULTILINE)
    pages = {path for path in GETS if path not in NO_PAGES and not FILES.search(path)}
    assert sorted(told) == sorted(pages)
    for path in told:
        for of in ("light", "phone"):
            assert f"(screenshots/{name_of(path)}-{of}.png)" in text, path


def test_every_picture_that_is_shown_is_there_and_no_other_and_they_are_small():
    text = (DOCS / "pages.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\((screenshots/[\w-]+\.png)\)", text))
    there = {f"screenshots/{path.name}" for path in (DOCS / "screenshots").glob("*.png")}
    assert shown == there
    assert sum((DOCS / path).stat().st_size for path in there) < BYTES_MAX
