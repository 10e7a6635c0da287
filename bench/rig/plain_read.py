"""Plain reads of files: the limit of everything that starts from disk."""

from __future__ import annotations

import os
from pathlib import Path

_BYTES_AT_ONCE = 1024 * 1024


def forget(path: Path) -> None:
    """Let the kernel drop what it keeps of a file: the next reading comes from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path, start: int = 0, end: int = 2**62) -> int:
    """Read [start, end) of a file into one small buffer; the number of bytes."""
    count, buffer = 0, memoryview(bytearray(_BYTES_AT_ONCE))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start + count < end:
            got = file.readinto(buffer[: min(_BYTES_AT_ONCE, end - start - count)])
            if not got:
                break
            count += got
    return count
