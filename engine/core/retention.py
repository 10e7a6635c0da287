"""What was told long ago is forgotten: a port. What is money or history (events, seals, points) never is."""

from __future__ import annotations

from typing import Protocol


class Retention(Protocol):
    """StoreUnavailableError."""

    async def prune_deliveries(self, *, now_ms: int, kept_ms: int, limit: int) -> int:
        """Delete deliveries that were settled longer ago than `kept_ms`, and notices that nothing is left of;
        how many rows went, at most `limit` of each: call again until it returns 0."""
        ...
