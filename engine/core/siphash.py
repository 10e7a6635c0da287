"""SipHash-2-4 with 128-bit output over 32-byte messages, many at once.

The four state words of n messages lie in two (2, n) arrays, ``[v0, v2]`` and ``[v1, v3]``, so that one numpy
call often does two of the scalar algorithm's steps. Source: the reference siphash.c (outlen 16); WIRE.md.
`Siphasher` keeps its scratch between calls: nothing is allocated per message.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

_C0, _C1, _C2, _C3 = (
    np.uint64(value)
    for value in (0x736F6D6570736575, 0x646F72616E646F6D ^ 0xEE, 0x6C7967656E657261, 0x7465646279746573)
)
_LENGTH_BLOCK = np.uint64(32 << 56)  # the last block of a 32-byte message: its length and no bytes
# 0-dimensional arrays: a scalar would be made into one anew by each of the hundreds of calls per batch.
_R13, _R16, _R17, _R21, _R32 = (np.array(bits, np.uint64) for bits in (13, 16, 17, 21, 32))
_L13, _L16, _L17, _L21 = (np.array(64 - bits, np.uint64) for bits in (13, 16, 17, 21))


class Siphasher:
    """Scratch for up to `batch_max` messages at a time."""

    def __init__(self, batch_max: int) -> None:
        self.batch_max = batch_max
        self._room = np.empty((3, 2 * batch_max), np.uint64)

    def tags(self, key0: U64, key1: U64, words: U64) -> tuple[U64, U64]:
        """Both halves of the tag of each message.

        key0, key1: shape (n,), the key's bytes 0..7 and 8..15 read little-endian. words: shape (4, n), the
        message's 32 bytes as little-endian words. Returns two arrays of shape (n,): the tag's bytes 0..7
        and 8..15 as little-endian words. n at most `batch_max`.
        """
        count = len(key0)
        assert count <= self.batch_max
        assert words.shape == (4, count)
        # Cut to size in one piece each: with a gap between the rows each call takes twice as long.
        a, b, scratch = (part[: 2 * count].reshape(2, count) for part in self._room)
        np.bitwise_xor(key0, _C0, out=a[0])
        np.bitwise_xor(key0, _C2, out=a[1])
        np.bitwise_xor(key1, _C1, out=b[0])
        np.bitwise_xor(key1, _C3, out=b[1])
        for index in range(4):
            word = words[index]
            b[1] ^= word
            _rounds(a, b, scratch, 2)
            a[0] ^= word
        b[1] ^= _LENGTH_BLOCK
        _rounds(a, b, scratch, 2)
        a[0] ^= _LENGTH_BLOCK
        a[1] ^= np.uint64(0xEE)
        _rounds(a, b, scratch, 4)
        low = a[0] ^ a[1] ^ b[0] ^ b[1]
        b[0] ^= np.uint64(0xDD)
        _rounds(a, b, scratch, 4)
        high = a[0] ^ a[1] ^ b[0] ^ b[1]
        return low, high


def _rounds(a: U64, b: U64, scratch: U64, times: int) -> None:
    v0, v2 = a
    v1, v3 = b
    s0, s1 = scratch
    add, left, right = np.add, np.left_shift, np.right_shift
    either, xor = np.bitwise_or, np.bitwise_xor
    for _ in range(times):
        add(a, b, a)
        left(v1, _R13, s0)
        left(v3, _R16, s1)
        right(v1, _L13, v1)
        right(v3, _L16, v3)
        either(b, scratch, b)
        xor(b, a, b)
        left(v0, _R32, s0)
        right(v0, _R32, v0)
        either(v0, s0, v0)
        # Crosswise: two calls, because one on a reversed view costs more than both.
        add(v0, v3, v0)
        add(v2, v1, v2)
        left(v1, _R17, s0)
        left(v3, _R21, s1)
        right(v1, _L17, v1)
        right(v3, _L21, v3)
        either(b, scratch, b)
        xor(v1, v2, v1)
        xor(v3, v0, v3)
        left(v2, _R32, s0)
        right(v2, _R32, v2)
        either(v2, s0, v2)
