"""The machine's Chromium: where it is and how it is started, and a person who looks at pages with it.

A look keeps whatever goes wrong on a page: words on the console, what the policy forbade, what did not load.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response

AXE = (Path(__file__).parent / "axe/axe.min.js").read_text(encoding="utf-8")
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *(("--no-sandbox",) if os.getuid() == 0 else ()),
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
)
DESKTOP, PHONE = (1280, 800), (360, 740)
PATIENCE_MS = 20_000
_WATCH = """
document.addEventListener("securitypolicyviolation", event =>
  console.error(`forbidden by policy: ${event.violatedDirective} ${event.blockedURI}`))
"""


def found_chromium() -> str | None:
    """The path of a Chromium, or of its like."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Violation(NamedTuple):
    """What axe found. `impact`: minor, moderate, serious or critical."""

    rule: str
    impact: str
    where: tuple[str, ...]


class Eyes:
    """One window, of somebody with this login (none: nobody's)."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        token: str = "",
        size: tuple[int, int] = DESKTOP,
        dark: bool = False,
        scripts: bool = True,
    ) -> None:
        self.context: BrowserContext = browser.new_context(
            base_url=url,
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(PATIENCE_MS)
        if token:
            self.context.add_cookies([{"name": "nodepulse_login", "value": token, "url": url}])
        self.context.add_init_script(_WATCH)
        self.wrong: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("response", self._came)

    def __enter__(self) -> Eyes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.close()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _came(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.url}")

    def go(self, path: str) -> Response:
        """Open a page of the site."""
        answer = self.page.goto(path)
        assert answer is not None
        return answer

    def violations(self, *, impacts: tuple[str, ...] = ("serious", "critical")) -> list[Violation]:
        """What axe finds on the open page; injected by the driver, so that the page's policy stands."""
        self.page.evaluate(AXE)
        found: list[Any] = self.page.evaluate(
            "axe.run({resultTypes: ['violations']}).then(done => done.violations)"
        )
        return [
            Violation(one["id"], one["impact"], tuple(str(node["html"])[:160] for node in one["nodes"]))
            for one in found
            if one["impact"] in impacts
        ]

    def sideways(self) -> int:
        """By how many pixels the body can be scrolled sideways."""
        width: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return width

    def focused(self) -> dict[str, Any]:
        """What has the focus: its words, place, and whether one sees that it has it."""
        found: dict[str, Any] = self.page.evaluate(
            """() => {
              const one = document.activeElement, box = one.getBoundingClientRect()
              const style = getComputedStyle(one)
              const seen = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
                || style.boxShadow !== "none"
              const words = one.innerText || one.getAttribute("aria-label") || one.name || ""
              return { tag: one.tagName, words: words.trim(),
                       href: one.getAttribute("href") || "", seen, top: box.top + scrollY, left: box.left,
                       onScreen: box.width > 0 && box.right > 0 && box.bottom > 0 && box.left < innerWidth }
            }"""
        )
        return found
