"""Our own faults, written down as they are noticed (LIVENESS.md 3): the shard's gap records.

A gap goes to the journal first, then cuts base rows in the table, holds back verdicts for a grace, and is
flushed to Postgres like every other output.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engine.core.records import Gap
from engine.core.step import holding_gap_end
from engine.gap_news import GapNews
from engine.journal import Journal
from engine.journal_blocks import Kind
from engine.table import Table

_KEPT_MS = 3 * 86_400_000  # gaps older than this no longer bear on any verdict


class GapStatistics(NamedTuple):
    gaps: int
    unobserved_ms: int


class Gaps:
    """The gaps of one shard's rows, recent ones in memory."""

    def __init__(self, table: Table, news: GapNews | None = None) -> None:
        """`news`: who tells people of gaps; None: they were told when these gaps ended."""
        self._table = table
        self._news = news
        self.recent: list[Gap] = []
        self.holding_end_ms = 0  # the end of the latest gap that holds back verdicts
        self._count = 0
        self._total_ms = 0

    def begin(self, cause: str, from_ms: int, now_ms: int) -> None:
        """A gap that has begun and is known already; `record` it when it ends."""
        if self._news is not None:
            self._news.begin(cause, from_ms, now_ms)

    def record(self, gap: Gap, journal: Journal) -> None:
        """A gap that has just ended: journal it and take it into account."""
        if gap.to_ms <= gap.from_ms:
            return
        journal.append(Kind.GAP, gap.to_ms, msgspec.msgpack.encode(gap))
        self.take(gap)
        if self._news is not None:
            self._news.end(gap)

    def tick(self, now_ms: int, *, last: bool = False) -> None:
        """About once a second: tell people what was gathered; `last`: before the shard stops."""
        if self._news is not None:
            self._news.tick(now_ms, last=last)

    def take(self, gap: Gap) -> None:
        """Take a gap into account that is in the journal already."""
        self.recent = [old for old in self.recent if old.to_ms > gap.to_ms - _KEPT_MS]
        if gap not in self.recent:  # a replay may bring one that the snapshot holds already
            self.recent.append(gap)
        self.holding_end_ms = holding_gap_end(tuple(self.recent))
        self._table.end_gap(gap.to_ms)
        self._count += 1
        self._total_ms += gap.to_ms - gap.from_ms

    def open_since(self) -> dict[str, int]:
        """Gaps that last: by cause, since when."""
        return {} if self._news is None else dict(self._news.lasting)

    def since(self, t_ms: int, *, row: int) -> tuple[Gap, ...]:
        """The gaps of the row that end after t_ms; some may be of another shard count, from before."""
        return tuple(gap for gap in self.recent if gap.to_ms > t_ms and row % gap.shards == gap.shard)

    def statistics(self) -> GapStatistics:
        return GapStatistics(self._count, self._total_ms)
