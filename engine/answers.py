"""From a settled group of beats to everyone's answer: codes, times and ACK frames.

A group is what one commit took. Each submission in it waits with a callback; it is told what became of its
own beats once the commit has settled, well or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.core.acks import build_acks
from engine.core.siphash import Siphasher
from np1.codec import FLAG_NO_ACK, FLAG_STOPPING, FRAME_BYTES, Code

Array = npt.NDArray[Any]

_NO_ACKS = np.empty((0, FRAME_BYTES), np.uint8)


class Keys(NamedTuple):
    """The session keys of some beats, kept from their verification."""

    low: Array
    high: Array


class Outcome(NamedTuple):
    """What became of one submission's beats; arrays of one entry per beat, but for `acks`."""

    codes: Array
    t_ms: Array  # with which each was recorded
    next_ms: Array
    ttl_ms: Array  # what each vouches for; 0 for STOPPING
    acks: Array  # (m, 48): the ACK frames of those that are told by frame
    told: Array  # bool: which these are


class Waiting(NamedTuple):
    """Accepted beats of one submission, and whom to tell what became of them."""

    beats: Array  # BEAT_DTYPE
    keys: Keys | None  # None: beats without seq, answered without an ACK frame
    decided: Callable[[Outcome], None]
    datagrams: bool = False  # NO_ACK is heeded


def nobody_asks(group: list[Waiting], beats: Array, codes: Array) -> bool:
    """Whether there is no one to tell: all are quiet datagrams whose beats went well."""
    datagrams = all(waiting.datagrams for waiting in group)
    return datagrams and bool(((beats["flags"] & FLAG_NO_ACK != 0) & (codes <= Code.EARLY)).all())


def tell(
    hasher: Siphasher, group: list[Waiting], beats: Array, codes: Array, t_ms: Array, next_ms: Array
) -> None:
    """Tell every submission of a group. `beats` are those of the group, in its order; all shapes (n,)."""
    ttl_ms = np.where(beats["flags"] & FLAG_STOPPING != 0, 0, beats["ttl_ms"])
    told = _told(group, beats, codes)
    acks = _acks(hasher, group, beats, codes, t_ms, next_ms, ttl_ms, told)
    start = sent = 0
    for waiting in group:
        end = start + len(waiting.beats)
        own, mask = codes[start:end], told[start:end]
        number = int(np.count_nonzero(mask))
        waiting.decided(
            Outcome(
                own, t_ms[start:end], next_ms[start:end], ttl_ms[start:end], acks[sent : sent + number], mask
            )
        )
        start, sent = end, sent + number


def _told(group: list[Waiting], beats: Array, codes: Array) -> Array:
    """Which beats get an ACK frame: none without seq, and no quiet datagram whose beat went well."""
    told: Array = (beats["flags"] & FLAG_NO_ACK == 0) | (codes > Code.EARLY)
    start = 0
    for waiting in group:
        end = start + len(waiting.beats)
        if not waiting.datagrams:
            told[start:end] = waiting.keys is not None
        start = end
    return told


def _no_keys(count: int) -> Keys:
    """In the place of the keys of beats without seq, so that keys and beats stay in step."""
    blank = np.zeros(count, np.uint64)
    return Keys(blank, blank)


def _acks(
    hasher: Siphasher,
    group: list[Waiting],
    beats: Array,
    codes: Array,
    t_ms: Array,
    next_ms: Array,
    ttl_ms: Array,
    told: Array,
) -> Array:
    if not told.any():
        return _NO_ACKS
    keys = [waiting.keys or _no_keys(len(waiting.beats)) for waiting in group]
    low = np.concatenate([key.low for key in keys])
    high = np.concatenate([key.high for key in keys])
    if not told.all():
        beats, codes, t_ms = beats.compress(told), codes[told], t_ms[told]
        next_ms, ttl_ms, low, high = next_ms[told], ttl_ms[told], low[told], high[told]
    return build_acks(
        hasher,
        codes=codes,
        generation=beats["generation"],
        row=beats["row"],
        seq=beats["seq"],
        t_ms=t_ms,
        next_ms=next_ms,
        ttl_ms=ttl_ms,
        key0=low,
        key1=high,
    )
