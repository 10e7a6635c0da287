"""How `sealed_row.hours` is written: what each hour of a day was, a few bytes for a day of one kind.

The hours in order, as a sequence of:
- ``k n`` with k < 12: n hours that were KINDS[k] from beginning to end;
- ``12 n``: n hours of which nothing is told (outside of life, or of a source that tells days only);
- ``128 + m`` and m times ``k``, three bytes (big-endian): one hour, of m kinds that many milliseconds each.

A day that was `up` throughout is two bytes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from engine.core.compose_hours import HOUR_MS
from engine.core.records import KINDS
from engine.core.sealed import HOURS

_NOTHING, _MIXED = len(KINDS), 0x80
_MS_BYTES = 3


def encode_hours(hours: np.ndarray) -> list[bytes]:
    """The coding of each workload's hours; `hours`: int64 of shape (n, 24, kinds), sums at most an hour."""
    # Most days are of one kind: whatever the first hour was throughout.
    first = hours[:, 0].argmax(axis=1)
    alike = (hours[np.arange(len(hours)), :, first] == HOUR_MS).all(axis=1)
    coded = [bytes((kind, HOURS)) for kind in first.tolist()]
    mixed = np.flatnonzero(~alike)
    others = hours[mixed]
    # Of each hour the one kind it was throughout, 12 for nothing, -1 for several.
    whole = others == HOUR_MS
    code = np.where(whole.any(axis=2), whole.argmax(axis=2), np.where(others.any(axis=2), -1, _NOTHING))
    for place, codes, hour in zip(mixed.tolist(), code.tolist(), others, strict=True):
        coded[place] = _encode(codes, hour)
    return coded


def _encode(codes: list[int], hours: np.ndarray) -> bytes:
    coded = bytearray()
    run = -1  # where the present run's length stands
    for hour, code in enumerate(codes):
        if code < 0:
            kinds = [(kind, ms) for kind, ms in enumerate(hours[hour].tolist()) if ms]
            coded.append(_MIXED + len(kinds))
            for kind, ms in kinds:
                coded.append(kind)
                coded += ms.to_bytes(_MS_BYTES, "big")
            run = -1
        elif run >= 0 and coded[run - 1] == code:
            coded[run] += 1
        else:
            coded += bytes((code, 1))
            run = len(coded) - 1
    return bytes(coded)


@lru_cache(maxsize=1024)
def decode_hours(coded: bytes) -> np.ndarray:
    """Milliseconds of each kind in each hour, shape (24, kinds), as big-endian u32; not to be written to.

    ValueError for what is no such coding.
    """
    hours = np.zeros((HOURS, len(KINDS)), ">u4")
    hour = at = 0
    try:
        while at < len(coded):
            tag = coded[at]
            if tag >= _MIXED:
                for first in range(at + 1, at + 1 + (tag - _MIXED) * (1 + _MS_BYTES), 1 + _MS_BYTES):
                    ms = int.from_bytes(coded[first + 1 : first + 1 + _MS_BYTES], "big")
                    hours[hour, coded[first]] = ms
                at += 1 + (tag - _MIXED) * (1 + _MS_BYTES)
                hour += 1
                continue
            many = coded[at + 1]
            if tag != _NOTHING:
                hours[hour : hour + many, tag] = HOUR_MS
            hour += many
            at += 2
    except IndexError as error:
        raise ValueError("no coding of hours") from error
    if hour != HOURS:
        raise ValueError(f"a coding of {hour} hours")
    hours.flags.writeable = False
    return hours
