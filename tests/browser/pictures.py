"""Screenshots for the documentation: a page in light and on a phone, as PNGs of few colours and few bytes."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from tests.browser.chromium import Eyes

HEIGHT_MAX = 1_500  # a longer page is cut off
COLOURS = 96


def take(eyes: Eyes, folder: Path, pattern: str, *, of: str) -> Path:
    """A picture of the open page; its name is made of the page's pattern."""
    width = eyes.page.viewport_size["width"]
    height = min(eyes.page.evaluate("document.documentElement.scrollHeight"), HEIGHT_MAX)
    raw = eyes.page.screenshot(
        full_page=True,
        animations="disabled",
        clip={"x": 0, "y": 0, "width": width, "height": height},
    )
    path = folder / f"{name_of(pattern)}-{of}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(raw)) as image:
        image.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(path, optimize=True)
    return path


def name_of(pattern: str) -> str:
    """`/projects/{slug}/days/{day}` is `projects-slug-days-day`."""
    return re.sub(r"\W+", "-", pattern).strip("-") or "start"
