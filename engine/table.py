"""The table: what every row and slot of the shard said last, changed by batches of beats.

`apply` takes accepted, committed beats in journal order. Beats that say what was said before touch a few
array entries; the rest, row by row, close and open base intervals (LIVENESS.md 2) and become changes for the
actors. Who verifies beats, journals them, judges silence or raises events: elsewhere. No clock, no I/O.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.columns import NEVER, Columns
from engine.core.beats import FIRST_REPORT_DTYPE
from engine.core.records import (
    BASE_NONE,
    BASE_STOPPED,
    BASE_UNHEALTHY,
    BASE_UP,
    BASE_UPDATING,
    INTERVAL_DTYPE,
)
from engine.core.step import ILL, UP, WELL, Heard, Said
from engine.entries import DIRTY_ROWS, DIRTY_SLOTS, Entries
from engine.snapshot import Snapshot
from engine.standing import contend, let_go_stopped, note_absence
from np1.codec import FLAG_STOPPING, Code

Array = npt.NDArray[Any]

# State of a slot in a frame (2 * plane1 + plane0) -> kind of base interval; absent counts as unhealthy.
_KIND_OF_STATE = np.array((BASE_UNHEALTHY, BASE_UP, BASE_UNHEALTHY, BASE_UPDATING), np.uint8)
_GAP_ENDS = 64  # ends of gaps kept: beats in flight may be older than the latest
_T_BITS = np.int64(44)  # a unix time in ms fits; the position of a row's run goes above


class Applied(NamedTuple):
    """What became of a batch: codes to answer with, and what the actors must hear of."""

    codes: Array  # u1, one per beat, a crediting Code
    t_ms: Array  # with which each was recorded: never below the row's last one
    heard: list[tuple[int, Heard]]  # row index
    said: list[tuple[int, Said]]  # slot index


class Table(Entries):
    """All rows of one shard, as their beats have it."""

    def __init__(self, *, shard: int, shards: int, rows: int = 1024, slots: int = 1024) -> None:
        super().__init__(shard=shard, shards=shards, rows=rows, slots=slots)
        self.gap_ends: list[int] = []  # ascending; the first beat at or after one starts new base rows
        self.closed: list[Array] = []  # base rows that ended, INTERVAL_DTYPE
        self.first_reports: list[tuple[int, int]] = []  # (slot index, at)
        self.detached: list[int] = []  # slots whose row no longer speaks of them, still covered

    def restore(self, stored: Snapshot) -> None:
        """Take over a snapshot's columns and what goes with them."""
        header = stored.header
        self.restore_entries(
            stored.columns, rows=header.rows, slots=header.slots, project_ids=header.projects
        )
        self.gap_ends, self.detached = list(header.gap_ends), list(header.detached)

    def apply(self, beats: Array) -> Applied:
        """Apply beats (BEAT_DTYPE, shape (n,)) in journal order; answers one crediting code per beat."""
        rows, count = self.row, len(beats)
        index = (beats["row"] // self.shards).astype(np.int64)
        ordered = np.sort((index << np.int64(24)) | np.arange(count))
        order = ordered & np.int64((1 << 24) - 1)
        ordered >>= np.int64(24)
        beats = beats.take(order)
        first = np.ones(count, bool)
        first[1:] = ordered[1:] != ordered[:-1]
        # Recorded time of a row never runs back (LIVENESS.md 1).
        t = np.maximum(beats["t_ms"], rows.last_t_ms[ordered])
        if not first.all():
            run = np.cumsum(first, dtype=np.int64) << _T_BITS
            t = np.maximum.accumulate(run | t) & np.int64((1 << 44) - 1)
        before = _before(first, t, beats, ordered, rows)
        # Sooner than a quarter of the interval after the last one (WIRE.md, code 1).
        early = (before.t_ms > 0) & (t < before.t_ms + 2 * before.ttl_ms // 3 // 4)
        stopping = beats["flags"] & FLAG_STOPPING
        same = (
            (beats["plane0"] == before.plane0)
            & (beats["plane1"] == before.plane1)
            & (beats["slots"] == before.slots)
            & (beats["ttl_ms"] == before.ttl_ms)
            & (t < before.t_ms + before.ttl_ms)
            & (before.t_ms >= self._gap_end_before(t))
            & (stopping == 0)
            & (before.stopped == 0)
            & (rows.hot[ordered] == 0)
            & (rows.counting[ordered] == 0)
        )
        heard: list[tuple[int, Heard]] = []
        said: list[tuple[int, Said]] = []
        if same.all():
            self._store_unchanged(ordered, t, beats)
        else:
            run = np.cumsum(first) - 1
            restless = np.zeros(int(run[-1]) + 1, bool)
            restless[run[~same]] = True
            quiet = ~restless[run]
            self._store_unchanged(ordered[quiet], t[quiet], beats.compress(quiet))
            # Several beats of one row are told apart by turns, in their order.
            turn = np.arange(count) - np.flatnonzero(first)[run]
            for number in range(int(turn[~quiet].max()) + 1):
                now = ~quiet & (turn == number)
                self._store_changed(ordered[now], t[now], beats.compress(now), heard, said)
        codes = np.empty(count, np.uint8)
        codes[order] = self._codes(ordered, beats, t, early)
        recorded = np.empty(count, np.int64)
        recorded[order] = t
        return Applied(codes, recorded, heard, said)

    def end_gap(self, end_ms: int) -> None:
        """A gap ended then: the first beat of a row at or after it starts new base rows (LIVENESS.md 2)."""
        self.gap_ends = sorted({*self.gap_ends, end_ms})[-_GAP_ENDS:]

    def _gap_end_before(self, t: Array) -> Array | int:
        """The latest end of a gap at or before each time (0: none)."""
        if not self.gap_ends:
            return 0
        if not len(t) or self.gap_ends[-1] <= int(t.min()):
            return self.gap_ends[-1]
        ends = np.array([0, *self.gap_ends])
        return ends[np.searchsorted(ends, t, side="right") - 1]

    def _store_unchanged(self, index: Array, t: Array, beats: Array) -> None:
        """Same states, same ttl, in time: only the coverage moves on. The last beat of a row stays."""
        self.row.last_t_ms[index] = t
        self.dirty_rows[index // DIRTY_ROWS] = True

    def _codes(self, index: Array, beats: Array, t: Array, early: Array) -> Array:
        """REKEY over RESYNC over STANDBY over EARLY over OK (WIRE.md)."""
        codes = np.where(early, np.uint8(Code.EARLY), np.uint8(Code.OK))
        entry = 2 * index + (beats["generation"] & 1)
        leasing = self.row.leasing[index]
        if leasing.any():
            codes[contend(self, index, beats, t, leasing)] = Code.STANDBY
        resync = beats["slots"] != self.row.slots_now[index]
        if resync.any():
            resync &= self.row.check[index] == 0
        unheard = self.generation.heard[entry] == 0
        if unheard.any():
            self.generation.heard[entry[unheard]] = 1
        if resync.any():
            codes[resync & ~self._superseded(entry)] = Code.RESYNC
        codes[self.row.resync[index] != 0] = Code.RESYNC
        live = self.generation.live[entry] == beats["generation"]
        codes[live & (t >= self.generation.rekey_ms[entry])] = Code.REKEY
        return codes

    def _superseded(self, entry: Array) -> Array:
        """Whether a beat of a newer generation has come: the client has the new slot map then."""
        generations, other = self.generation, entry ^ 1
        newer = (generations.live[other] >= 0) & (generations.newest[other] != 0)
        superseded: Array = newer & (generations.heard[other] != 0)
        return superseded

    def _store_changed(
        self,
        index: Array,
        t: Array,
        beats: Array,
        heard: list[tuple[int, Heard]],
        said: list[tuple[int, Said]],
    ) -> None:
        """Beats that may say something new, one per row: row indexes and recorded times, shape (n,)."""
        rows = self.row
        stopping = (beats["flags"] & FLAG_STOPPING) != 0
        self._store_slots(index, t, beats, stopping, said)
        if stopping.any():
            let_go_stopped(self, index[stopping], t[stopping])
        speaking = index[~stopping]
        rows.plane0[speaking] = beats["plane0"][~stopping]
        rows.plane1[speaking] = beats["plane1"][~stopping]
        rows.slots[speaking] = beats["slots"][~stopping]
        rows.stopped[index] = stopping
        rows.ttl_ms[index] = beats["ttl_ms"]
        rows.last_t_ms[index] = t
        rows.generation[index] = beats["generation"]
        self.dirty_rows[index // DIRTY_ROWS] = True
        # Hot: an earlier beat of this very batch may be a stop that its actor has not decided yet.
        steady = (rows.state[index] == UP) & ~stopping & (rows.hot[index] == 0)
        on = index[steady]
        # A shorter ttl brings the deadline forward; a later one the judge finds by itself.
        rows.deadline_ms[on] = np.minimum(rows.deadline_ms[on], t[steady] + beats["ttl_ms"][steady])
        news = ~steady
        rows.hot[index[news]] = 1
        heard.extend(
            (at, Heard(when, ttl, stop))
            for at, when, ttl, stop in zip(
                index[news].tolist(),
                t[news].tolist(),
                beats["ttl_ms"][news].tolist(),
                stopping[news].tolist(),
                strict=True,
            )
        )

    def _store_slots(
        self, index: Array, t: Array, beats: Array, stopping: Array, said: list[tuple[int, Said]]
    ) -> None:
        """Close and open base intervals for every slot of the rows (LIVENESS.md 2)."""
        rows, slots = self.row, self.slot
        at, owner, number = self.slots_of(index)
        bit = number.astype(np.uint64)
        row = index[owner]
        when, ttl, stop = t[owner], beats["ttl_ms"][owner].astype(np.int64), stopping[owner]
        last_t = rows.last_t_ms[row]
        in_map = (beats["slots"][owner] >> bit) & np.uint64(1) != 0
        speaks = in_map & ~stop
        state = ((beats["plane1"][owner] >> bit) & np.uint64(1)) * np.uint64(2)
        state += (beats["plane0"][owner] >> bit) & np.uint64(1)
        kind = np.where(stop, np.uint8(BASE_STOPPED), _KIND_OF_STATE[state])
        was, own_t, open_ttl = slots.kind[at], slots.own_t_ms[at], slots.open_ttl_ms[at]
        open_ = was != BASE_NONE
        was_stopped = was == BASE_STOPPED
        covered = np.where(was_stopped, NEVER, np.where(own_t != 0, own_t, last_t) + open_ttl)
        # A row's frames speak no longer of this slot: what was said holds until its own end.
        leaves = ~stop & ~in_map & open_ & ~was_stopped & (own_t == 0)
        slots.own_t_ms[at[leaves]] = last_t[leaves]
        self.detached.extend(at[leaves].tolist())
        goes_on = open_ & (was == kind) & (was_stopped | (open_ttl == ttl)) & (covered > when)
        goes_on &= last_t >= self._gap_end_before(when)
        said_of = speaks | stop
        begins = said_of & ~goes_on
        # The row's stop ends at this beat also for a slot of which the beat says nothing.
        ends = (begins & open_) | (~said_of & was_stopped)
        self._close(at[ends], np.minimum(when, covered)[ends])
        opened = at[begins]
        slots.kind[opened], slots.open_ttl_ms[opened] = kind[begins], ttl[begins]
        slots.started_ms[opened] = when[begins]
        slots.own_t_ms[at[said_of]] = 0
        self.dirty_slots[at // DIRTY_SLOTS] = True
        reported = speaks & (state != 0) & (slots.first_report_ms[at] == 0)
        slots.first_report_ms[at[reported]] = when[reported]
        self.first_reports.extend(zip(at[reported].tolist(), when[reported].tolist(), strict=True))
        licensed = rows.licensed[row] >> bit & speaks
        if licensed.any():
            note_absence(self, at, when, state, licensed != 0)
        self._tell_workloads(at, row, kind, when, ttl, speaks, said)

    def _tell_workloads(
        self,
        at: Array,
        row: Array,
        kind: Array,
        when: Array,
        ttl: Array,
        speaks: Array,
        said: list[tuple[int, Said]],
    ) -> None:
        """What contradicts a workload's confirmed health, or may end a contradiction, is a change."""
        slots = self.slot
        health = slots.health[at]
        matters = ((kind == BASE_UNHEALTHY) & (health != ILL)) | ((kind == BASE_UP) & (health != WELL))
        # Also in a later beat of the same batch, before any actor has run.
        matters |= self.row.counting[row] != 0
        matters &= speaks & (slots.first_report_ms[at] != 0)
        if not matters.any():
            return
        self.row.counting[row[matters]] = 1
        said.extend(
            (slot, Said(what, time, valid))
            for slot, what, time, valid in zip(
                at[matters].tolist(),
                kind[matters].tolist(),
                when[matters].tolist(),
                ttl[matters].tolist(),
                strict=True,
            )
        )

    def _close(self, at: Array, ended: Array) -> None:
        """Close open base intervals (slot indexes, shape (n,)); zero lengths are dropped."""
        slots = self.slot
        lasting = ended > slots.started_ms[at]
        whole, end = at[lasting], ended[lasting]
        if len(whole):
            closed = np.empty(len(whole), INTERVAL_DTYPE)
            closed["hi"], closed["lo"] = slots.workload_hi[whole], slots.workload_lo[whole]
            closed["kind"], closed["ttl_ms"] = slots.kind[whole], slots.open_ttl_ms[whole]
            closed["started_ms"], closed["ended_ms"] = slots.started_ms[whole], end
            self.closed.append(closed)
        slots.kind[at] = BASE_NONE
        self.dirty_slots[at // DIRTY_SLOTS] = True

    def close_silent(self, index: Array) -> None:
        """Close what is open in rows whose coverage has ended (row indexes, shape (n,)), at its end."""
        at, owner, _ = self.slots_of(index)
        kind = self.slot.kind[at]
        open_ = (kind != BASE_NONE) & (kind != BASE_STOPPED) & (self.slot.own_t_ms[at] == 0)
        at, owner = at[open_], owner[open_]
        self._close(at, self.row.last_t_ms[index][owner] + self.slot.open_ttl_ms[at])

    def close_detached(self, judged_ms: int) -> None:
        """Close detached slots whose own coverage ended at or before `judged_ms`."""
        if not self.detached:
            return
        at = np.unique(np.array(self.detached))
        at = at[(self.slot.kind[at] != BASE_NONE) & (self.slot.own_t_ms[at] != 0)]
        ended = self.slot.own_t_ms[at] + self.slot.open_ttl_ms[at]
        over = ended <= judged_ms
        self._close(at[over], ended[over])
        self.detached = at[~over].tolist()

    def take_closed(self) -> Array:
        """All base rows closed since the last call, as INTERVAL_DTYPE."""
        closed, self.closed = self.closed, []
        # With its dtype named: numpy would turn the big-endian halves of the ids into native ones.
        return np.concatenate(closed or [np.empty(0, INTERVAL_DTYPE)], dtype=INTERVAL_DTYPE)

    def take_first_reports(self) -> Array:
        """Workloads first reported in a non-absent state since the last call, as FIRST_REPORT_DTYPE."""
        reports, self.first_reports = self.first_reports, []
        array = np.empty(len(reports), FIRST_REPORT_DTYPE)
        if reports:
            slot, when = np.array(reports).T
            array["hi"], array["lo"] = self.slot.workload_hi[slot], self.slot.workload_lo[slot]
            array["at_ms"] = when
        return array


class _Before(NamedTuple):
    """What was said before each beat of an ordered batch: by the beat before it, or by the row."""

    t_ms: Array
    ttl_ms: Array
    plane0: Array
    plane1: Array
    slots: Array
    stopped: Array


def _before(first: Array, t: Array, beats: Array, index: Array, rows: Columns) -> _Before:
    found = [
        rows.last_t_ms[index],
        rows.ttl_ms[index].astype(np.int64),
        rows.plane0[index],
        rows.plane1[index],
        rows.slots[index],
        rows.stopped[index],
    ]
    if not first.all():
        again = np.flatnonzero(~first)
        stopping = (beats["flags"] & FLAG_STOPPING) != 0
        in_batch = (t, beats["ttl_ms"], beats["plane0"], beats["plane1"], beats["slots"], stopping)
        for column, values in zip(found, in_batch, strict=True):
            column[again] = values[again - 1]
    return _Before(*found)
