"""Judging a batch of datagrams as arrays: WIRE.md, rules 1 and 2 of the server.

In: the bytes as they came, their lengths and receive times, and the columns of the rows. Out: which frames
are to be recorded, which are to be refused with a code, and how many were dropped for which reason. Nothing
here changes the table but `last_seq`, which is reserved the moment a frame is accepted.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.core.beats import BEAT_DTYPE
from engine.core.siphash import Siphasher
from engine.core.timing import CLOCK_WINDOW_MS
from np1.codec import BEAT_BYTE, FLAG_NO_ACK, FLAG_STOPPING, FRAME_BYTES, Code

Array = npt.NDArray[Any]

FRAME_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("flags", "u1"),
        ("generation", ">u2"),
        ("row", ">u4"),
        ("seq", ">u8"),
        ("plane0", ">u8"),
        ("plane1", ">u8"),
        ("tag_low", "<u8"),
        ("tag_high", "<u8"),
    ]
)
_FLAGS_KNOWN = FLAG_NO_ACK | FLAG_STOPPING
_NO_INDEXES = np.empty(0, np.int64)
_POSITION_BITS = 24  # a batch holds fewer frames than this allows


class GenerationColumns(Protocol):
    """The columns of `engine.columns.GENERATION_COLUMNS`, two entries per row."""

    live: Array
    key0: Array
    key1: Array
    from_ms: Array
    until_ms: Array
    map: Array
    last_seq: Array


class Verified(NamedTuple):
    """A batch, judged. Index arrays point into the batch, in order of arrival."""

    accepted: Array  # of the frames to be recorded
    beats: Array  # BEAT_DTYPE, one for each of `accepted`; ttl_ms still 0
    entry: Array  # for each of `accepted`: its generation entry
    refused: Array  # frames that authenticated but are STALE or CLOCK
    refused_codes: Array  # u1, Code.STALE or Code.CLOCK
    refused_entry: Array
    foreign: Array  # well-formed frames of rows of other shards
    rejects: dict[str, int]  # dropped in silence, by reason; only reasons that occurred
    stray_bits: int  # plane bits outside the slot map, which were cut off
    lapsed: Array  # rows (indexes) of frames dropped for their generation
    forged: Array  # and of frames dropped for their tag


class BatchVerifier:
    """Verifies batches for one shard. Keeps scratch between calls; not for two threads at once."""

    def __init__(self, *, shard: int, shards: int, batch_max: int) -> None:
        self._shard, self._shards = shard, shards
        self._hasher = Siphasher(batch_max)

    def verify(
        self,
        raw: Array,
        lengths: Array | None,
        t_ms: Array | int,
        rows_known: Array,
        rows_refused: Array,
        generations: GenerationColumns,
    ) -> Verified:
        """Judge n datagrams.

        raw: uint8, shape (n, at least 48). lengths: shape (n,), the true
        length of each (None: all are 48 bytes). t_ms: receive time, one for all or shape (n,).
        rows_known, rows_refused: one entry per row index.
        """
        rejects: dict[str, int] = {}
        count = len(raw)
        frames = np.ascontiguousarray(raw[:, :FRAME_BYTES]).view(FRAME_DTYPE)[:, 0]
        keep = _well_formed(frames, lengths, rejects)
        if keep is None:
            index = np.arange(count)
        else:
            index = np.flatnonzero(keep)
            frames = frames.take(index)
        rows = frames["row"].astype(np.int64)
        foreign = _NO_INDEXES
        if self._shards > 1:
            mine = rows % self._shards == self._shard
            if not mine.all():
                foreign = index[~mine]
                index, frames, rows = index[mine], frames.compress(mine), rows[mine]
            rows //= self._shards
        times = np.full(len(index), t_ms, np.int64) if isinstance(t_ms, int) else t_ms[index]

        good = rows < len(rows_known)
        good &= rows_known[np.where(good, rows, 0)] != 0
        index, frames, rows, times = _only(good, "row", rejects, index, frames, rows, times)

        generation = frames["generation"].astype(np.int64)
        entry = 2 * rows + (generation & 1)
        good = (generations.live[entry] == generation) & (times < generations.until_ms[entry])
        good &= rows_refused[rows] == 0
        lapsed = _NO_INDEXES if good.all() else rows[~good]
        index, frames, rows, times, entry = _only(
            good, "generation", rejects, index, frames, rows, times, entry
        )

        good = self._tags_right(frames, entry, generations)
        forged = _NO_INDEXES if good.all() else rows[~good]
        index, frames, rows, times, entry = _only(good, "tag", rejects, index, frames, rows, times, entry)
        judged = _judge_seq(index, frames, times, entry, generations, foreign, rejects)
        return judged._replace(lapsed=lapsed, forged=forged) if len(lapsed) or len(forged) else judged

    def _tags_right(self, frames: Array, entry: Array, generations: GenerationColumns) -> Array:
        good = np.empty(len(frames), bool)
        limit = self._hasher.batch_max
        for start in range(0, len(frames), limit):
            part, at = frames[start : start + limit], entry[start : start + limit]
            words = np.ascontiguousarray(part.view("<u8").reshape(-1, 6)[:, :4].T)
            low, high = self._hasher.tags(generations.key0[at], generations.key1[at], words)
            good[start : start + limit] = (low == part["tag_low"]) & (high == part["tag_high"])
        return good


def _well_formed(frames: Array, lengths: Array | None, rejects: dict[str, int]) -> Array | None:
    """Which frames have the right length, version, type and flags; None when all have."""
    kind, flags = frames["kind"], frames["flags"]
    whole = lengths is None or bool((lengths == FRAME_BYTES).all())
    if whole and bool((kind == BEAT_BYTE).all()) and bool((flags & ~np.uint8(_FLAGS_KNOWN) == 0).all()):
        return None
    good = np.ones(len(frames), bool) if lengths is None else lengths == FRAME_BYTES
    _count("length", rejects, len(good) - int(good.sum()))
    for reason, right in (
        ("version", kind >> 4 == BEAT_BYTE >> 4),
        ("type", kind & 15 == BEAT_BYTE & 15),
        ("flags", flags & ~np.uint8(_FLAGS_KNOWN) == 0),
    ):
        _count(reason, rejects, int((good & ~right).sum()))
        good &= right
    return good


def _only(good: Array, reason: str, rejects: dict[str, int], *arrays: Array) -> tuple[Array, ...]:
    """The arrays cut to what is good, the rest counted."""
    if good.all():
        return arrays
    _count(reason, rejects, len(good) - int(good.sum()))
    return tuple(array.compress(good) for array in arrays)


def _count(reason: str, rejects: dict[str, int], number: int) -> None:
    if number:
        rejects[reason] = rejects.get(reason, 0) + number


def _judge_seq(
    index: Array,
    frames: Array,
    times: Array,
    entry: Array,
    generations: GenerationColumns,
    foreign: Array,
    rejects: dict[str, int],
) -> Verified:
    """The clock window and the replay rule, in order of arrival per generation of a row."""
    seq = frames["seq"].astype(np.uint64)
    said = (seq >> np.uint64(16)).astype(np.int64)
    in_time = np.abs(said - times) <= CLOCK_WINDOW_MS
    newer = _newer(seq, entry, in_time, generations.last_seq)
    good = in_time & newer
    accepted = index[good]
    taken, at = frames.compress(good), entry[good]
    beats = np.zeros(len(accepted), BEAT_DTYPE)
    slot_map = generations.map[at]
    beats["row"] = taken["row"]
    beats["generation"] = taken["generation"]
    beats["flags"] = taken["flags"]
    beats["seq"] = seq[good]
    plane0, plane1 = taken["plane0"].astype(np.uint64), taken["plane1"].astype(np.uint64)
    stray = (plane0 | plane1) & ~slot_map
    stray_bits = sum(int(bits).bit_count() for bits in stray[stray != 0])
    beats["plane0"] = plane0 & slot_map
    beats["plane1"] = plane1 & slot_map
    beats["slots"] = slot_map
    beats["t_ms"] = times[good]
    bad = ~good
    if bad.any():
        refused, refused_entry = index[bad], entry[bad]
        codes = np.where(in_time[bad], np.uint8(Code.STALE), np.uint8(Code.CLOCK))
    else:
        refused = refused_entry = _NO_INDEXES
        codes = np.empty(0, np.uint8)
    return Verified(
        accepted,
        beats,
        at,
        refused,
        codes,
        refused_entry,
        foreign,
        rejects,
        stray_bits,
        lapsed=_NO_INDEXES,
        forged=_NO_INDEXES,
    )


def _newer(seq: Array, entry: Array, in_time: Array, last_seq: Array) -> Array:
    """Which seqs lie above all accepted before them; the accepted ones are written to `last_seq`.

    Frames outside the clock window take no part. Frames of rows that stand once in the batch are judged as
    arrays, and so is the usual case of several rising seqs of one row; only the rest one by one.
    """
    count = len(seq)
    newer = in_time & (seq > last_seq[entry])
    # A stable order by entry in one plain sort: the position is the key's low bits.
    ordered = np.sort((entry << _POSITION_BITS) | np.arange(count))
    order = ordered & ((1 << _POSITION_BITS) - 1)
    ordered >>= _POSITION_BITS
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        last_seq[entry[newer]] = seq[newer]
        return newer
    ordered_seq = seq[order]
    if newer.all() and (ordered_seq[1:] > ordered_seq[:-1])[same].all():
        last_seq[ordered] = ordered_seq  # the last of each row stays
        return newer
    repeated = np.zeros(count, bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    single = newer & ~repeated
    last_seq[entry[single]] = seq[single]
    positions = np.flatnonzero(repeated & in_time)
    newer[repeated] = False
    newer[positions] = _newer_one_by_one(seq[positions], entry[positions], last_seq)
    return newer


def _newer_one_by_one(seq: Array, entry: Array, last_seq: Array) -> Array:
    newest = {int(at): int(last_seq[at]) for at in np.unique(entry)}
    newer = np.zeros(len(seq), bool)
    for position, (at, value) in enumerate(zip(entry.tolist(), seq.tolist(), strict=True)):
        if value > newest[at]:
            newest[at] = value
            newer[position] = True
    for at, value in newest.items():
        last_seq[at] = np.uint64(value)
    return newer
