"""The loop between the journal and the table: write and sync what waits, then apply it, then answer.

A commit starts as soon as none is in flight (WIRE.md, rule 3 of the server). When the disk refuses, the beats
of that batch are answered BUSY, nothing more is taken, and the loop tries again each `retry_s`; the time
until it can write again is a gap of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOSPC
from typing import NamedTuple

import numpy as np
import trio

from engine.actors import Actors
from engine.core.records import Gap
from engine.decisions import Decisions
from engine.gaps import Gaps
from engine.intake import Intake, Waiting
from engine.journal import Journal
from engine.journal_blocks import Kind
from engine.settings import JournalSettings


class CommitterStatistics(NamedTuple):
    committed_ms: int
    failing: bool
    in_flight_beats: int
    commit_ms_last: float
    commit_ms_max: float


class Committer:
    """Commits one shard's journal; the only one who applies beats to its table."""

    def __init__(
        self,
        intake: Intake,
        journal: Journal,
        decisions: Decisions,
        actors: Actors,
        gaps: Gaps,
        settings: JournalSettings,
        *,
        failed: Callable[[OSError], None],
    ) -> None:
        self._intake = intake
        self._journal = journal
        self._decisions = decisions
        self._actors = actors
        self._gaps = gaps
        self._settings = settings
        self._failed = failed
        self._work = trio.Event()
        self._settled = trio.Condition()
        self._in_flight: list[Waiting] = []
        self.applied_position = journal.committed  # everything before it is applied to the table
        self.committed_ms = 0  # when the last commit was taken from the queue: the shard listened till then
        self.failing_since_ms: int | None = None  # the journal's writes fail
        self._short_since_ms: int | None = None  # free disk is below the reserve
        self._last_ms = self._max_ms = 0.0

    def wake(self) -> None:
        """There is something to commit. From trio; from the host loop through the token."""
        self._work.set()

    async def run(self) -> None:
        """Commit until cancelled; `finish` commits the rest."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            await self._commit_all()

    async def finish(self) -> None:
        """Commit and apply what is left, for an orderly stop."""
        await self._commit_all()

    async def _commit_all(self) -> None:
        while True:
            self._intake.verify_queued()
            if not self._intake.waiting and not self._journal.pending_bytes:
                return
            if not await self._commit():
                await trio.sleep(self._settings.retry_s)

    async def _commit(self) -> bool:
        """One commit, shielded: once begun its outcome must be known."""
        intake, journal = self._intake, self._journal
        group = self._in_flight = intake.take_waiting()
        now_ms = intake.now_ms()
        beats = None
        if group:
            beats = group[0].beats if len(group) == 1 else np.concatenate([each.beats for each in group])
            journal.append(Kind.BEATS, now_ms, beats.tobytes())
        taken = journal.take()
        started = trio.current_time()
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(journal.commit, taken)
        except OSError as error:
            journal.settle(taken, written=False)
            self._in_flight = []
            self._refuse(group, error)
            await self._tell_settled()
            return False
        journal.settle(taken, written=True)
        self._time(trio.current_time() - started)
        self._listening_again(now_ms)
        self.committed_ms = now_ms
        if beats is not None:
            self._decisions.close_fallen()
            applied = intake.table.apply(beats)
            intake.answer(group, beats, applied)
            self._actors.tell(applied.heard, applied.said)
            self._decisions.drain(journal, now_ms)
        self.applied_position = journal.committed
        self._in_flight = []
        await self._tell_settled()
        return True

    def set_short_of_disk(self, short: bool, now_ms: int) -> None:
        """Take no beats while the disk is below its reserve; that time, once over, is a gap of ours."""
        if short and self._short_since_ms is None:
            self._short_since_ms = now_ms
            self._intake.busy = True
            self._failed(OSError(ENOSPC, "free disk is below the journal's reserve"))
        elif not short and self._short_since_ms is not None:
            since, self._short_since_ms = self._short_since_ms, None
            self._intake.busy = False
            self._gaps.record(Gap(self._intake.table.shard, since, now_ms, "disk_full"), self._journal)

    @property
    def undecided_from_ms(self) -> int | None:
        """Since when no beats can be taken; None: they can."""
        since = [each for each in (self.failing_since_ms, self._short_since_ms) if each is not None]
        return min(since, default=None)

    def _refuse(self, group: list[Waiting], error: OSError) -> None:
        if self.failing_since_ms is None:
            self.failing_since_ms = self.committed_ms or self._intake.now_ms()
            self._failed(error)
        self._intake.busy = True
        if group:
            self._intake.refuse_busy(group)

    def _listening_again(self, now_ms: int) -> None:
        """The journal takes beats again: what it could not take meanwhile is our fault."""
        if self.failing_since_ms is None:
            return
        since, self.failing_since_ms = self.failing_since_ms, None
        self._intake.busy = self._short_since_ms is not None
        self._gaps.record(Gap(self._intake.table.shard, since, now_ms, "disk_full"), self._journal)

    def _time(self, seconds: float) -> None:
        self._last_ms = seconds * 1_000
        self._max_ms = max(self._max_ms, self._last_ms)

    async def _tell_settled(self) -> None:
        async with self._settled:
            self._settled.notify_all()

    async def wait_settled(self, appended: int) -> None:
        """Return once the first `appended` blocks of the journal are committed (or given back)."""
        async with self._settled:
            while self._journal.settled < appended:
                await self._settled.wait()

    def oldest_unapplied_ms(self) -> int | None:
        """Receive time of the oldest beat that is received and not yet applied."""
        oldest = [int(waiting.beats["t_ms"][0]) for waiting in self._in_flight[:1]]
        waiting = self._intake.oldest_waiting_ms()
        return min([*oldest, waiting] if waiting is not None else oldest, default=None)

    def statistics(self) -> CommitterStatistics:
        return CommitterStatistics(
            self.committed_ms,
            self.failing_since_ms is not None,
            sum(len(waiting.beats) for waiting in self._in_flight),
            self._last_ms,
            self._max_ms,
        )
