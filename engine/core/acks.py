"""ACKs of a whole batch: WIRE.md, ACK, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.core.siphash import Siphasher
from np1.codec import ACK_BYTE, FRAME_BYTES, Code

Array = npt.NDArray[Any]

_ACK_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("code", "u1"),
        ("generation", ">u2"),
        ("row", ">u4"),
        ("seq", ">u8"),
        ("server_ms", ">u8"),
        ("next_ms", ">u4"),
        ("ttl_ms", ">u4"),
        ("tag_low", "<u8"),
        ("tag_high", "<u8"),
    ]
)
assert _ACK_DTYPE.itemsize == FRAME_BYTES
_VOUCHING = np.zeros(16, bool)
_VOUCHING[[Code.OK, Code.EARLY, Code.RESYNC, Code.REKEY, Code.STANDBY]] = True


def build_acks(
    hasher: Siphasher,
    *,
    codes: Array,
    generation: Array,
    row: Array,
    seq: Array,
    t_ms: Array,
    next_ms: Array,
    ttl_ms: Array,
    key0: Array,
    key1: Array,
) -> Array:
    """n ACKs as uint8 of shape (n, 48). All arguments have shape (n,).

    ttl_ms: what the beat vouches for; told as 0 with a code that does not credit. A STOPPING beat's is 0.
    """
    acks = np.empty(len(codes), _ACK_DTYPE)
    acks["kind"] = ACK_BYTE
    acks["code"] = codes
    acks["generation"] = generation
    acks["row"] = row
    acks["seq"] = seq
    acks["server_ms"] = t_ms
    acks["next_ms"] = next_ms
    acks["ttl_ms"] = np.where(_VOUCHING[codes], ttl_ms, 0)
    limit = hasher.batch_max
    for start in range(0, len(acks), limit):
        part = acks[start : start + limit]
        words = np.ascontiguousarray(part.view("<u8").reshape(-1, 6)[:, :4].T)
        low, high = hasher.tags(key0[start : start + limit], key1[start : start + limit], words)
        part["tag_low"], part["tag_high"] = low, high
    return acks.view(np.uint8).reshape(len(acks), FRAME_BYTES)
