"""Judging silence: whose deadline has passed, and whether anyone may be judged now (LIVENESS.md 3 and 4).

The judge decides nothing of a node; it tells the node's actor that its deadline has passed. It judges as of
the last moment at which the sockets were found empty and all that had come was applied, so after a stall the
queues are drained before anyone is judged and our lateness is added to every deadline by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from engine.actors import Actors
from engine.columns import NEVER, RETIRED
from engine.core.breaker import Breaker, Phase, Silence, allowance, step_breaker
from engine.core.compose import down_since
from engine.core.records import Gap
from engine.core.step import DOWN, MAINTENANCE, SUSPECT, UP, Heard, Silent
from engine.core.timing import interval_of_ttl
from engine.decisions import Decisions
from engine.gaps import Gaps
from engine.journal import Journal
from engine.journal_blocks import Kind
from engine.settings import LivenessSettings
from engine.table import Table
from engine.windows import Windows

Array = npt.NDArray[Any]

_LOOK_AGAIN_MS = 250  # a row held back by the breaker is looked at again after this
_ASIDE_AGAIN_MS = 1_000  # and one whose actor is set aside after this
_CANARY = 2


class BreakerBlock(msgspec.Struct, frozen=True):
    """The breaker, as journaled when its phase changes or verdicts are let through."""

    phase: Phase
    since_ms: int
    released: int = 0


class JudgeStatistics(NamedTuple):
    judged_ms: int
    phase: str
    suspect: int
    watched: int
    due: int


class Judge:
    """Finds who is due in one shard."""

    def __init__(
        self,
        table: Table,
        decisions: Decisions,
        actors: Actors,
        gaps: Gaps,
        windows: Windows,
        journal: Journal,
        settings: LivenessSettings,
        *,
        seed: int | None = None,
        phase_changed: Callable[[str], None],
    ) -> None:
        self._table = table
        self._decisions = decisions
        self._actors = actors
        self._gaps = gaps
        self._windows = windows
        self._journal = journal
        self._settings = settings
        self._random = np.random.default_rng(seed)
        self._phase_changed = phase_changed
        self.breaker = Breaker()
        self.judged_ms = 0
        self.told_ms = 0  # whoever was due up to here has been told
        self.held_until_ms = 0  # but for those who may not fall yet, up to here
        self.silence = Silence(0, 0, 0)
        self._due = 0
        self._canary_missed_ms: int | None = None

    @property
    def degraded(self) -> bool:
        return self.breaker.phase == "degraded"

    def look(self, judged_ms: int) -> bool:
        """One pass: tell the actors of rows whose deadline lies at or before judged_ms.

        True when more are due than one pass may tell: call again after a turn of the loop.
        """
        if judged_ms <= self.judged_ms:
            judged_ms = self.judged_ms
        self.judged_ms = judged_ms
        rows, table = self._table.row, self._table
        table.close_detached(judged_ms)
        self._actors.tell(self._windows.changes(judged_ms, rows.state, self._decisions.silence_from), ())
        due = self._overdue(np.flatnonzero(rows.deadline_ms[: table.rows] <= judged_ms), judged_ms)
        self._step_breaker(judged_ms, due)
        self._watch_canaries(judged_ms)
        self._due = len(due)
        if not len(due):
            self.told_ms = judged_ms
            return False
        more = len(due) > self._settings.wake_slice
        due = due[: self._settings.wake_slice]
        due, held = self._hold(due, judged_ms)
        self._tell(due, held, judged_ms)
        if not more:
            self.told_ms = judged_ms
        return more

    def _overdue(self, found: Array, judged_ms: int) -> Array:
        """Of rows that are to be looked at those whose silence is long enough; the others are put off."""
        rows = self._table.row
        state, ttl = rows.state[found], rows.ttl_ms[found].astype(np.int64)
        interval = 2 * ttl // 3
        silence_from = np.maximum(rows.last_t_ms[found], rows.window_end_ms[found])
        allowed = np.select(
            (state == UP, state == SUSPECT, state == DOWN), (ttl, 3 * interval, 10 * interval)
        )
        deadline = np.where(allowed != 0, silence_from + allowed, NEVER)
        late = deadline <= judged_ms
        # Of a retired row, inside a window, or while its actor is set aside nobody is judged; what the last
        # beat vouched for still ends.
        aside = np.isin(found, self._actors.set_aside())
        unjudged = (rows.refused[found] == RETIRED) | (state == MAINTENANCE) | aside
        lapsed = unjudged & (rows.last_t_ms[found] + ttl <= judged_ms)
        if lapsed.any():
            self._table.close_silent(found[lapsed])
        # No beat moves the deadline of one that is set aside: its next silence is looked for.
        then = np.where(aside, judged_ms + _ASIDE_AGAIN_MS, NEVER)
        deadline[unjudged] = np.where(lapsed, then, rows.last_t_ms[found] + ttl)[unjudged]
        late &= ~unjudged
        rows.deadline_ms[found[~late]] = deadline[~late]
        overdue: Array = found[late]
        return overdue

    def _hold(self, due: Array, judged_ms: int) -> tuple[Array, Array]:
        """Put off what may not be judged now; the rest, and for each whether DOWN and LOST are held back."""
        rows = self._table.row
        ttl = rows.ttl_ms[due].astype(np.int64)
        grace_end = np.zeros(len(due), np.int64)
        if self._gaps.holding_end_ms:
            grace_end = self._gaps.holding_end_ms + np.maximum(60_000, 5 * (2 * ttl // 3))
        graced = grace_end > judged_ms
        fallen = rows.state[due] != UP
        self.held_until_ms = max(self.held_until_ms, int(grace_end[fallen & graced].max(initial=0)))
        rows.deadline_ms[due[fallen & graced]] = grace_end[fallen & graced]
        let = allowance(self.breaker, self.silence, judged_ms, share=self._settings.degraded_share)
        keep = ~(fallen & graced)
        if let is not None:
            falling = np.flatnonzero(keep & fallen)
            chosen = self._random.permutation(falling)[:let]
            later = np.setdiff1d(falling, chosen)
            rows.deadline_ms[due[later]] = judged_ms + _LOOK_AGAIN_MS
            keep[later] = False
            released = int((rows.state[due[chosen]] == SUSPECT).sum())
            if released:
                self.breaker = self.breaker._replace(released=self.breaker.released + released)
                self._journal_breaker(judged_ms)
        held = graced | (self.breaker.phase != "normal") & ~fallen
        return due[keep], held[keep]

    def _tell(self, due: Array, held: Array, judged_ms: int) -> None:
        rows = self._table.row
        changes = []
        for index, is_held in zip(due.tolist(), held.tolist(), strict=True):
            last_t, ttl = int(rows.last_t_ms[index]), int(rows.ttl_ms[index])
            gaps = self._gaps.since(last_t, row=self._table.number_of(index))
            since = down_since(last_ms=last_t, ttl_ms=ttl, gaps=gaps) if gaps else last_t + ttl
            changes.append((index, Silent(last_t, judged_ms, is_held, since)))
        rows.deadline_ms[due] = NEVER  # the step sets the next
        rows.hot[due] = 1
        self._actors.tell(changes, ())

    def look_again(self, index: int) -> None:
        """A row's change was lost with its actor: let the next pass see the row afresh."""
        self._table.row.deadline_ms[index] = self.judged_ms
        self._table.row.hot[index] = 1

    def let_in(self, index: int) -> None:
        """The row's actor is no longer set aside: tell it of what it missed, and judge it again."""
        rows = self._table.row
        last_t = int(rows.last_t_ms[index])
        if last_t > rows.since_ms[index]:
            missed = Heard(last_t, int(rows.ttl_ms[index]), bool(rows.stopped[index]))
            self._actors.tell([(index, missed)], ())
        self.look_again(index)

    def _step_breaker(self, judged_ms: int, due: Array) -> None:
        rows, count = self._table.row, self._table.rows
        state = rows.state[:count]
        nodes = rows.check[:count] != _CANARY
        # A row that is due and still UP is as good as SUSPECT: its actor has not run yet.
        suspect = (state == SUSPECT) & nodes
        silent = due[(state[due] == UP) & nodes[due]]
        number = int(np.count_nonzero(suspect)) + len(silent)
        watched = number + int(np.count_nonzero((state == UP) & nodes)) - len(silent)
        longest = 0
        if number:
            longest = interval_of_ttl(int(rows.ttl_ms[:count][suspect].max(initial=0)))
            if len(silent):
                longest = max(longest, interval_of_ttl(int(rows.ttl_ms[silent].max())))
        self.silence = Silence(number, watched, longest)
        before = self.breaker
        self.breaker = step_breaker(
            before,
            self.silence,
            judged_ms,
            rows_min=self._settings.degraded_rows_min,
            share=self._settings.degraded_share,
        )
        if self.breaker.phase != before.phase:
            self._change_phase(before, judged_ms)

    def _change_phase(self, before: Breaker, judged_ms: int) -> None:
        self._journal_breaker(judged_ms)
        self._phase_changed(self.breaker.phase)
        if self.breaker.phase == "degraded":
            detail = f"{self.silence.suspect} of {self.silence.watched} rows fell silent at once"
            self._decisions.installation_event("shard.degraded", self.breaker.since_ms, detail)
        elif before.phase == "degraded":
            detail = f"verdicts are given again; {self.silence.suspect} rows are silent"
            self._decisions.installation_event("shard.recovered", self.breaker.since_ms, detail)

    def _journal_breaker(self, judged_ms: int) -> None:
        block = BreakerBlock(*self.breaker)
        self._journal.append(Kind.BREAKER, judged_ms, msgspec.msgpack.encode(block))

    def _watch_canaries(self, judged_ms: int) -> None:
        """While DEGRADED: from the first canary missed to the first one returned is a gap of ours."""
        rows, count = self._table.row, self._table.rows
        if self._canary_missed_ms is None and not self.degraded:
            return
        canaries = np.flatnonzero((rows.check[:count] == _CANARY) & (rows.last_t_ms[:count] > 0))
        if not len(canaries):
            return
        last_t, ttl = rows.last_t_ms[canaries], rows.ttl_ms[canaries].astype(np.int64)
        if self._canary_missed_ms is None:
            missed = last_t + ttl <= judged_ms
            if missed.any():
                self._canary_missed_ms = int((last_t + 2 * ttl // 3)[missed].min())
                self._gaps.begin("degraded", self._canary_missed_ms, judged_ms)
        elif (returned := last_t[last_t > self._canary_missed_ms]).size:
            missed_ms, back_ms = self._canary_missed_ms, int(returned.min())
            gap = Gap(self._table.shard, missed_ms, back_ms, "degraded", self._table.shards)
            self._gaps.record(gap, self._journal)
            self._canary_missed_ms = None

    def statistics(self) -> JudgeStatistics:
        return JudgeStatistics(
            self.judged_ms, self.breaker.phase, self.silence.suspect, self.silence.watched, self._due
        )
