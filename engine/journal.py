"""The local journal: what an ACK rests on (DESIGN.md, decision 6; WIRE.md, rule 3 of the server).

`append` collects blocks, `commit` writes all that was collected and syncs it. A failed write or sync is never
tried again on the same file: the file is cut to the last commit, the beats of that batch are given back to be
answered BUSY, everything else is kept for the next commit, and a new segment is begun.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from engine.journal_blocks import (
    OUTPUT_KINDS,
    SUFFIX,
    Block,
    Kind,
    Opening,
    encode,
    end_of,
    read,
    segments,
)

POSITION_PER_MS = 1 << 20  # a new journal begins at unix ms times this: above every older journal's end


class Files(Protocol):
    """The system calls that can fail; tests put faults here."""

    def create(self, path: Path, size: int) -> int: ...
    def write(self, fd: int, data: bytes, offset: int) -> None: ...
    def sync(self, fd: int) -> None: ...
    def cut(self, fd: int, size: int) -> None: ...
    def close(self, fd: int) -> None: ...


class DiskFiles:
    """The real ones. Segments are allocated whole, so that a full disk shows before beats are taken."""

    def create(self, path: Path, size: int) -> int:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def cut(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        os.close(fd)


class JournalStatistics(NamedTuple):
    position: int
    pending_blocks: int
    pending_bytes: int
    commits: int
    failures: int
    segments: int
    bytes_on_disk: int


class Journal:
    """One shard's journal. `append` is for the loop, `commit` for one worker thread at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        shard: int,
        shards: int,
        boot_id: str,
        segment_bytes: int,
        now_ms: int,
        files: Files | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._opening = Opening(shard=shard, shards=shards, position=0, boot_id=boot_id)
        self._segment_bytes = segment_bytes
        self._files: Files = files or DiskFiles()
        self._fd: int | None = None
        self._segment_start = 0
        self._segment_end = 0
        self._segment_commits = 0
        # Where a reader finds the last commit's end; a torn tail behind it is not read again.
        self.committed = end_of(directory) or now_ms * POSITION_PER_MS
        self.first = segments(directory)[0].position if segments(directory) else self.committed
        self._pending: list[tuple[Kind, bytes]] = []
        self._pending_bytes = 0
        self.appended = 0  # blocks ever appended; `settled` of them are committed or given back
        self.settled = 0
        self._commits = self._failures = 0

    def append(self, kind: Kind, t_ms: int, payload: bytes) -> int:
        """Collect a block for the next commit; the number of blocks appended so far."""
        block = encode(kind, t_ms, payload)
        self._pending.append((kind, block))
        self._pending_bytes += len(block)
        self.appended += 1
        return self.appended

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    def take(self) -> list[tuple[Kind, bytes]]:
        """What is to be committed now; the caller hands it to `commit` and then to `settle`."""
        taken, self._pending, self._pending_bytes = self._pending, [], 0
        return taken

    def commit(self, taken: list[tuple[Kind, bytes]]) -> None:
        """Write and sync. OSError: nothing of it counts. Runs in a worker thread."""
        data = b"".join(block for _, block in taken)
        try:
            if self._fd is None or self.committed + len(data) > self._segment_end:
                self._begin_segment(len(data))
            assert self._fd is not None
            self._files.write(self._fd, data, self.committed - self._segment_start)
            self._files.sync(self._fd)
        except OSError:
            self._abandon_segment()
            raise
        self.committed += len(data)
        self._segment_commits += 1

    def settle(self, taken: list[tuple[Kind, bytes]], *, written: bool) -> None:
        """Account for a commit. One that failed gives its beats back and keeps the rest for the next."""
        if written:
            self._commits += 1
            self.settled += len(taken)
            return
        self._failures += 1
        kept = [(kind, block) for kind, block in taken if kind != Kind.BEATS]
        self.settled += len(taken) - len(kept)
        self._pending = kept + self._pending
        self._pending_bytes += sum(len(block) for _, block in kept)

    def _begin_segment(self, size: int) -> None:
        opening = msgspec.structs.replace(self._opening, position=self.committed)
        block = encode(Kind.OPENING, 0, msgspec.msgpack.encode(opening))
        room = max(self._segment_bytes, len(block) + size)
        path = self.directory / f"{self.committed:020d}{SUFFIX}"
        if self._fd is not None:
            finished, self._fd = self._fd, None
            self._files.cut(finished, self.committed - self._segment_start)
            self._files.close(finished)
        path.unlink(missing_ok=True)  # one begun here that never held a commit
        fd = self._files.create(path, room)
        self._fd, self._segment_start, self._segment_end = fd, self.committed, self.committed + room
        self._segment_commits = 0
        self._files.write(fd, block, 0)
        self.committed += len(block)

    def _abandon_segment(self) -> None:
        """Cut to the last commit where the disk still lets us; the next segment's position cuts it anyway."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        if not self._segment_commits:
            # Its opening was never synced: the next segment takes its place, at its position.
            self.committed = self._segment_start
        try:
            self._files.cut(fd, self.committed - self._segment_start)
        except OSError:
            self._failures += 1
        finally:
            self._files.close(fd)

    def outputs(self, start: int, end: int) -> Iterator[Block]:
        """Committed blocks for Postgres that begin in [start, end)."""
        for block in read(self.directory, max(start, self.first), kinds=OUTPUT_KINDS):
            if block.position >= end:
                return
            yield block

    def trim(self, position: int, *, written_before_s: float = math.inf) -> None:
        """Remove segments that end at or before `position`; of these only what was written before a time."""
        found = segments(self.directory)
        for segment, after in pairwise(found):
            if after.position > position or segment.path.stat().st_mtime >= written_before_s:
                break
            segment.path.unlink()
            self.first = after.position

    def close(self) -> None:
        """Cut the preallocated tail and close. What is pending stays uncommitted."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._files.cut(fd, self.committed - self._segment_start)
            self._files.close(fd)

    def statistics(self) -> JournalStatistics:
        found = segments(self.directory)
        return JournalStatistics(
            position=self.committed,
            pending_blocks=len(self._pending),
            pending_bytes=self._pending_bytes,
            commits=self._commits,
            failures=self._failures,
            segments=len(found),
            bytes_on_disk=sum(segment.path.stat().st_blocks * 512 for segment in found),
        )
