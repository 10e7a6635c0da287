"""The binary records of the data plane: a beat as it is journaled, a verdict, a first report.

All are numpy structured types, little-endian and packed, so that a batch is one array and one write.

numpy copies structured records field by field when they are indexed or concatenated, at 20 to 60 ns each;
`take`, `compress` and `joined` move them as bytes at 1 to 3 ns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ORIGIN_FRAME, ORIGIN_PLAIN = 0, 1  # an NP1 frame (has a seq) or a JSON, ping or push beat (has none)

# An accepted beat. `slots` is the frozen map of the beat's generation, planes are cut to it; `t_ms` is the
# receive time and `ttl_ms` what this beat vouches for (LIVENESS.md 1): a replay needs nothing else.
BEAT_DTYPE = np.dtype(
    [
        ("row", "<u4"),
        ("generation", "<u2"),
        ("flags", "u1"),
        ("origin", "u1"),
        ("seq", "<u8"),
        ("plane0", "<u8"),
        ("plane1", "<u8"),
        ("slots", "<u8"),
        ("t_ms", "<i8"),
        ("ttl_ms", "<u4"),
        ("pad", "<u4"),
    ]
)
assert BEAT_DTYPE.itemsize == 56


def joined(batches: Sequence[Array]) -> Array:
    """Batches of beats one behind the other; of one batch alone it is that one, not a copy."""
    if len(batches) == 1:
        return batches[0]
    return np.concatenate([batch.view(np.uint8) for batch in batches]).view(BEAT_DTYPE)


# A verdict that came of silence or of a window (those that come of beats are recomputed from the beats).
# `basis_ms` is the last_t of the row that was judged: a replay recognises a verdict overtaken by a beat.
VERDICT_DTYPE = np.dtype(
    [
        ("row", "<u4"),
        ("state", "u1"),
        ("pad", "u1", (3,)),
        ("basis_ms", "<i8"),
        ("since_ms", "<i8"),
        ("window_end_ms", "<i8"),
    ]
)

FIRST_REPORT_DTYPE = np.dtype([("hi", ">u8"), ("lo", ">u8"), ("at_ms", "<i8")])

# What a shard says of a licensed workload (LIVENESS.md 5). `what` is an index into records.SHARD_SAYS.
SAY_DTYPE = np.dtype([("hi", ">u8"), ("lo", ">u8"), ("at_ms", "<i8"), ("what", "u1"), ("pad", "u1", (7,))])

# Refused beats of a node (hi, lo), so far in a run of its shard. `day`: since 1970. `reason`: into REASONS.
REFUSED_DTYPE = np.dtype(
    [
        ("hi", ">u8"),
        ("lo", ">u8"),
        ("run_ms", "<i8"),
        ("count", "<i8"),
        ("day", "<i4"),
        ("reason", "u1"),
        ("pad", "u1", (3,)),
    ]
)
