"""From journal and table to the stores: history to Postgres, the live view to Redis, the watermark to both.

One cycle: capture (dirty pages copied, how far all that was received is applied, how far the journal must be
committed for that), wait for the journal, write history up to there, then the captured pages with the
watermark. In this order a reader that reads the live view first and history second never misses a base row:
what the live view no longer shows as open is in history already. History is read from the journal's files,
never from memory, so an outage of Postgres costs disk only; pages of a cycle that failed are marked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import trio

from engine.committer import Committer
from engine.core.beats import FIRST_REPORT_DTYPE, REFUSED_DTYPE, SAY_DTYPE
from engine.core.evidence import REASONS
from engine.core.ports import History, HistoryWentBackError, LiveView, StoreUnavailableError
from engine.core.records import (
    INTERVAL_DTYPE,
    SHARD_SAYS,
    Event,
    FirstReport,
    FlushBatch,
    Gap,
    Refused,
    Say,
    ShardHead,
)
from engine.decisions import Decisions
from engine.journal import Journal
from engine.journal_blocks import Kind
from engine.pages import Captured, Pages, capture, give_back, in_writes
from engine.rejoin import OutOfStepError, Span, goes_on_at
from engine.rows import id_of
from engine.settings import FlushSettings
from engine.table import Table

_WATERMARK_EVERY_MS = 1_000  # history's watermark moves at least this often, with nothing else to write
_LEASES_EVERY_MS = 250  # and while somebody waits for a lease, `leases_ms` does this often
_RETRY_MS_MIN = 100
# When very many rows beat the live view gets a twentieth of the time: beats come first. Readers wait 2 s.
_REST = 19
_REST_MS_MAX = 500
_NOTHING = Captured([], [], np.empty(0, bool), np.empty(0, bool))


class FlushStatistics(NamedTuple):
    watermark_ms: int
    flushed_position: int
    journal_lag_bytes: int
    intervals: int
    events: int
    pages: int
    cycle_ms_last: float
    failures: int
    history_away: bool
    live_away: bool
    out_of_step: bool


class HeadSource(NamedTuple):
    """What the flusher asks the shard for each header."""

    watermark_ms: Callable[[], int]
    registry_position: Callable[[], int]
    degraded: Callable[[], bool]
    undecided_from_ms: Callable[[], int | None]
    now_ms: Callable[[], int]
    leases_ms: Callable[[int], int] = lambda _watermark_ms: 0  # up to when all on licences is said


class Flusher:
    """Flushes one shard."""

    def __init__(
        self,
        table: Table,
        journal: Journal,
        committer: Committer,
        decisions: Decisions,
        history: History,
        live: LiveView,
        settings: FlushSettings,
        *,
        epoch: str,
        source: HeadSource,
        away: Callable[[str, bool], None],
        failed: Callable[[BaseException], None],
        rejoining: Callable[[str, bool], None] = lambda _why, _held: None,
    ) -> None:
        self._table = table
        self._journal = journal
        self._committer = committer
        self._decisions = decisions
        self._history = history
        self._live = live
        self._settings = settings
        self._epoch = epoch
        self._source = source
        self._tell_away = away
        self._tell_failed = failed
        self._tell_rejoining = rejoining
        self._stored = 0  # the position that history told last
        self.out_of_step = False  # journal and history do not fit: an operator must decide
        self.failures = 0
        self._first_write = True
        self._applied = trio.Event()  # registry changes wait to be told
        self.flushed: int | None = None  # journal position up to which history has everything; None: unknown
        self.history_watermark_ms = 0
        self.leases_awaited = False  # says wait until all shards have told of their time
        self._leases_ms = 0
        self._watermark_ms = 0
        self._away = {"history": False, "live": False}
        self._intervals = self._events = self._pages = 0
        self._cycle_ms = self._live_ms = 0.0
        self._history_retry_at = 0.0
        self._retry_ms = _RETRY_MS_MIN

    async def run(self) -> None:
        """Flush each `live_interval_ms` until cancelled."""
        while True:
            started = trio.current_time()
            await self._try(self.cycle)
            self._cycle_ms = (trio.current_time() - started) * 1_000
            left_ms = self._settings.live_interval_ms - self._cycle_ms
            rest_ms = max(left_ms, min(_REST * self._live_ms, _REST_MS_MAX), 0.0)
            until = trio.current_time() + rest_ms / 1_000
            while trio.current_time() < until:
                await self._try(partial(self._rest, until))

    def tell_registry(self) -> None:
        """Registry changes were applied: their position is told at once, for the reply to a session waits."""
        self._applied.set()

    async def _rest(self, until: float) -> None:
        """Wait for the next cycle, or until registry changes were applied and told by a header alone."""
        with trio.CancelScope(deadline=until) as resting:
            await self._applied.wait()
            self._applied = trio.Event()
            head = self.head(self._watermark_ms)
            # As in a cycle: what is told a restart must know of.
            await self._committer.wait_settled(self._journal.appended)
        if not resting.cancelled_caught and not self._first_write:
            await self._write_live(head, _NOTHING)

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - told and tried again: beats must not end with a flush
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A store answered what nobody expected (a missing migration): nothing is lost, it waits on disk."""
        self.failures += 1
        self._table.mark_all_dirty()
        self._wait_longer()
        self._tell_failed(error)

    def _wait_longer(self) -> None:
        self._retry_ms = min(2 * self._retry_ms, self._settings.retry_ms_max)
        self._history_retry_at = trio.current_time() + self._retry_ms / 1_000

    async def cycle(self) -> None:
        """One cycle; a store that is away costs only its own part."""
        now_ms = self._source.now_ms()
        self._decisions.drain(self._journal, now_ms)
        if trio.current_time() < self._history_retry_at:
            await self._write_live(self.head(self._watermark_ms), _NOTHING)
            return
        watermark = self._source.watermark_ms()
        leases_ms = self._source.leases_ms(watermark)
        head = self.head(watermark)
        began = trio.current_time()
        captured = capture(self._table)
        captured_ms = (trio.current_time() - began) * 1_000
        try:
            if self._journal.pending_bytes:
                self._committer.wake()
            await self._committer.wait_settled(self._journal.appended)
            if await self._flush_history(self._journal.committed, watermark, leases_ms):
                began = trio.current_time()
                await self._write_live(head, captured)
                self._live_ms = captured_ms + (trio.current_time() - began) * 1_000
                return
        except trio.Cancelled:
            give_back(self._table, captured)  # the last flush of an orderly stop brings them
            raise
        give_back(self._table, captured)
        # The shard lives and says so, but tells nothing newer than history has.
        await self._write_live(self.head(self._watermark_ms), _NOTHING)

    def head(self, watermark_ms: int) -> ShardHead:
        """The header that goes with this watermark."""
        return ShardHead(
            shard=self._table.shard,
            shards=self._table.shards,
            epoch=self._epoch,
            watermark_ms=watermark_ms,
            registry_position=self._source.registry_position(),
            rows=self._table.rows,
            degraded=self._source.degraded(),
            provisional_from_ms=self._source.undecided_from_ms(),
            wall_ms=self._source.now_ms(),
        )

    # -- history ------------------------------------------------------------------------------------

    async def _flush_history(self, end: int, watermark_ms: int, leases_ms: int) -> bool:
        """Write everything committed before `end`. False while Postgres is away."""
        try:
            if self.flushed is None:
                stored = await self._history.flushed_position(self._table.shard)
                self.flushed = goes_on_at(Span(self._journal.first, self._journal.committed), stored)
                self._stored = stored
            await self._flush_to(end, watermark_ms, leases_ms)
        except StoreUnavailableError:
            self._wait_longer()
            self._set_away("history", away=True)
            return False
        except HistoryWentBackError:
            self.flushed = None  # and nothing is trimmed until we know where to go on
            self.history_watermark_ms = 0  # no partial batch may tell of more than it brings
            self._leases_ms = 0
            self._first_write = True  # what the live view no longer shows as open is not in history
            self._tell_rejoining("history went back", False)
            return False
        except OutOfStepError as error:
            self._wait_longer()
            if not self.out_of_step:
                self._tell_rejoining(str(error), True)
            self.out_of_step = True
            return False
        self.out_of_step = False
        self._retry_ms = _RETRY_MS_MIN
        self._set_away("history", away=False)
        return True

    async def _flush_to(self, end: int, watermark_ms: int, leases_ms: int) -> None:
        assert self.flushed is not None
        while True:
            batch = await trio.to_thread.run_sync(self._read_batch, self.flushed, end)
            last = batch.position == end
            if last:
                batch = msgspec.structs.replace(batch, watermark_ms=watermark_ms, leases_ms=leases_ms)
            if not _empty(batch) or self._due(watermark_ms, leases_ms):
                await self._history.flush(msgspec.structs.replace(batch, after=self._stored))
                self._stored = batch.position
                self._intervals += len(batch.intervals)
                self._events += len(batch.events)
                self.history_watermark_ms = max(self.history_watermark_ms, batch.watermark_ms)
                self._leases_ms = max(self._leases_ms, batch.leases_ms)
                if batch.events:
                    await self._announce(batch.events)
            self.flushed = batch.position
            if last:
                return

    def _due(self, watermark_ms: int, leases_ms: int) -> bool:
        """Whether how far we are is to be told with nothing else to write."""
        if self.leases_awaited and leases_ms >= self._leases_ms + _LEASES_EVERY_MS:
            return True
        return watermark_ms >= self.history_watermark_ms + _WATERMARK_EVERY_MS

    def _read_batch(self, start: int, end: int) -> FlushBatch:
        """The next outputs in [start, end), at most `history_rows_max` rows. Runs in a worker thread."""
        intervals: list[bytes] = []
        events: list[Event] = []
        gaps: list[Gap] = []
        reports: list[FirstReport] = []
        says: list[Say] = []
        refused: list[Refused] = []
        rows, position = 0, end
        for block in self._journal.outputs(start, end):
            if block.kind == Kind.INTERVALS:
                intervals.append(block.payload)
                rows += len(block.payload) // INTERVAL_DTYPE.itemsize
            elif block.kind == Kind.EVENTS:
                events += msgspec.msgpack.decode(block.payload, type=list[Event])
            elif block.kind == Kind.GAP:
                gaps.append(msgspec.msgpack.decode(block.payload, type=Gap))
            elif block.kind == Kind.SAYS:
                for high, low, at_ms, what, _ in np.frombuffer(block.payload, SAY_DTYPE).tolist():
                    says.append(Say(id_of(high, low), at_ms, SHARD_SAYS[what]))
            elif block.kind == Kind.REFUSED:
                refused += _refused(block.payload)
            else:
                for report in np.frombuffer(block.payload, FIRST_REPORT_DTYPE).tolist():
                    reports.append(FirstReport(id_of(report[0], report[1]), report[2]))
            if (
                rows + len(events) + len(reports) + len(says) + len(refused)
                >= self._settings.history_rows_max
            ):
                position = block.end
                break
        return FlushBatch(
            shard=self._table.shard,
            position=position,
            watermark_ms=self.history_watermark_ms,
            intervals=np.frombuffer(b"".join(intervals), INTERVAL_DTYPE),
            events=tuple(events),
            gaps=tuple(gaps),
            first_reports=tuple(reports),
            says=tuple(says),
            refused=tuple(refused),
        )

    async def _announce(self, events: tuple[Event, ...]) -> None:
        """A hint for those who wait for events; history is the record, so a lost hint loses nothing."""
        try:
            await self._live.announce_events(events)
        except StoreUnavailableError:
            self._set_away("live", away=True)

    # -- the live view ------------------------------------------------------------------------------

    async def _write_live(self, head: ShardHead, captured: Captured) -> None:
        try:
            if self._first_write:
                await self._live.reset(msgspec.structs.replace(head, watermark_ms=0))
                self._first_write = False
                self._watermark_ms = 0  # nothing can be read until all of it has been written
                self._table.mark_all_dirty()
                return
            if not await self._write_pages(head, captured):
                # Somebody flushed it: everything is written again with the next cycle.
                self._first_write = True
                return
        except StoreUnavailableError:
            give_back(self._table, captured)
            self._set_away("live", away=True)
            return
        self._watermark_ms = head.watermark_ms
        self._pages += len(captured.rows) + len(captured.slots)
        self._set_away("live", away=False)

    async def _write_pages(self, head: ShardHead, captured: Captured) -> bool:
        """In bounded writes; only the last one tells the new watermark.

        Slots first: nobody must see a row that points to entries which are not written yet.
        """
        before = msgspec.structs.replace(head, watermark_ms=self._watermark_ms)
        row_parts, slot_parts = in_writes(captured.rows) or [[]], in_writes(captured.slots) or [[]]
        parts: list[tuple[Pages, Pages]] = [([], part) for part in slot_parts[:-1]]
        parts += [(row_parts[0], slot_parts[-1]), *((part, []) for part in row_parts[1:])]
        for rows, slots in parts[:-1]:
            if not await self._live.write(before, rows=rows, slots=slots):
                return False
        rows, slots = parts[-1]
        return await self._live.write(head, rows=rows, slots=slots)

    def _set_away(self, store: str, *, away: bool) -> None:
        if self._away[store] != away:
            self._away[store] = away
            self._tell_away(store, away)

    @property
    def away(self) -> dict[str, bool]:
        return dict(self._away)

    def statistics(self) -> FlushStatistics:
        return FlushStatistics(
            self._watermark_ms,
            self.flushed or 0,
            self._journal.committed - (self.flushed or self._journal.first),
            self._intervals,
            self._events,
            self._pages,
            self._cycle_ms,
            self.failures,
            self._away["history"],
            self._away["live"],
            self.out_of_step,
        )


def _empty(batch: FlushBatch) -> bool:
    told = (batch.events, batch.gaps, batch.first_reports, batch.says, batch.refused)
    return not len(batch.intervals) and not any(told)


def _refused(payload: bytes) -> list[Refused]:
    return [
        Refused(id_of(high, low), str(np.datetime64(day, "D")), REASONS[reason], run_ms, count)
        for high, low, run_ms, count, day, reason, _ in np.frombuffer(payload, REFUSED_DTYPE).tolist()
    ]
