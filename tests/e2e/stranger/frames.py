"""BEAT and ACK, 48 bytes each, written out from the tables of the wire contract."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from tests.e2e.stranger.siphash import siphash128

BEAT_BYTES = 48
NOTHING = bytes(48)  # what HTTP gives for a frame that UDP would drop in silence
NO_ACK, STOPPING = 1, 2
ABSENT, HEALTHY, UNHEALTHY, UPDATING = 0, 1, 2, 3
OK, EARLY, STALE, CLOCK, RESYNC, REKEY, MOVED, BUSY, STANDBY = range(9)


class Ack(NamedTuple):
    code: int
    generation: int
    row: int
    seq: int
    t_ms: int
    next_ms: int
    ttl_ms: int


def beat(
    key: bytes,
    *,
    row: int,
    generation: int,
    seq: int,
    states: Mapping[int, int],
    flags: int = 0,
    first_byte: int = 0x11,
) -> bytes:
    """One signed BEAT; `states` by slot number."""
    plane0 = sum((state & 1) << slot for slot, state in states.items())
    plane1 = sum((state >> 1) << slot for slot, state in states.items())
    head = struct.pack(">BBHIQQQ", first_byte, flags, generation, row, seq, plane0, plane1)
    return head + siphash128(key, head)


def read_ack(key: bytes, frame: bytes) -> Ack:
    """Check every byte that the contract fixes; AssertionError where one is off."""
    assert len(frame) == 48, frame.hex()
    assert frame[0] == 0x12, frame.hex()
    assert siphash128(key, frame[:32]) == frame[32:], f"tag of {frame.hex()}"
    return Ack(*struct.unpack(">BHIQQII", frame[1:32]))
