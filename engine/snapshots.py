"""Taking snapshots of a running shard, and letting go of the journal that they make superfluous.

The format is `engine.snapshot`'s. What follows from the beats that a snapshot contains (closed rows, events)
must be committed before the snapshot counts: a replay after it would not bring it about again.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import trio

from engine import snapshot
from engine.clock import Clock
from engine.committer import Committer
from engine.core.breaker import Breaker
from engine.decisions import Decisions
from engine.entries import Room
from engine.gaps import Gaps
from engine.journal import Journal
from engine.journal_blocks import Tick
from engine.settings import JournalSettings
from engine.snapshot import SnapshotHeader
from engine.table import Table
from engine.windows import Windows

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc, whose heap keeps what was freed


HOLD_FILE = "hold"  # beside the folders of the shard counts: while it is there no journal is trimmed
HOLD_S_MAX = 86_400.0  # one that is older was forgotten: it must not fill the disk


def _held(directory: Path, now_s: float) -> bool:
    """Whether a backup asks that nothing be let go."""
    try:
        held_at = (directory.parents[1] / HOLD_FILE).stat().st_mtime
    except FileNotFoundError:
        return False
    return now_s - held_at < HOLD_S_MAX


class SnapshotStatistics(NamedTuple):
    taken: int
    failed: int
    ms_last: float


class Snapshots:
    """Snapshots of one shard."""

    def __init__(
        self,
        directory: Path,
        table: Table,
        decisions: Decisions,
        gaps: Gaps,
        windows: Windows,
        journal: Journal,
        committer: Committer,
        clock: Clock,
        settings: JournalSettings,
        *,
        breaker: Callable[[], Breaker],
        registry_position: Callable[[], int],
        flushed: Callable[[], int | None],
        settled: Callable[[], bool],
        failed: Callable[[OSError], None],
    ) -> None:
        self._directory = directory
        self._table = table
        self._decisions = decisions
        self._gaps = gaps
        self._windows = windows
        self._journal = journal
        self._committer = committer
        self._clock = clock
        self._settings = settings
        self._breaker = breaker
        self._registry_position = registry_position
        self._flushed = flushed
        self._settled = settled
        self._tell_failed = failed
        self._taken = self._failed = 0
        self._ms_last = 0.0

    async def run(self) -> None:
        """Take one each `snapshot_interval_s` until cancelled."""
        while True:
            await trio.sleep(self._settings.snapshot_interval_s)
            await self.take()

    async def take(self, *, last: Tick | None = None) -> None:
        """Copy the columns, wait until what follows from them is committed, write, trim the journal.

        last: the tick with which the shard stopped listening; without one it listens now.
        """
        started = trio.current_time()
        room = await trio.to_thread.run_sync(self._table.room)
        while not self._settled():
            await trio.lowlevel.checkpoint()  # a beat that is applied but not decided would never be decided
        self._decisions.drain(self._journal, self._clock.now_ms())
        captured = self._capture(last or self._clock.tick(), room)
        if self._journal.pending_bytes:
            self._committer.wake()
        await self._committer.wait_settled(self._journal.appended)
        try:
            await trio.to_thread.run_sync(self._write, captured)
        except OSError as error:
            self._failed += 1
            self._tell_failed(error)
            return
        self._taken += 1
        self._trim()
        self._ms_last = (trio.current_time() - started) * 1_000

    def _write(self, captured: snapshot.Snapshot) -> None:
        """In a worker thread. Each minute is also when memory that a burst took goes back to the system."""
        snapshot.write(self._directory, captured)
        if _malloc_trim is not None:
            _malloc_trim(0)

    def _trim(self) -> None:
        """A segment goes when both the oldest snapshot that is kept and Postgres have passed it."""
        flushed = self._flushed()
        now_s = self._clock.now_ms() / 1_000
        if flushed is not None and not _held(self._directory, now_s):
            keep_s = self._settings.keep_s
            before_s = now_s - keep_s if keep_s else math.inf
            oldest = snapshot.oldest_position(self._directory)
            self._journal.trim(min(oldest, flushed), written_before_s=before_s)

    def _capture(self, tick: Tick, room: Room | None = None) -> snapshot.Snapshot:
        table, breaker = self._table, self._breaker()
        header = SnapshotHeader(
            version=snapshot.VERSION,
            position=self._committer.applied_position,
            shard=table.shard,
            shards=table.shards,
            rows=table.rows,
            slots=table.slots,
            projects=table.project_ids,
            gap_ends=list(table.gap_ends),
            gaps=list(self._gaps.recent),
            detached=list(table.detached),
            phase=breaker.phase,
            phase_since_ms=breaker.since_ms,
            registry_position=self._registry_position(),
            tick=tick,
            windows=self._windows.held(),
            listened_ms=self._committer.listened_ms if self._committer.short_of_disk else None,
            released=breaker.released,
        )
        return snapshot.Snapshot(header, table.copy_columns(room))

    def statistics(self) -> SnapshotStatistics:
        return SnapshotStatistics(self._taken, self._failed, self._ms_last)
