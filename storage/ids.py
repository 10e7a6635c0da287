"""Makes ids: UUIDv7 (RFC 9562, 6.2 method 1), ordered by time and, within this process, strictly.

Ids order the pages of lists and keep the B-trees of the stores growing at one end.
"""

from __future__ import annotations

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0  # unix milliseconds << 12 | counter


def new_id() -> str:
    """A new UUIDv7 in canonical text form, greater than any this process made before."""
    global _last
    with _lock:
        # A clock that stands still or runs back only moves the counter, which may carry into the time.
        _last = max(_last + 1, time.time_ns() // 1_000_000 << 12)
        tick = _last
    value = (tick >> 12 & (1 << 48) - 1) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64
    value |= 0b10 << 62 | int.from_bytes(os.urandom(8), "big") >> 2
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Whether a text is a UUID in canonical form: what is not cannot be the id of anything."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
