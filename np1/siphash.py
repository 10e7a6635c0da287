"""SipHash-2-4 with 128-bit output, one message at a time, in plain Python.

The tag of every frame (WIRE.md, BEAT). This is the client's and the tests' implementation; the engine
verifies whole batches with its own. Source: the reference siphash.c (outlen 16) of Aumasson and Bernstein;
checked against its published vectors and against OpenSSL in `tests/np1/test_siphash.py`.
"""

from __future__ import annotations

import struct

KEY_BYTES = 16
TAG_BYTES = 16
_MASK = 0xFFFF_FFFF_FFFF_FFFF


def _rounds(v0: int, v1: int, v2: int, v3: int, count: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = (v0 + v1) & _MASK
        v1 = ((v1 << 13) & _MASK | v1 >> 51) ^ v0
        v0 = (v0 << 32) & _MASK | v0 >> 32
        v2 = (v2 + v3) & _MASK
        v3 = ((v3 << 16) & _MASK | v3 >> 48) ^ v2
        v0 = (v0 + v3) & _MASK
        v3 = ((v3 << 21) & _MASK | v3 >> 43) ^ v0
        v2 = (v2 + v1) & _MASK
        v1 = ((v1 << 17) & _MASK | v1 >> 47) ^ v2
        v2 = (v2 << 32) & _MASK | v2 >> 32
    return v0, v1, v2, v3


def siphash128(key: bytes, data: bytes) -> bytes:
    """The 16-byte tag of `data` under the 16-byte `key`. ValueError for a key of another length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a SipHash key has {KEY_BYTES} bytes, this one {len(key)}")
    key0, key1 = struct.unpack("<2Q", key)
    v0 = key0 ^ 0x736F6D6570736575
    v1 = key1 ^ 0x646F72616E646F6D ^ 0xEE
    v2 = key0 ^ 0x6C7967656E657261
    v3 = key1 ^ 0x7465646279746573
    # The last block: what is left of the data, zeros, and the length modulo 256 in its top byte.
    padded = bytes(data) + b"\0" * (7 - len(data) % 8) + bytes((len(data) & 0xFF,))
    for (word,) in struct.iter_unpack("<Q", padded):
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3 ^ word, 2)
        v0 ^= word
    v0, v1, v2, v3 = _rounds(v0, v1, v2 ^ 0xEE, v3, 4)
    low = v0 ^ v1 ^ v2 ^ v3
    v0, v1, v2, v3 = _rounds(v0, v1 ^ 0xDD, v2, v3, 4)
    return struct.pack("<2Q", low, v0 ^ v1 ^ v2 ^ v3)
