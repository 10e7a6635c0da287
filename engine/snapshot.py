"""Snapshots of a shard: the columns and what little else a replay needs, at a position of the journal.

A file is a msgpack header, the columns' bytes and a CRC over all. It is written beside its place, synced and
renamed, so a snapshot is whole or not there; the one before it is kept until the next.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from engine.core.breaker import Phase
from engine.core.records import Gap, Window
from engine.journal_blocks import Tick

Array = npt.NDArray[Any]

SUFFIX = ".snapshot"
VERSION = 1
_KEPT = 2
_ENTRIES_AT_ONCE = 65_536


class ColumnHeader(msgspec.Struct, frozen=True):
    group: str  # row | generation | slot
    name: str
    dtype: str
    length: int


class SnapshotHeader(msgspec.Struct, frozen=True):
    """All of a snapshot but its columns."""

    version: int
    position: int  # of the journal: everything before it is contained
    shard: int
    shards: int
    rows: int
    slots: int
    projects: list[str]
    gap_ends: list[int]
    gaps: list[Gap]
    detached: list[int]
    phase: Phase
    phase_since_ms: int
    registry_position: int
    tick: Tick  # the shard listened till then; its `last`: and was stopped in order
    columns: list[ColumnHeader] = []
    windows: dict[int, list[Window]] = {}  # by row index; the registry tells only of what changes
    listened_ms: int | None = None  # until when it listened, where that is before the tick
    released: int = 0  # verdicts let through in the present phase of the breaker


class Snapshot(NamedTuple):
    header: SnapshotHeader
    columns: dict[str, dict[str, Array]]  # group -> name -> array


def write(directory: Path, snapshot: Snapshot) -> Path:
    """Write and sync a snapshot; older ones but the last are removed. OSError. Runs in a worker thread."""
    described = [
        ColumnHeader(group, name, array.dtype.str, len(array))
        for group, arrays in snapshot.columns.items()
        for name, array in arrays.items()
    ]
    header = msgspec.msgpack.encode(msgspec.structs.replace(snapshot.header, columns=described))
    path = directory / f"{snapshot.header.position:020d}{SUFFIX}"
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            crc = 0
            for part in chain((len(header).to_bytes(8, "little"), header), _bytes_of(snapshot)):
                crc = zlib.crc32(part, crc)
                file.write(part)
            file.write(crc.to_bytes(4, "little"))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    fresh.rename(path)
    folder = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    for old in _files(directory)[:-_KEPT]:
        old.unlink()
    return path


def _bytes_of(snapshot: Snapshot) -> Iterator[bytes]:
    for group in snapshot.columns.values():
        for array in group.values():
            # In pieces: to gather a whole strided column keeps the interpreter from the loop for 30 ms.
            for start in range(0, len(array), _ENTRIES_AT_ONCE):
                yield array[start : start + _ENTRIES_AT_ONCE].tobytes()


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


def count(directory: Path) -> int:
    """How many there are, whole or not."""
    return len(_files(directory))


def oldest_position(directory: Path) -> int:
    """The position of the oldest snapshot that is kept; 0 when there is none."""
    found = _files(directory)
    return int(found[0].stem) if found else 0


def load(directory: Path) -> Snapshot | None:
    """The newest snapshot that is whole; None when there is none."""
    for path in reversed(_files(directory)):
        snapshot = _read(path)
        if snapshot is not None:
            return snapshot
    return None


def _read(path: Path) -> Snapshot | None:
    data = path.read_bytes()
    view = memoryview(data)
    if len(view) < 12 or zlib.crc32(view[:-4]) != int.from_bytes(view[-4:], "little"):
        return None
    length = int.from_bytes(view[:8], "little")
    header = msgspec.msgpack.decode(view[8 : 8 + length], type=SnapshotHeader)
    if header.version != VERSION:
        return None
    at = 8 + length
    columns: dict[str, dict[str, Array]] = {"row": {}, "generation": {}, "slot": {}}
    for column in header.columns:
        dtype = np.dtype(column.dtype)
        array = np.frombuffer(data, dtype, column.length, at)
        at += array.nbytes
        columns[column.group][column.name] = array
    return Snapshot(header, columns)
