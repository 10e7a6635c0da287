"""Up to when a shard has said everything on licences; it stands still while they are frozen (LIVENESS.md 5).

Claims come with beats, so they are complete where the watermark is. Releases by silence and absence come with
the judge: up to where it has told everybody who was due, and they have decided. In a gap, the grace after it,
DEGRADED, or while no beats can be taken, nothing is certain: what is said meanwhile waits with its time.
"""

from __future__ import annotations

from engine.actors import Actors
from engine.committer import Committer
from engine.core.timing import GRACE_MS_MIN
from engine.entries import Entries
from engine.gaps import Gaps
from engine.judge import Judge
from engine.standing import let_go_absent


class LeaseFront:
    """One shard's; `look` before each pass of the judge, `said_ms` with each flush."""

    def __init__(
        self, table: Entries, judge: Judge, actors: Actors, gaps: Gaps, committer: Committer
    ) -> None:
        self._table = table
        self._judge = judge
        self._actors = actors
        self._gaps = gaps
        self._committer = committer
        self._looked_ms = 0  # whoever was absent for too long up to here is said
        self._said_ms = 0

    def look(self, judged_ms: int) -> None:
        """Say who is absent for too long, as of a time up to which all that was received is applied."""
        self._advance()
        if not self._frozen(judged_ms):
            let_go_absent(self._table, judged_ms)
            self._looked_ms = judged_ms

    def said_ms(self, watermark_ms: int) -> int:
        """Everything said up to here is with the journal; called with all of it drained."""
        self._advance()
        return min(self._said_ms, watermark_ms)

    def _advance(self) -> None:
        told_ms = min(self._looked_ms, self._judge.told_ms)
        if self._actors.settled() and not self._frozen(told_ms):
            self._said_ms = max(self._said_ms, told_ms)

    def _frozen(self, at_ms: int) -> bool:
        if self._committer.undecided_from_ms is not None or self._judge.breaker.phase != "normal":
            return True
        end_ms = self._gaps.holding_end_ms
        return bool(end_ms) and at_ms < end_ms + GRACE_MS_MIN
