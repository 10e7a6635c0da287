"""Which processes live, by /proc: a zombie does not, and a later process may have an earlier one's number.

For servers that are no children of ours. Who starts and stops them: embedded.py.
"""

from __future__ import annotations

import os
from pathlib import Path


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lives_in(pid: int, folder: Path) -> bool:
    """Whether it also works in this folder, and we may see that."""
    try:
        return lives(pid) and os.path.samefile(f"/proc/{pid}/cwd", folder)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
