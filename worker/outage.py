"""Whether a store is away, as one part of the worker sees it: logged when it goes and when it is back."""

from __future__ import annotations

import structlog

from engine.core.ports import StoreUnavailableError

OUTAGE_POLL_S = 1.0  # how often a store that is away is tried again

log = structlog.get_logger()


class Outage:
    """`part` names the part in the log."""

    def __init__(self, part: str) -> None:
        self.away = False
        self.count = 0
        self._part = part

    def began(self, error: StoreUnavailableError) -> None:
        """A call failed."""
        if not self.away:
            self.away = True
            self.count += 1
            log.warning("store.away", part=self._part, error=str(error))

    def over(self) -> None:
        """A call succeeded."""
        if self.away:
            self.away = False
            log.info("store.back", part=self._part)
