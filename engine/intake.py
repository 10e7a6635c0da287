"""The door of a shard: beats come in, are verified, wait for the journal, are applied and answered.

This file holds what lies between the listeners (UDP, HTTP, forwarder) and the journal: verification of what
was submitted, the frames in waiting with their bound, and the answers once a commit has settled. The loop
that commits is `engine.committer`; what a beat changes is `engine.table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.answers import Keys, Outcome, Waiting, nobody_asks, tell
from engine.core.acks import build_acks
from engine.core.beats import joined
from engine.core.siphash import Siphasher
from engine.core.verify import BatchVerifier, Verified
from engine.door import GONE, PlainAnswer, PlainBeat
from engine.pace import Pace
from engine.plain_beats import PlainBeats
from engine.refusals import BUSY, MAC, SESSION, TOKEN, Refusals
from engine.rows import workload_id
from engine.settings import IngestSettings
from engine.sources import Sources
from engine.table import Applied, Table
from engine.throughput import Throughput
from np1.codec import FRAME_BYTES, Code

Array = npt.NDArray[Any]

_REFUSAL_EVERY_MS = 1_000  # STALE and CLOCK replies per row over UDP (WIRE.md, rule 4)


class IntakeStatistics(NamedTuple):
    taken: int
    answered: dict[int, int]  # by code
    rejected: dict[str, int]  # by reason
    waiting: int
    stray_bits: int


class Foreign(Protocol):
    """Takes frames of other shards' rows that came by UDP."""

    def __call__(self, frames: Array, names: Array, t_ms: int) -> None: ...


