"""The loop between the journal and the table: write and sync what waits, then apply it, then answer.

A commit starts as soon as none is in flight (WIRE.md, rule 3 of the server). When the disk refuses, the beats
of that batch are answered BUSY, nothing more is taken, and the loop tries again each `retry_s`; the time
until it can write again is a gap of ours.

Commits follow each other by callbacks on the loop's thread, not in a trio task: waking one for each commit
and its worker thread costs three times as much as the commit itself (docs/decisions/0018).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOSPC
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import trio

from engine.actors import Actors
from engine.answers import Waiting
from engine.core.beats import BEAT_DTYPE, joined
from engine.core.records import Gap
from engine.decisions import Decisions
from engine.gaps import Gaps
from engine.host import Host
from engine.intake import Intake
from engine.journal import Journal
from engine.journal_blocks import Kind
from engine.pulse import Pulse
from engine.settings import JournalSettings

Array = npt.NDArray[Any]

_NO_BEATS = np.empty(0, BEAT_DTYPE)


class CommitterStatistics(NamedTuple):
    listened_ms: int
    failing: bool
    in_flight_beats: int
    commit_ms_last: float
    commit_ms_max: float


class Commit(NamedTuple):
    """What one commit writes, and who waits for it."""

    now_ms: int
    group: list[Waiting]
    beats: Array  # of the group, BEAT_DTYPE
    blocks: list[tuple[Kind, bytes]]


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
        host: Host,
        *,
        failed: Callable[[OSError], None],
    ) -> None:
        self._intake = intake
        self._journal = journal
        self._decisions = decisions
        self._actors = actors
        self._gaps = gaps
        self._settings = settings
        self._host = host
        self._failed = failed
        self._running = False  # commits begin by themselves
        self._asked = False  # and the next is about to
        self._flying = False  # one is on its way to the disk
        self._crash: BaseException | None = None  # ends the shard
        self._trouble = Pulse()  # the last commit failed
        self._landed = Pulse()
        self._in_flight: list[Waiting] = []
        self._in_flight_ms: int | None = None  # the earliest receive time among them: streams come late
        self.applied_position = journal.committed  # everything before it is applied to the table
        self.listened_ms = 0  # the last committed tick or beat: the shard listened till then
        self.failing_since_ms: int | None = None  # the journal's writes fail
        self._short_since_ms: int | None = None  # free disk is below the reserve
        self._last_ms = self._max_ms = 0.0

    def wake(self) -> None:
        """There is something to commit. From either loop; what else comes in this turn goes with it."""
        if self._running and not self._asked:
            self._asked = True
            self._host.soon(self._woken)

    async def run(self) -> None:
        """Commit until cancelled, but bring to its end what has begun; `finish` commits the rest."""
        self._running = True
        self.wake()
        try:
            while self._crash is None:
                if self.failing_since_ms is None:
                    await self._trouble.wait()
                else:
                    await trio.sleep(self._settings.retry_s)
                    self._next(again=True)
                    await self._wait_landed()
            raise self._crash
        finally:
            self._running = False
            with trio.CancelScope(shield=True):
                await self._wait_landed()

    async def finish(self) -> None:
        """Commit and apply what is left, for an orderly stop. A disk that refuses is asked once."""
        while True:
            self._next(again=True)
            if not self._flying:
                return
            await self._wait_landed()
            if self._crash is not None:
                raise self._crash
            if self.failing_since_ms is not None:
                return

    async def _wait_landed(self) -> None:
        while self._flying:
            await self._landed.wait()

    def _woken(self) -> None:
        self._asked = False
        if self._running:
            self._next()

    def _next(self, *, again: bool = False) -> None:
        """Begin a commit if none is in flight and there is work for it; `again`: after a failure, too."""
        if self._flying or self._crash is not None:
            return
        try:
            self._intake.verify_queued()
            if (again or self.failing_since_ms is None) and (
                self._intake.waiting or self._journal.pending_bytes
            ):
                commit = self.begin()
                self._flying = True
                done = partial(self._land, commit, monotonic())
                self._host.in_thread(partial(self._journal.commit, commit.blocks), done)
        except BaseException as error:  # noqa: BLE001 - raised by `run`: here it would end a callback only
            self._crashed(error)

    def _land(self, commit: Commit, began_s: float, error: BaseException | None) -> None:
        """Once begun, the outcome of a commit is always known, and told."""
        self._flying = False
        try:
            if error is None:
                self._time(monotonic() - began_s)
                self.written(commit)
            elif isinstance(error, OSError):
                self.failed(commit, error)
                self._trouble.give()
            else:
                raise error
        except BaseException as crash:  # noqa: BLE001 - as above
            self._crashed(crash)
        self._landed.give()
        if self._running and self.failing_since_ms is None:
            self._next()

    def _crashed(self, error: BaseException) -> None:
        self._crash = error
        self._trouble.give()

    def begin(self) -> Commit:
        """Take all that waits for one commit."""
        group = self._in_flight = self._intake.take_waiting()
        now_ms = self._intake.now_ms()
        beats = _NO_BEATS
        if group:
            beats = joined([each.beats for each in group])
            self._journal.append(Kind.BEATS, now_ms, beats.tobytes())
            self._in_flight_ms = int(beats["t_ms"].min())
        return Commit(now_ms, group, beats, self._journal.take())

    def written(self, commit: Commit) -> None:
        """The commit is on disk: apply its beats, answer, tell the actors what changed."""
        journal, intake = self._journal, self._intake
        journal.settle(commit.blocks, written=True)
        self._decisions.now_ms = max(self._decisions.now_ms, commit.now_ms)
        self._listening_again(commit.now_ms)
        if any(kind == Kind.TICK for kind, _ in commit.blocks):
            self.listened_ms = max(self.listened_ms, commit.now_ms)
        if len(commit.beats):
            self.listened_ms = max(self.listened_ms, int(commit.beats["t_ms"].max()))
            self._decisions.close_fallen()
            applied = intake.table.apply(commit.beats)
            intake.answer(commit.group, commit.beats, applied)
            self._actors.tell(applied.heard, applied.said)
            self._decisions.drain(journal, commit.now_ms)
        self.applied_position = journal.committed
        self._in_flight, self._in_flight_ms = [], None

    def failed(self, commit: Commit, error: OSError) -> None:
        """The commit is not on disk: its beats are refused, everything else waits for the next."""
        self._journal.settle(commit.blocks, written=False)
        self._in_flight, self._in_flight_ms = [], None
        if self.failing_since_ms is None:
            self.failing_since_ms = self.listened_ms or commit.now_ms
            self._failed(error)
            self._gaps.begin("disk_full", self.failing_since_ms, commit.now_ms)
        self._intake.busy = True
        if commit.group:
            self._intake.refuse_busy(commit.group)

    def set_short_of_disk(self, short: bool, now_ms: int) -> None:
        """Take no beats while the disk is below its reserve; that time, once over, is a gap of ours."""
        if short and self._short_since_ms is None:
            self._short_since_ms = now_ms
            self._intake.busy = True
            self._failed(OSError(ENOSPC, "free disk is below the journal's reserve"))
            self._gaps.begin("disk_full", now_ms, now_ms)
        elif not short and self._short_since_ms is not None:
            since, self._short_since_ms = self._short_since_ms, None
            self._intake.busy = False
            self._record_gap(since, now_ms)

    @property
    def short_of_disk(self) -> bool:
        """The journal can still be written, but beats are no longer taken."""
        return self._short_since_ms is not None

    @property
    def undecided_from_ms(self) -> int | None:
        """Since when no beats can be taken; None: they can."""
        since = [each for each in (self.failing_since_ms, self._short_since_ms) if each is not None]
        return min(since, default=None)

    def _listening_again(self, now_ms: int) -> None:
        """The journal takes beats again: what it could not take meanwhile is our fault."""
        if self.failing_since_ms is None:
            return
        since, self.failing_since_ms = self.failing_since_ms, None
        self._intake.busy = self._short_since_ms is not None
        self._record_gap(since, now_ms)

    def _record_gap(self, from_ms: int, to_ms: int) -> None:
        table = self._intake.table
        self._gaps.record(Gap(table.shard, from_ms, to_ms, "disk_full", table.shards), self._journal)

    def _time(self, seconds: float) -> None:
        self._last_ms = seconds * 1_000
        self._max_ms = max(self._max_ms, self._last_ms)

    async def wait_settled(self, appended: int) -> None:
        """Return once the first `appended` blocks of the journal are committed (or given back)."""
        while self._journal.settled < appended:
            await self._landed.wait()

    def oldest_unapplied_ms(self) -> int | None:
        """Receive time of the oldest beat that is received and not yet applied."""
        oldest = (self._in_flight_ms, self._intake.oldest_waiting_ms())
        return min((t_ms for t_ms in oldest if t_ms is not None), default=None)

    def statistics(self) -> CommitterStatistics:
        return CommitterStatistics(
            self.listened_ms,
            self.failing_since_ms is not None,
            sum(len(waiting.beats) for waiting in self._in_flight),
            self._last_ms,
            self._max_ms,
        )
