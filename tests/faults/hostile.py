"""Hostile datagrams by the hundred thousand, from one seed, each kind as an array of bytes and lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.core.siphash import Siphasher
from np1.codec import BEAT_BYTE, FRAME_BYTES
from tests.engine.rows_world import key

Array = np.ndarray[Any, Any]
SLOT_BYTES = 64  # as the listener hands them on
KINDS = ("noise", "plausible", "flipped", "resized", "cross_row", "other_generation", "replayed")


class Hostile:
    """Makes batches against rows 0 to `rows` - 1 of tests/engine/rows_world: sessions of generation 1."""

    def __init__(self, *, rows: int, t_ms: int, seed: int) -> None:
        self.rows, self.t_ms = rows, t_ms
        self._random = np.random.default_rng(seed)
        words = np.frombuffer(b"".join(key(row) for row in range(rows)), "<u8").reshape(-1, 2)
        self._key0, self._key1 = words[:, 0].copy(), words[:, 1].copy()
        self._counter = 0

    def batches(self, total: int, *, size: int = 4_096) -> Iterator[tuple[str, Array, Array]]:
        """(kind, bytes (n, 64), lengths (n,)), `total` datagrams in all, kinds in turn."""
        for number, start in enumerate(range(0, total, size)):
            kind = KINDS[number % len(KINDS)]
            count = min(size, total - start)
            raw = np.zeros((count, SLOT_BYTES), np.uint8)
            made, lengths = getattr(self, f"_{kind}")(count)
            raw[:, : made.shape[1]] = made
            yield kind, raw, lengths

    def right(self, count: int) -> Array:
        """Frames that are right in every respect, of random rows, with ever higher seqs."""
        at = self._random.integers(0, self.rows, count)
        return self._signed(at, at)

    def _signed(self, named: Array, by: Array, *, generation: int = 1) -> Array:
        """Frames that name some rows, signed with the keys of others."""
        hasher = Siphasher(len(named))
        frames = np.zeros((len(named), FRAME_BYTES), np.uint8)
        frames[:, 0] = BEAT_BYTE
        frames[:, 2:4] = np.full(len(named), generation, ">u2").view(np.uint8).reshape(-1, 2)
        frames[:, 4:8] = named.astype(">u4").view(np.uint8).reshape(-1, 4)
        self._counter += len(named)
        seqs = (self.t_ms << 16) + self._counter - len(named) + np.arange(len(named))
        frames[:, 8:16] = seqs.astype(">u8").view(np.uint8).reshape(-1, 8)
        frames[:, 16:32] = self._random.integers(0, 256, (len(named), 16), np.uint8)
        words = np.ascontiguousarray(frames.view("<u8").reshape(-1, 6)[:, :4].T)
        low, high = hasher.tags(self._key0[by], self._key1[by], words.astype(np.uint64))
        frames[:, 32:40] = low.astype("<u8").view(np.uint8).reshape(-1, 8)
        frames[:, 40:48] = high.astype("<u8").view(np.uint8).reshape(-1, 8)
        return frames

    def _lengths(self, count: int) -> Array:
        return np.full(count, FRAME_BYTES, np.uint32)

    def _noise(self, count: int) -> tuple[Array, Array]:
        """Any bytes of any length."""
        lengths = self._random.integers(0, 2 * SLOT_BYTES, count).astype(np.uint32)
        return self._random.integers(0, 256, (count, SLOT_BYTES), np.uint8), lengths

    def _plausible(self, count: int) -> tuple[Array, Array]:
        """48 bytes that begin as a BEAT of a known row and generation and are random behind that."""
        frames = self.right(count)
        frames[:, 8:] = self._random.integers(0, 256, (count, FRAME_BYTES - 8), np.uint8)
        return frames, self._lengths(count)

    def _flipped(self, count: int) -> tuple[Array, Array]:
        """Right but for one bit, anywhere."""
        frames = self.right(count)
        bit = self._random.integers(0, 8 * FRAME_BYTES, count)
        frames[np.arange(count), bit // 8] ^= np.uint8(1) << (bit % 8).astype(np.uint8)
        return frames, self._lengths(count)

    def _resized(self, count: int) -> tuple[Array, Array]:
        """Right, but cut off or with something behind."""
        lengths = self._random.integers(0, 2 * SLOT_BYTES - 1, count).astype(np.uint32)
        return self.right(count), lengths + (lengths >= FRAME_BYTES)

    def _cross_row(self, count: int) -> tuple[Array, Array]:
        """Signed with the right key of another row."""
        by = self._random.integers(0, self.rows, count)
        named = (by + self._random.integers(1, self.rows, count)) % self.rows
        return self._signed(named, by), self._lengths(count)

    def _other_generation(self, count: int) -> tuple[Array, Array]:
        """Of a generation that is no more or not yet, signed with the key of the present one."""
        at = self._random.integers(0, self.rows, count)
        generation = int(self._random.choice([0, 2, 3, 65_535]))
        return self._signed(at, at, generation=generation), self._lengths(count)

    def _replayed(self, count: int) -> tuple[Array, Array]:
        """Right frames, but of an hour ago: their seqs lie far outside of the clock's window."""
        now_ms, self.t_ms = self.t_ms, self.t_ms - 3_600_000
        frames = self.right(count)
        self.t_ms = now_ms
        return frames, self._lengths(count)