class Intake:
    """One shard's door (`engine.door.Door`). All calls come from the one thread of the loops."""

    def __init__(
        self,
        table: Table,
        pace: Pace,
        settings: IngestSettings,
        *,
        now_ms: Callable[[], int],
        wake: Callable[[], None],
        cloned: Callable[[int, int, int, str], None],
    ) -> None:
        self.table = table
        self.pace = pace
        self._settings = settings
        self.now_ms = now_ms
        self._wake = wake
        self._verifier = BatchVerifier(
            shard=table.shard, shards=table.shards, batch_max=settings.batch_frames_max
        )
        self._hasher = Siphasher(settings.batch_frames_max)
        self.sources = Sources(table, cloned=cloned)
        self.refusals = Refusals(table, run_ms=now_ms(), rows_max=settings.refused_rows_max)
        self._plain = PlainBeats(table, pace, self.refusals)  # they came after all of `waiting`
        self.waiting: list[Waiting] = []  # for a commit, in order of arrival
        self.waiting_beats = 0
        self._frames: list[tuple[bytes, int, int, Callable[[bytes], None]]] = []
        self._frames_bytes = 0
        self.busy = False  # the journal cannot take beats now
        self.taken = 0
        self.answered: Counter[int] = Counter()
        self.rejected: Counter[str] = Counter()
        self.throughput = Throughput()
        self.stray_bits = 0

    # -- the door -----------------------------------------------------------------------------------

    def owns(self, row: int) -> bool:
        return row % self.table.shards == self.table.shard

    def shards(self) -> int:
        return self.table.shards

    def submit_frames(
        self, frames: bytes, t_ms: int, reply: Callable[[bytes], None], *, source: int = 0
    ) -> None:
        """Queue frames from a stream; verified together with others when the loop comes round.

        At the bound of what may wait they are verified at once, which answers BUSY what is too much.
        """
        self._frames.append((frames, t_ms, source, reply))
        self._frames_bytes += len(frames)
        if self._frames_bytes >= self._settings.pending_frames_max * FRAME_BYTES:
            self.verify_queued()
        self._wake()

    def submit_plain(self, beat: PlainBeat, reply: Callable[[PlainAnswer], None]) -> None:
        """Queue a JSON, ping or push beat; judged together with others when the loop comes round."""
        if self._full():
            gone = not self._alive(beat)
            index = np.array([self.table.index_of(beat.row)])
            self.refusals.add(index, TOKEN if gone else BUSY, beat.t_ms)
            code, retry_ms = (GONE, 0) if gone else (int(Code.BUSY), self._settings.busy_retry_ms)
            reply(PlainAnswer(code, retry_ms, 0, beat.t_ms))
            return
        self._plain.add(beat, reply)
        self.waiting_beats += 1
        self._wake()

    def session_slots(self, row: int, generation: int) -> dict[str, int] | None:
        """Workload id -> slot of a live generation's frozen map; None when it is not live."""
        if not self._session_live(row, generation, self.now_ms()):
            return None
        index = self.table.index_of(row)
        base = int(self.table.row.slot_base[index])
        slot_map = int(self.table.generation.map[2 * index + (generation & 1)])
        return {workload_id(self.table, base + slot): slot for slot in range(64) if slot_map >> slot & 1}

    def capability_live(self, row: int, generation: int) -> bool:
        """Whether this is the row's present ping and push capability."""
        index = self.table.index_of(row)
        if not self.owns(row) or index >= self.table.rows or generation == 0:
            return False
        return int(self.table.row.capability_generation[index]) == generation

    def refuse_token(self, row: int, t_ms: int) -> None:
        """Count a beat under a token of ours that is no longer good."""
        index = self.table.index_of(row)
        if self.owns(row) and index < self.table.rows:
            self.refusals.add(np.array([index]), TOKEN, t_ms)

    def _session_live(self, row: int, generation: int, now_ms: int) -> bool:
        index = self.table.index_of(row)
        if not self.owns(row) or index >= self.table.rows or self.table.row.refused[index]:
            return False
        entry = 2 * index + (generation & 1)
        generations = self.table.generation
        return int(generations.live[entry]) == generation and now_ms < int(generations.until_ms[entry])

    def _alive(self, beat: PlainBeat) -> bool:
        if beat.capability:
            return self.capability_live(beat.row, beat.generation)
        return self._session_live(beat.row, beat.generation, beat.t_ms)

    # -- datagrams ----------------------------------------------------------------------------------

    def take_datagrams(
        self,
        raw: Array,
        lengths: Array,
        names: Array,
        t_ms: int,
        *,
        send: Callable[[Array, Array], int],
        foreign: Foreign,
        sources: Callable[[Array], Array] | None = None,
    ) -> None:
        """Judge a batch of datagrams received at t_ms. The arrays may be overwritten after this returns.

        `sources`: makes addresses comparable (`DatagramBatches.sources`); None: nobody knows them.
        """
        verified = self._verify(raw, lengths, t_ms)
        if len(verified.foreign):
            foreign(raw[verified.foreign, :FRAME_BYTES].copy(), names[verified.foreign].copy(), t_ms)
        if len(verified.refused):
            self._answer_refused(verified, raw, names, t_ms, send)
        if not len(verified.accepted):
            return
        addresses = names.take(verified.accepted, axis=0)
        if sources is not None:
            self.sources.watch(verified.entry >> 1, sources(addresses), t_ms)

        def decided(what: Outcome) -> None:
            if len(what.acks):
                send(what.acks, addresses.compress(what.told, axis=0))

        keys = self._keys(verified.entry)
        self._put_or_busy(Waiting(verified.beats, keys, decided, datagrams=True))

    def _answer_refused(
        self, verified: Verified, raw: Array, names: Array, t_ms: int, send: Callable[[Array, Array], int]
    ) -> None:
        rows = self.table.row
        index = verified.refused_entry // 2
        _, firsts = np.unique(index, return_index=True)
        firsts = firsts[rows.refusal_told_ms[index[firsts]] + _REFUSAL_EVERY_MS <= t_ms]
        rows.refusal_told_ms[index[firsts]] = t_ms
        self._count(verified.refused_codes)
        if len(firsts):
            at = verified.refused[firsts]
            frames = raw[at, :FRAME_BYTES]
            acks = self._refusals(
                frames, verified.refused_codes[firsts], verified.refused_entry[firsts], np.full(len(at), t_ms)
            )
            send(acks, names[at])

    def _refusals(self, frames: Array, codes: Array, entry: Array, t_ms: Array) -> Array:
        """ACKs of frames that authenticated and were not taken."""
        echoed = np.ascontiguousarray(frames)
        generation = echoed[:, 2:4].copy().view(">u2")[:, 0]
        return build_acks(
            self._hasher,
            codes=codes,
            generation=generation,
            row=echoed[:, 4:8].copy().view(">u4")[:, 0],
            seq=echoed[:, 8:16].copy().view(">u8")[:, 0],
            t_ms=np.maximum(t_ms, self.table.row.last_t_ms[entry // 2]),
            next_ms=self.pace.next_ms(self.table.row.interval_ms[entry // 2]),
            ttl_ms=np.zeros(len(codes), np.int64),
            key0=self.table.generation.key0[entry],
            key1=self.table.generation.key1[entry],
        )

    # -- frames from streams ------------------------------------------------------------------------

    def verify_queued(self) -> None:
        """Judge the plain beats and verify the frames of streams that were queued, each in one batch."""
        self._judge_plain()
        if not self._frames:
            return
        queued, self._frames, self._frames_bytes = self._frames, [], 0
        raw = np.frombuffer(b"".join(each[0] for each in queued), np.uint8).reshape(-1, FRAME_BYTES)
        counts = [len(each[0]) // FRAME_BYTES for each in queued]
        times = np.repeat(np.array([each[1] for each in queued], np.int64), counts)
        verified = self._verify(raw, None, times)
        if any(each[2] for each in queued):
            sources = np.repeat(np.array([each[2] for each in queued], np.uint64), counts)
            self.sources.watch(verified.entry >> 1, sources[verified.accepted], int(times[-1]))
        answers = np.zeros((len(raw), FRAME_BYTES), np.uint8)
        if len(verified.refused):
            at = verified.refused
            self._count(verified.refused_codes)
            answers[at] = self._refusals(raw[at], verified.refused_codes, verified.refused_entry, times[at])

        def reply_all() -> None:
            start = 0
            for count, (*_, reply) in zip(counts, queued, strict=True):
                reply(answers[start : start + count].tobytes())
                start += count

        if not len(verified.accepted):
            reply_all()
            return

        def decided(what: Outcome) -> None:
            answers[verified.accepted] = what.acks
            reply_all()

        self._put_or_busy(Waiting(verified.beats, self._keys(verified.entry), decided))

    # -- common -------------------------------------------------------------------------------------

    def _verify(self, raw: Array, lengths: Array | None, t_ms: Array | int) -> Verified:
        table = self.table
        verified = self._verifier.verify(
            raw, lengths, t_ms, table.row.known[: table.rows], table.row.refused, table.generation
        )
        self.rejected.update(verified.rejects)
        self.stray_bits += verified.stray_bits
        self._count_refused(verified, t_ms)
        beats = verified.beats
        if len(beats):
            index = verified.entry // 2
            beats["ttl_ms"] = self.pace.ttls(
                table.row.interval_ms[index], table.generation.session_ttl_ms[verified.entry]
            )
        return verified

    def _count_refused(self, verified: Verified, t_ms: Array | int) -> None:
        now_ms = t_ms if isinstance(t_ms, int) else int(t_ms.max(initial=0))
        self.refusals.add(verified.lapsed, SESSION, now_ms)
        self.refusals.add(verified.forged, MAC, now_ms)
        if len(verified.refused):
            t = t_ms if isinstance(t_ms, int) else t_ms[verified.refused]
            self.refusals.add_coded(verified.refused_entry // 2, verified.refused_codes, t)

    def _keys(self, entry: Array) -> Keys:
        return Keys(self.table.generation.key0[entry], self.table.generation.key1[entry])

    def _full(self) -> bool:
        return self.busy or self.waiting_beats >= self._settings.pending_frames_max

    def _put_or_busy(self, waiting: Waiting) -> None:
        if self._full():
            self.refuse_busy([waiting])
        else:
            self._put(waiting)

    def _put(self, waiting: Waiting) -> None:
        self._judge_plain()
        self.waiting.append(waiting)
        self.waiting_beats += len(waiting.beats)
        self._wake()

    def _judge_plain(self) -> None:
        if not self._plain:
            return
        self.waiting_beats -= len(self._plain)
        judged = self._plain.judge(self.sources)
        if len(judged.beats):
            self.waiting.append(judged)
            self.waiting_beats += len(judged.beats)

    def oldest_waiting_ms(self) -> int | None:
        """Receive time of the oldest beat that is not yet with the journal. Streams come out of order."""
        oldest = [int(waiting.beats["t_ms"].min()) for waiting in self.waiting]
        oldest += [each[1] for each in self._frames]
        plain_ms = self._plain.oldest_ms()
        if plain_ms is not None:
            oldest.append(plain_ms)
        return min(oldest, default=None)

    def take_waiting(self) -> list[Waiting]:
        """All that waits, for one commit."""
        taken, self.waiting = self.waiting, []
        self.waiting_beats = len(self._plain)
        return taken

    def answer(self, group: list[Waiting], beats: Array, applied: Applied) -> None:
        """Tell everyone of a committed and applied group what became of their beats."""
        self.taken += len(beats)
        self._answer(group, beats, applied.codes, applied.t_ms)
        if len(beats):
            self.throughput.answered(beats["t_ms"], self.now_ms())

    def refuse_busy(self, group: list[Waiting]) -> None:
        """Tell everyone of a group that could not be recorded to try again."""
        beats = joined([waiting.beats for waiting in group])
        self.refusals.add((beats["row"] // self.table.shards).astype(np.int64), BUSY, beats["t_ms"])
        self._answer(group, beats, np.full(len(beats), Code.BUSY, np.uint8), beats["t_ms"])

    def _answer(self, group: list[Waiting], beats: Array, codes: Array, t_ms: Array) -> None:
        self._count(codes)
        if nobody_asks(group, beats, codes):
            return
        index = (beats["row"] // self.table.shards).astype(np.int64)
        next_ms = self.pace.next_ms(self.table.row.interval_ms[index])
        next_ms[codes == Code.BUSY] = self._settings.busy_retry_ms
        tell(self._hasher, group, beats, codes, t_ms, next_ms)

    def _count(self, codes: Array) -> None:
        for code, number in enumerate(np.bincount(codes)):
            if number:
                self.answered[code] += int(number)

    def statistics(self) -> IntakeStatistics:
        return IntakeStatistics(
            self.taken, dict(self.answered), dict(self.rejected), self.waiting_beats, self.stray_bits
        )
