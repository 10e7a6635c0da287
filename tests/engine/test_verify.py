"""The vectorised verifier against WIRE.md's rules 1 and 2 and against the scalar codec."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.siphash import Siphasher
from engine.core.verify import BatchVerifier, Verified
from engine.rows import apply_spec
from engine.table import Table
from np1.codec import Code
from np1.siphash import siphash128
from tests.engine.rows_world import SECRETS, T0, frame, packed, session, spec, table


def verify(rows: Table, *frames: bytes, t_ms: int = T0) -> Verified:
    raw, lengths = packed(*frames)
    verifier = BatchVerifier(shard=rows.shard, shards=rows.shards, batch_max=8)
    return verifier.verify(raw, lengths, t_ms, rows.row.known[: rows.rows], rows.row.refused, rows.generation)


@given(
    st.lists(
        st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)),
        min_size=1,
        max_size=20,
    )
)
def test_the_vectorised_tag_is_the_scalar_one(pairs: list[tuple[bytes, bytes]]):
    keys = np.frombuffer(b"".join(key for key, _ in pairs), "<u8").reshape(-1, 2)
    words = np.ascontiguousarray(np.frombuffer(b"".join(m for _, m in pairs), "<u8").reshape(-1, 4).T)
    low, high = Siphasher(32).tags(keys[:, 0].copy(), keys[:, 1].copy(), words)
    made = np.stack([low, high], axis=1).astype("<u8").tobytes()
    assert made == b"".join(siphash128(key, message) for key, message in pairs)


def test_a_right_frame_is_accepted_with_what_it_says():
    found = verify(table(), frame(1, plane0=0b01, plane1=0b10))
    assert found.accepted.tolist() == [0]
    only = found.beats[0]
    assert (only["row"], only["generation"], only["plane0"], only["plane1"]) == (1, 1, 0b01, 0b10)
    assert (only["t_ms"], only["slots"], only["seq"]) == (T0, 0b11, T0 << 16)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(1)[:47], "length"),
        (frame(1) + b"x", "length"),
        (b"", "length"),
        (b"\x21" + frame(1)[1:], "version"),
        (b"\x12" + frame(1)[1:], "type"),
        (frame(1)[:1] + b"\x04" + frame(1)[2:], "flags"),
        (frame(9), "row"),
        (frame(1, generation=2), "generation"),
        (frame(1, with_key=b"k" * 16), "tag"),
        (frame(1)[:-1] + bytes([frame(1)[-1] ^ 1]), "tag"),
    ],
)
def test_each_wrong_frame_is_counted_by_its_first_reason(data: bytes, reason: str):
    found = verify(table(), frame(2), data, frame(3))
    assert found.rejects == {reason: 1}
    assert found.accepted.tolist() == [0, 2]
    assert not len(found.refused)


def test_of_two_copies_in_one_batch_exactly_one_is_accepted():
    rows = table()
    found = verify(rows, frame(1), frame(2), frame(1), frame(1, counter=1))
    assert found.accepted.tolist() == [0, 1, 3]
    assert found.refused.tolist() == [2]
    assert found.refused_codes.tolist() == [Code.STALE]
    assert rows.generation.last_seq[2 * 1 + 1] == (T0 << 16) + 1


def test_a_replayed_frame_is_stale_in_every_later_batch():
    rows = table()
    verify(rows, frame(1, counter=5))
    assert verify(rows, frame(1, counter=5)).refused_codes.tolist() == [Code.STALE]
    assert verify(rows, frame(1, counter=4)).refused_codes.tolist() == [Code.STALE]
    assert verify(rows, frame(1, counter=6)).accepted.tolist() == [0]


@pytest.mark.parametrize(
    ("off_ms", "right"), [(90_000, True), (90_001, False), (-90_000, True), (-90_001, False)]
)
def test_the_clock_window_is_ninety_seconds_on_both_sides(off_ms: int, right: bool):
    rows = table()
    found = verify(rows, frame(1, T0 + off_ms))
    assert len(found.accepted) == right
    if not right:
        assert found.refused_codes.tolist() == [Code.CLOCK]
        assert rows.generation.last_seq[3] == 0, "a refused seq is not remembered"


def test_a_stale_frame_outside_the_window_is_told_clock():
    rows = table()
    verify(rows, frame(1, counter=9))
    assert verify(rows, frame(1, T0 - 100_000)).refused_codes.tolist() == [Code.CLOCK]


def test_the_previous_generation_is_honoured_beside_the_current_until_its_end():
    rows = table()
    now = session(2, opened_ms=T0)
    apply_spec(rows, spec(1, current=now, previous=session(1)), SECRETS)
    assert verify(rows, frame(1), frame(1, generation=2)).accepted.tolist() == [0, 1]
    late = verify(rows, frame(1, T0 + 60_000), frame(1, T0 + 60_000, generation=2), t_ms=T0 + 60_000)
    assert late.accepted.tolist() == [1]
    assert late.rejects == {"generation": 1}


def test_a_revoked_row_takes_nothing():
    rows = table()
    apply_spec(rows, spec(1, revoked=True, current=None), SECRETS)
    assert verify(rows, frame(1)).rejects == {"generation": 1}


def test_bits_outside_the_map_are_cut_off_and_counted():
    found = verify(table(), frame(1, plane0=0b1111, plane1=0b10100))
    assert (found.beats[0]["plane0"], found.beats[0]["plane1"]) == (0b11, 0)
    assert found.stray_bits == 3


def test_frames_of_other_shards_are_set_aside():
    rows = table(6, shard=1, shards=2)
    found = verify(rows, frame(1), frame(2), frame(3))
    assert found.accepted.tolist() == [0, 2]
    assert found.foreign.tolist() == [1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=20))
def test_any_bytes_are_survived_and_none_is_accepted(datagrams: list[bytes]):
    found = verify(table(), *datagrams)
    assert not len(found.accepted)
    assert not len(found.refused)
    assert sum(found.rejects.values()) == len(datagrams)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(-2, 1)), max_size=40))
def test_a_batch_is_judged_as_its_frames_one_by_one(plan: list[tuple[int, int, int]]):
    frames = [frame(row, T0 + 60_000 * minutes, counter=counter) for row, counter, minutes in plan]
    together, apart = table(), table()
    expected = [len(verify(apart, each).accepted) == 1 for each in frames]
    accepted = set(verify(together, *frames).accepted.tolist()) if frames else set()
    assert [number in accepted for number in range(len(frames))] == expected
    assert (together.generation.last_seq == apart.generation.last_seq).all()
