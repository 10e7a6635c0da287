"""The scalar codec: round trips, totality on any bytes, and what an encoder will not write."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from np1.codec import (
    CODE_PRECEDENCE,
    CREDITING,
    FRAME_BYTES,
    SLOTS,
    Ack,
    Beat,
    Code,
    FrameRejectedError,
    Reject,
    State,
    decode_ack,
    decode_beat,
    encode_ack,
    encode_beat,
    peek,
    peek_seq,
    planes,
    state_of,
)

KEY = bytes(range(16))
u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
keys = st.binary(min_size=16, max_size=16)
beats = st.builds(Beat, st.integers(0, 3), u16, u32, u64, u64, u64)
acks = st.builds(Ack, st.sampled_from(Code), u16, u32, u64, u64, u32, u32)


@given(beats, keys)
def test_a_beat_survives_its_encoding(beat, key):
    frame = encode_beat(beat, key)
    assert len(frame) == FRAME_BYTES
    assert decode_beat(frame, key) == beat
    assert peek(frame) == (beat.generation, beat.row)
    assert peek_seq(frame) == beat.seq


@given(acks, keys)
def test_an_ack_survives_its_encoding(ack, key):
    frame = encode_ack(ack, key)
    assert len(frame) == FRAME_BYTES
    assert decode_ack(frame, key) == ack
    assert peek(frame) == (ack.generation, ack.row)


@given(st.binary(max_size=200) | st.binary(min_size=48, max_size=48))
@example(b"")
@example(b"\x11" + bytes(47))
@example(b"\x12" + bytes(47))
def test_any_bytes_are_decoded_or_rejected_and_never_anything_else(data):
    for decode in (decode_beat, decode_ack):
        with pytest.raises(FrameRejectedError) as caught:
            decode(data, KEY)  # nobody finds a tag by chance
        assert isinstance(caught.value.reason, Reject)


@given(beats, st.integers(0, FRAME_BYTES * 8 - 1))
def test_one_flipped_bit_anywhere_is_noticed(beat, bit):
    frame = bytearray(encode_beat(beat, KEY))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameRejectedError):
        decode_beat(bytes(frame), KEY)


@given(beats, st.integers(0, 200))
def test_a_truncated_or_lengthened_frame_is_a_wrong_length(beat, length):
    frame = (encode_beat(beat, KEY) * 5)[:length]
    if length != FRAME_BYTES:
        for read in (lambda: decode_beat(frame, KEY), lambda: peek(frame), lambda: peek_seq(frame)):
            with pytest.raises(FrameRejectedError) as caught:
                read()
            assert caught.value.reason is Reject.LENGTH


@given(st.dictionaries(st.integers(0, SLOTS - 1), st.sampled_from(State)))
def test_planes_hold_the_state_of_every_slot(states):
    plane0, plane1 = planes(states)
    for slot in range(SLOTS):
        assert state_of(plane0, plane1, slot) is states.get(slot, State.ABSENT)


@pytest.mark.parametrize("slot", [-1, 64])
def test_a_slot_outside_the_row_has_no_place_in_the_planes(slot):
    with pytest.raises(ValueError, match="outside"):
        planes({slot: State.HEALTHY})


@pytest.mark.parametrize(
    "beat",
    [
        Beat(4, 1, 1, 1, 0, 0),
        Beat(0, 1 << 16, 1, 1, 0, 0),
        Beat(0, 1, 1 << 32, 1, 0, 0),
        Beat(0, 1, 1, -1, 0, 0),
        Beat(0, 1, 1, 1, 0, 1 << 64),
    ],
)
def test_a_beat_that_does_not_fit_is_not_encoded(beat):
    with pytest.raises(ValueError, match=r"unknown flags|does not fit"):
        encode_beat(beat, KEY)


def test_an_ack_that_does_not_fit_is_not_encoded():
    with pytest.raises(ValueError, match="does not fit"):
        encode_ack(Ack(Code.OK, 1, 1, 1, 1, 1 << 32, 1), KEY)


def test_the_codes_stand_as_the_wire_document_numbers_them():
    names = ["OK", "EARLY", "STALE", "CLOCK", "RESYNC", "REKEY", "MOVED", "BUSY", "STANDBY"]
    assert [code.name for code in sorted(Code)] == names


def test_precedence_names_every_code_once_and_refusals_first():
    assert sorted(CODE_PRECEDENCE) == sorted(Code)
    assert [code.name for code in CODE_PRECEDENCE] == [
        "CLOCK",
        "STALE",
        "MOVED",
        "BUSY",
        "REKEY",
        "RESYNC",
        "STANDBY",
        "EARLY",
        "OK",
    ]
    assert set(CODE_PRECEDENCE[4:]) == CREDITING
