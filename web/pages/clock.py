"""What time it is on pages: by the installation's clock, which may run ahead of the system's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

from quart import current_app
from quart_trio import QuartTrio

_CLOCK = "nodepulse.clock"


def install(app: QuartTrio, clock: Callable[[], int]) -> None:
    """Have all pages of this app read `clock` (unix ms)."""
    app.extensions[_CLOCK] = clock


def utc_now() -> datetime:
    return datetime.fromtimestamp(current_app.extensions[_CLOCK]() / 1_000, UTC)


def utc_today() -> date:
    return utc_now().date()
