"""Rotating a file that somebody else appends to: copied away, then cut.

The workload keeps its open file (a pipe to the manager would end with the manager), so the file cannot be
renamed from under it. What is written between the copy and the cut is lost: microseconds of output, once per
`bytes_max`.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)


def rotate(path: Path, *, bytes_max: int, files: int) -> bool:
    """Begin the file anew if it is too long; PATH.1 is the newest of `files` old ones. Whether it was."""
    try:
        if path.stat().st_size <= bytes_max:
            return False
        for number in range(files - 1, 0, -1):
            old = _numbered(path, number)
            if old.exists():
                old.replace(_numbered(path, number + 1))
        if files:
            shutil.copyfile(path, _numbered(path, 1))
            _numbered(path, 1).chmod(0o600)
        os.truncate(path, 0)
    except FileNotFoundError:
        return False  # nothing was written yet, or the workload is being removed
    except OSError as error:
        log.warning("output not rotated: %s", error)
        return False
    return True


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
