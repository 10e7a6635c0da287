"""Beats made by the million: keys that sender and receiver derive alike, and signed frames as one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.core.siphash import Siphasher
from engine.core.verify import FRAME_DTYPE
from np1.codec import BEAT_BYTE, FLAG_NO_ACK, FRAME_BYTES

Array = npt.NDArray[Any]

GENERATION = 1
_AT_ONCE = 8_192  # messages per call of the hasher: what fits the processor's cache
_SPREAD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def keys_of(rows: Array) -> tuple[Array, Array]:
    """The two halves of each row's session key (splitmix64 of the row: as good as any for a bench)."""
    rows = rows.astype(np.uint64)
    return _spread(2 * rows), _spread(2 * rows + np.uint64(1))


def _spread(value: Array) -> Array:
    value = (value + np.uint64(1)) * _SPREAD[0]
    value = (value ^ (value >> np.uint64(30))) * _SPREAD[1]
    value = (value ^ (value >> np.uint64(27))) * _SPREAD[2]
    spread: Array = value ^ (value >> np.uint64(31))
    return spread


def mask_of(workloads: int) -> np.uint64:
    """The slots 0..workloads-1."""
    return np.uint64((1 << workloads) - 1)


def make_frames(
    rows: Array, *, seq: Array, workloads: int, no_ack: bool, plane0: Array | None = None
) -> Array:
    """One signed BEAT per entry of `rows`, all slots healthy unless plane0 says else. (n, 48) uint8."""
    frames = np.zeros(len(rows), FRAME_DTYPE)
    frames["kind"] = BEAT_BYTE
    frames["flags"] = FLAG_NO_ACK if no_ack else 0
    frames["generation"] = GENERATION
    frames["row"] = rows
    frames["seq"] = seq
    frames["plane0"] = mask_of(workloads) if plane0 is None else plane0
    key0, key1 = keys_of(rows)
    hasher = Siphasher(_AT_ONCE)
    for start in range(0, len(frames), _AT_ONCE):
        part = frames[start : start + _AT_ONCE]
        words = np.ascontiguousarray(part.view("<u8").reshape(-1, 6)[:, :4].T)
        tags = hasher.tags(key0[start : start + _AT_ONCE], key1[start : start + _AT_ONCE], words)
        part["tag_low"], part["tag_high"] = tags
    return frames.view(np.uint8).reshape(len(frames), FRAME_BYTES)


class Beats:
    """Endless passes over some rows, each in another random order; seqs rise from pass to pass."""

    def __init__(self, rows: Array, *, workloads: int, seed: int = 1) -> None:
        self._rows = rows
        self._workloads = workloads
        self._random = np.random.default_rng(seed)
        self._passes = 0
        self._left = np.empty(0, rows.dtype)

    def next_rows(self, count: int) -> tuple[Array, Array]:
        """The rows of the next `count` beats and the number of the pass of each."""
        parts, numbers, have = [], [], 0
        while have < count:
            if not len(self._left):
                self._left = self._random.permutation(self._rows)
                self._passes += 1
            part, self._left = self._left[: count - have], self._left[count - have :]
            parts.append(part)
            numbers.append(np.full(len(part), self._passes, np.int64))
            have += len(part)
        return np.concatenate(parts), np.concatenate(numbers)

    def make(self, count: int, *, now_ms: int, no_ack: bool) -> tuple[Array, Array]:
        """The next `count` frames, (n, 48) uint8, and their rows. Seqs keep to the clock of `now_ms`."""
        rows, passes = self.next_rows(count)
        # At most a few thousand passes in a run: they stay within seconds of the clock, and rise.
        seq = (np.int64(now_ms) << 16) + passes
        return make_frames(rows, seq=seq.astype(np.uint64), workloads=self._workloads, no_ack=no_ack), rows
