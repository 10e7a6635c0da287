"""The coding of a sealed row's hours: what is read is what was written, and a day of one kind is tiny."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.compose_hours import HOUR_MS
from engine.core.records import KINDS
from storage.seal_hours import decode_hours, encode_hours


def _hour(rng: Random) -> np.ndarray:
    hour = np.zeros(len(KINDS), np.int64)
    match rng.randrange(4):
        case 0:
            hour[rng.randrange(len(KINDS))] = HOUR_MS
        case 1:
            left = rng.randint(1, HOUR_MS)
            for kind in rng.sample(range(len(KINDS)), rng.randint(1, len(KINDS))):
                hour[kind] = rng.randint(0, left)
                left -= int(hour[kind])
        case 2:
            hour[1] = HOUR_MS
    return hour


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_what_is_read_is_what_was_written(rng: Random) -> None:
    hours = np.array([[_hour(rng) for _ in range(24)] for _ in range(5)])
    for coded, of in zip(encode_hours(hours), hours, strict=True):
        assert (decode_hours(coded) == of).all()


def test_a_day_of_one_kind_is_two_bytes() -> None:
    hours = np.zeros((2, 24, len(KINDS)), np.int64)
    hours[0, :, KINDS.index("up")] = HOUR_MS
    assert [len(coded) for coded in encode_hours(hours)] == [2, 2]


@pytest.mark.parametrize(
    "coded", [b"", b"\x01\x17", b"\x01\x19", b"\x81\x01", b"\x01", b"\x01\x17\x81\x0c\0\0\0"]
)
def test_what_is_no_coding_is_refused(coded: bytes) -> None:
    with pytest.raises(ValueError, match="coding"):
        decode_hours(coded)
