"""The beats that were never acknowledged, in a file that survives the manager: appended to, checked, bounded.

A beat is written when it is sent (a manager that is killed has then lost none) and taken back when it is
acknowledged. The file is synced only for beats that went unacknowledged: the others are worth nothing after a
power cut. When nothing is kept the file is cut to its head, so that a healthy node writes in place.

Record: kind (u8: 1 kept, 2 done), at_ms, plane0, plane1 (u64), generation (u16), CRC-32 of what lies before.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from np1.session import BackfillBeat

log = logging.getLogger(__name__)
HEAD = b"NPKEPT1\n"
_FIELDS, _CRC = struct.Struct(">BQQQH"), struct.Struct(">I")
RECORD_BYTES = _FIELDS.size + _CRC.size
KEPT, DONE = 1, 2


class KeptBeats:
    """At most `bytes_max` on disk and `age_s_max` old; the oldest are dropped first, and counted.

    A disk that cannot be written loses nothing while the process lives: all is written anew once it can be.
    """

    def __init__(self, path: Path, *, bytes_max: int, age_s_max: int) -> None:
        self._path = path
        self._records_max = (bytes_max - len(HEAD)) // RECORD_BYTES
        self._beats_max = self._records_max * 3 // 4  # the rest is room, or each beat would write all anew
        self._age_ms_max = age_s_max * 1000
        self._beats: dict[BackfillBeat, None] = {}  # in the order of their sending
        self._in_flight: set[BackfillBeat] = set()
        self._records = 0  # in the file
        self._behind = False
        self.dropped = 0
        self.write_failures = 0
        self.bytes_cut = 0  # of a torn tail
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._load()

    def __len__(self) -> int:
        return len(self._beats) - len(self._in_flight)

    @property
    def oldest_ms(self) -> int | None:
        return next((beat.at_ms for beat in self._beats if beat not in self._in_flight), None)

    def close(self) -> None:
        os.close(self._file)

    def follow(self, *, in_flight: Iterable[BackfillBeat], settled: Sequence[BackfillBeat]) -> bool:
        """Take in what the client keeps now; True when there is something worth a `sync`.

        settled: never acknowledged, and in our hands from now on. What was in flight and is neither any more
        was acknowledged.
        """
        now = set(in_flight)
        acknowledged = self._in_flight - now - set(settled)
        new = [beat for beat in (*settled, *sorted(now, key=_time)) if beat not in self._beats]
        for beat in acknowledged:
            del self._beats[beat]
        self._beats.update(dict.fromkeys(new))
        self._in_flight = now
        self._drop_oldest()
        self._write([(DONE, beat) for beat in acknowledged] + [(KEPT, beat) for beat in new])
        return bool(settled)

    def settled(self, beats_max: int) -> list[BackfillBeat]:
        """The oldest that may be handed in, in order of time."""
        return sorted((beat for beat in self._beats if beat not in self._in_flight), key=_time)[:beats_max]

    def handed_in(self, beats: Iterable[BackfillBeat]) -> None:
        """These are in the server's hands."""
        done = [beat for beat in beats if beat in self._beats]
        for beat in done:
            del self._beats[beat]
        self._write([(DONE, beat) for beat in done])

    def sync(self) -> None:
        """Have the disk hold what was written. Blocking."""
        try:
            os.fsync(self._file)
        except OSError as error:
            self._failed(error)

    # -- the file -----------------------------------------------------------------------------------

    def _load(self) -> None:
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if not data.startswith(HEAD):
            self.bytes_cut = len(data)
            self._rewrite()
            return
        for kind, beat in _read(data):
            self._records += 1
            if kind == KEPT:
                self._beats[beat] = None
            else:
                self._beats.pop(beat, None)
        self.bytes_cut = len(data) - len(HEAD) - self._records * RECORD_BYTES
        if self.bytes_cut:
            os.ftruncate(self._file, len(HEAD) + self._records * RECORD_BYTES)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        newest_ms = max((beat.at_ms for beat in self._beats), default=0)
        too_many = len(self._beats) - self._beats_max
        old = []
        for at, beat in enumerate(self._beats):
            if at >= too_many and newest_ms - beat.at_ms <= self._age_ms_max:
                break
            old.append(beat)
        for beat in old:
            del self._beats[beat]
            self._in_flight.discard(beat)
        self.dropped += len(old)

    def _write(self, records: list[tuple[int, BackfillBeat]]) -> None:
        if not records and not self._behind:
            return
        try:
            if not self._beats:
                os.ftruncate(self._file, len(HEAD))
                self._records, self._behind = 0, False
            elif self._behind or self._records + len(records) > self._records_max:
                self._rewrite()
            else:
                data = b"".join(_packed(kind, beat) for kind, beat in records)
                _write_all(self._file, data, len(HEAD) + self._records * RECORD_BYTES)
                self._records += len(records)
        except OSError as error:
            self._failed(error)

    def _rewrite(self) -> None:
        """The file anew, with only what is kept; there whole or as before."""
        beside = self._path.with_name(self._path.name + ".new")
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, HEAD + b"".join(_packed(KEPT, beat) for beat in self._beats), 0)
            os.fsync(file)
            beside.replace(self._path)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._records, self._behind = file, len(self._beats), False

    def _failed(self, error: OSError) -> None:
        if not self._behind:
            log.error("%s: %s; beats are kept in memory until it can be written", self._path, error.strerror)
        self._behind = True
        self.write_failures += 1


def _time(beat: BackfillBeat) -> int:
    return beat.at_ms


def _packed(kind: int, beat: BackfillBeat) -> bytes:
    head = _FIELDS.pack(kind, beat.at_ms, beat.plane0, beat.plane1, beat.generation)
    return head + _CRC.pack(zlib.crc32(head))


def _read(data: bytes) -> Iterator[tuple[int, BackfillBeat]]:
    """The records up to the first that is not whole."""
    for at in range(len(HEAD), len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        head = data[at : at + _FIELDS.size]
        if zlib.crc32(head) != _CRC.unpack_from(data, at + _FIELDS.size)[0]:
            return
        kind, at_ms, plane0, plane1, generation = _FIELDS.unpack(head)
        beat = BackfillBeat(at_ms=at_ms, plane0=plane0, plane1=plane1, generation=generation)
        yield kind, beat


def _write_all(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
