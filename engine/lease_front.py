"""Up to when a shard has said everything on licences; it stands still while they are frozen (LIVENESS.md 5).

Claims come with beats, so they are complete where the watermark is. Releases by silence and absence come with
the judge: up to where it has told everybody who was due, and they have decided. In a gap, the grace after it,
DEGRADED, or while no beats can be taken, nothing is certain: what is said meanwhile waits with its time. So
it does where only a row's own, longer grace holds back that it is lost, from its deadline on.
"""

from __future__ import annotations

import numpy as np

from engine.actors import Actors
from engine.columns import NEVER
from engine.committer import Committer
from engine.core.step import DOWN, SUSPECT
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
            self._said_ms = max(self._said_ms, min(told_ms, self._held_back_ms()))

    def _held_back_ms(self) -> int:
        """The first deadline of a licensed row that would be LOST, were it not in the grace after a gap.

        That grace is five intervals of its own; when it ends the row lets go at its deadline.
        """
        rows = self._table.row
        if self._judge.told_ms >= self._judge.held_until_ms:
            return int(NEVER)
        state = rows.state[: self._table.rows]
        at = np.flatnonzero(((state == SUSPECT) | (state == DOWN)) & (rows.licensed[: len(state)] != 0))
        silent_ms = np.maximum(rows.last_t_ms[at], rows.window_end_ms[at])
        lost_ms = silent_ms + 10 * (2 * rows.ttl_ms[at].astype(np.int64) // 3)
        return int(lost_ms.min(initial=NEVER))

    def _frozen(self, at_ms: int) -> bool:
        if self._committer.undecided_from_ms is not None or self._judge.breaker.phase != "normal":
            return True
        end_ms = self._gaps.holding_end_ms
        return bool(end_ms) and at_ms < end_ms + GRACE_MS_MIN
