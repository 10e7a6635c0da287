"""Uptime that somebody else measured: the port behind which Datagram stands (storage/datagram.py).

It knows nodes by names of its own (`partner_node_id`) and time by whole hours, nothing finer: a window is cut
to whole hours, always downwards, so that windows that meet still meet, and none is counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

HOUR_MS = 3_600_000


class UptimeSourceError(Exception):
    """The source is away, slow, or answered what cannot be. Nothing is known; what was told before stands."""

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class UptimeSource(Protocol):
    """Who tells how long nodes were up."""

    async def up_ms(self, partner_ids: Sequence[str], from_ms: int, to_ms: int) -> dict[str, int | None]:
        """Milliseconds up within [from_ms, to_ms) of each; None: it is not known there.

        ValueError for a window that is not of whole hours (`whole_hours`) or not over. UptimeSourceError.
        """
        ...

    async def register(self, partner_node_id: str) -> None:
        """Make a node known there. UptimeSourceError."""
        ...


def whole_hours(
    from_ms: int, to_ms: int, *, created_ms: int, retired_ms: int | None, now_ms: int
) -> tuple[int, int]:
    """The window in whole hours: cut to a life, whose first hour begins after it, and to hours that are over.

    An empty window where nothing is left.
    """
    over_ms = now_ms if retired_ms is None else min(now_ms, retired_ms)
    start_ms = max(_floor(from_ms), _floor(created_ms + HOUR_MS - 1))
    end_ms = min(_floor(to_ms), _floor(over_ms))
    return (start_ms, end_ms) if start_ms < end_ms else (end_ms, end_ms)


def _floor(at_ms: int) -> int:
    return at_ms - at_ms % HOUR_MS
