"""The two NP1 frames, one at a time: bytes to records and back (WIRE.md, BEAT and ACK).

Total on any bytes: a decoder returns a record or raises `FrameRejectedError` with the first reason that
applies, in the order of WIRE.md, rules of the server 1. Whether a sequence number may be accepted is not
judged here. The engine's batch verifier is another implementation of the same rules (engine/core).
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple, NoReturn

from np1.siphash import TAG_BYTES, siphash128

FRAME_BYTES = 48
HEAD_BYTES = FRAME_BYTES - TAG_BYTES
VERSION = 1
BEAT_BYTE = 0x11
ACK_BYTE = 0x12
FLAG_NO_ACK = 1
FLAG_STOPPING = 2
FLAGS_MASK = FLAG_NO_ACK | FLAG_STOPPING
SLOTS = 64
REFUSED = bytes(FRAME_BYTES)  # over HTTP, in place of the ACK of a frame that UDP would drop in silence

_BEAT = struct.Struct("!BBHIQQQ")
_ACK = struct.Struct("!BBHIQQII")
_ADDRESS = struct.Struct("!2xHI")


class Code(IntEnum):
    """What an ACK says (WIRE.md, ACK)."""

    OK = 0
    EARLY = 1
    STALE = 2
    CLOCK = 3
    RESYNC = 4
    REKEY = 5
    MOVED = 6
    BUSY = 7
    STANDBY = 8


# The codes after which the beat is durable (STANDBY: recorded, credited in part).
CREDITING: frozenset[Code] = frozenset({Code.OK, Code.EARLY, Code.RESYNC, Code.REKEY, Code.STANDBY})

# Where several apply, the first of these is told: the refusing ones among themselves, then the crediting.
CODE_PRECEDENCE: tuple[Code, ...] = (
    Code.CLOCK,
    Code.STALE,
    Code.MOVED,
    Code.BUSY,
    Code.REKEY,
    Code.RESYNC,
    Code.STANDBY,
    Code.EARLY,
    Code.OK,
)


class State(IntEnum):
    """What a beat says of one slot: ``2 * plane1 + plane0``."""

    ABSENT = 0
    HEALTHY = 1
    UNHEALTHY = 2
    UPDATING = 3


class Reject(StrEnum):
    """Why a frame was not taken, in the order of the checks. `CODE` is for ACKs only, `FLAGS` for BEATs."""

    LENGTH = "length"
    VERSION = "version"
    TYPE = "type"
    FLAGS = "flags"
    CODE = "code"
    ROW = "row"
    GENERATION = "generation"
    TAG = "tag"


class FrameRejectedError(Exception):
    """The bytes are not a frame that may be believed; `reason` is the first check that failed."""

    def __init__(self, reason: Reject) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Beat(NamedTuple):
    """A BEAT without its tag; `seq` is ``(server unix ms << 16) | counter``."""

    flags: int
    generation: int
    row: int
    seq: int
    plane0: int
    plane1: int


class Ack(NamedTuple):
    """An ACK without its tag; `server_ms` is the receive time of the beat, unix ms."""

    code: Code
    generation: int
    row: int
    seq: int
    server_ms: int
    next_ms: int
    ttl_ms: int


def sign(head: bytes, key: bytes) -> bytes:
    """The 32 bytes of a frame's head with their tag behind them. Nothing in the head is checked."""
    return head + siphash128(key, head)


def encode_beat(beat: Beat, key: bytes) -> bytes:
    """The 48 bytes of a BEAT. ValueError when a field does not fit."""
    if beat.flags & ~FLAGS_MASK:
        raise ValueError(f"unknown flags {beat.flags:#x}")
    try:
        return sign(_BEAT.pack(BEAT_BYTE, *beat), key)
    except struct.error as error:
        raise ValueError(f"does not fit a BEAT: {beat}") from error


def encode_ack(ack: Ack, key: bytes) -> bytes:
    """The 48 bytes of an ACK. ValueError when a field does not fit."""
    try:
        return sign(_ACK.pack(ACK_BYTE, *ack), key)
    except struct.error as error:
        raise ValueError(f"does not fit an ACK: {ack}") from error


def peek(frame: bytes) -> tuple[int, int]:
    """(generation, row) of a BEAT or ACK of the right length, nothing else checked.

    Whoever looks up the key needs them first. FrameRejectedError(LENGTH) otherwise.
    """
    if len(frame) != FRAME_BYTES:
        raise FrameRejectedError(Reject.LENGTH)
    generation, row = _ADDRESS.unpack_from(frame)
    return generation, row


def peek_seq(frame: bytes) -> int:
    """The seq of a BEAT or ACK of the right length, nothing else checked; FrameRejectedError(LENGTH)."""
    if len(frame) != FRAME_BYTES:
        raise FrameRejectedError(Reject.LENGTH)
    return int.from_bytes(frame[8:16], "big")


def _reject(reason: Reject) -> NoReturn:
    raise FrameRejectedError(reason)


def _check_kind(frame: bytes, kind: int) -> None:
    if len(frame) != FRAME_BYTES:
        _reject(Reject.LENGTH)
    if frame[0] >> 4 != VERSION:
        _reject(Reject.VERSION)
    if frame[0] != kind:
        _reject(Reject.TYPE)


def _check_origin(
    frame: bytes, key: bytes, found: tuple[int, int], row: int | None, generation: int | None
) -> None:
    if row is not None and found[1] != row:
        _reject(Reject.ROW)
    if generation is not None and found[0] != generation:
        _reject(Reject.GENERATION)
    if not hmac.compare_digest(siphash128(key, frame[:HEAD_BYTES]), frame[HEAD_BYTES:]):
        _reject(Reject.TAG)


def decode_beat(frame: bytes, key: bytes, *, row: int | None = None, generation: int | None = None) -> Beat:
    """The BEAT in 48 bytes. `row` and `generation`, when given, are those that `key` belongs to."""
    frame = bytes(frame)
    _check_kind(frame, BEAT_BYTE)
    beat = Beat._make(_BEAT.unpack_from(frame)[1:])
    if beat.flags & ~FLAGS_MASK:
        _reject(Reject.FLAGS)
    _check_origin(frame, key, (beat.generation, beat.row), row, generation)
    return beat


def decode_ack(frame: bytes, key: bytes, *, row: int | None = None, generation: int | None = None) -> Ack:
    """The ACK in 48 bytes. `row` and `generation`, when given, are those that `key` belongs to."""
    frame = bytes(frame)
    _check_kind(frame, ACK_BYTE)
    code, *rest = _ACK.unpack_from(frame)[1:]
    if code > max(Code):
        _reject(Reject.CODE)
    ack = Ack(Code(code), *rest)
    _check_origin(frame, key, (ack.generation, ack.row), row, generation)
    return ack


def planes(states: Mapping[int, State]) -> tuple[int, int]:
    """(plane0, plane1) of the states by slot 0..63; slots left out are absent. ValueError otherwise."""
    plane0 = plane1 = 0
    for slot, state in states.items():
        if not 0 <= slot < SLOTS:
            raise ValueError(f"slot {slot} is outside 0 to {SLOTS - 1}")
        plane0 |= (state & 1) << slot
        plane1 |= (state >> 1) << slot
    return plane0, plane1


def state_of(plane0: int, plane1: int, slot: int) -> State:
    """What the planes say of one slot."""
    return State(2 * (plane1 >> slot & 1) + (plane0 >> slot & 1))
