"""The journal's format on disk: segments of blocks, and how to read them back.

A segment is a file named after its position, the number of bytes of journal before it; it begins with an
OPENING block. A block is a 24-byte header and its payload, under one CRC. Positions never run back; a new
journal begins far above every older one, so that what Postgres remembers of an old one lies below it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Generator, Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.damaged import torn

_MAGIC = 0x314A504E  # "NPJ1"
_HEADER = struct.Struct("<IBBHIIq")
HEADER_BYTES = _HEADER.size
PAYLOAD_BYTES_MAX = 256 * 1024 * 1024
SUFFIX = ".journal"


class Kind(IntEnum):
    """What a block holds. The first group is what a replay applies, the second what goes to Postgres."""

    OPENING = 1
    BEATS = 2  # BEAT_DTYPE
    VERDICTS = 3  # VERDICT_DTYPE
    TICK = 4  # msgpack Tick
    REGISTRY = 5  # msgpack RegistryBlock
    BREAKER = 6  # msgpack BreakerBlock
    GAP = 7  # msgpack Gap; both groups
    HEIR = 8  # empty; the journal goes on from others' folders: without its first snapshot it tells nothing
    INTERVALS = 16  # INTERVAL_DTYPE
    EVENTS = 17  # msgpack list[Event]
    FIRST_REPORTS = 18  # FIRST_REPORT_DTYPE
    SAYS = 19  # SAY_DTYPE
    REFUSED = 20  # REFUSED_DTYPE


INPUT_KINDS = frozenset({Kind.BEATS, Kind.VERDICTS, Kind.TICK, Kind.REGISTRY, Kind.BREAKER, Kind.GAP})
OUTPUT_KINDS = frozenset({Kind.GAP, Kind.INTERVALS, Kind.EVENTS, Kind.FIRST_REPORTS, Kind.SAYS, Kind.REFUSED})


class Opening(msgspec.Struct, frozen=True):
    """The first block of a segment. What lies in the segment before it from its own position on was cut."""

    shard: int
    shards: int
    position: int
    boot_id: str


class Tick(msgspec.Struct, frozen=True):
    """Once a second: the shard was listening."""

    wall_ms: int
    boottime_ns: int
    boot_id: str
    last: bool = False  # written by an orderly stop


class Block(NamedTuple):
    kind: int
    t_ms: int
    payload: bytes
    position: int  # where it begins
    end: int  # where the next one begins


def encode(kind: Kind, t_ms: int, payload: bytes) -> bytes:
    """A whole block."""
    bare = _HEADER.pack(_MAGIC, kind, 1, 0, len(payload), 0, t_ms)
    crc = zlib.crc32(payload, zlib.crc32(bare))
    return _HEADER.pack(_MAGIC, kind, 1, 0, len(payload), crc, t_ms) + payload


class Segment(NamedTuple):
    path: Path
    position: int


def segments(directory: Path) -> list[Segment]:
    """The segments of a journal, oldest first."""
    found = [Segment(path, int(path.stem)) for path in directory.glob(f"*{SUFFIX}")]
    return sorted(found, key=lambda segment: segment.position)


def read(directory: Path, start: int, *, kinds: frozenset[int] | None = None) -> Iterator[Block]:
    """The blocks from `start` (0, or where a block begins), in order, up to the first torn or missing one.

    In the last segment that is where a crash cut it. DamagedError when it is in another one.

    `kinds`: only these; the others are passed over unread. A segment that was cut (a later one begins
    before its end) is read up to the cut. FileNotFoundError when `start` lies before the oldest segment.
    """
    found = segments(directory)
    if not found:
        return
    if start and start < found[0].position:
        raise FileNotFoundError(f"the journal begins at {found[0].position}, after {start}")
    for segment, after in zip(found, [*found[1:], None], strict=True):
        limit = after.position if after is not None else None
        if limit is not None and limit <= start:
            continue
        end = yield from _read_segment(segment, start, limit, kinds)
        if limit is not None and end != limit:
            raise torn(segment.path, end - segment.position)


def _read_segment(
    segment: Segment, start: int, limit: int | None, kinds: frozenset[int] | None
) -> Generator[Block, None, int]:
    position = max(segment.position, start)
    with segment.path.open("rb", buffering=1 << 20) as file:
        file.seek(position - segment.position)
        while limit is None or position < limit:
            header = file.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                return position
            magic, kind, _version, _, length, crc, t_ms = _HEADER.unpack(header)
            if magic != _MAGIC or length > PAYLOAD_BYTES_MAX:
                return position
            end = position + HEADER_BYTES + length
            if kinds is not None and kind not in kinds:
                file.seek(length, os.SEEK_CUR)
                position = end
                continue
            payload = file.read(length)
            bare = _HEADER.pack(magic, kind, 1, 0, length, 0, t_ms)
            if len(payload) < length or zlib.crc32(payload, zlib.crc32(bare)) != crc:
                return position
            yield Block(kind, t_ms, payload, position, end)
            position = end
    return position


def end_of(directory: Path, start: int = 0) -> int:
    """Where the journal's last whole block ends; 0 when there is no journal."""
    found = segments(directory)
    end = found[-1].position if found else 0
    for block in read(directory, max(start, end)):
        end = block.end
    return end
