"""How much maintenance may be opened (LIVENESS.md 4): at most 60 minutes per workload and UTC day.

The union of all windows counts, the owner's and the operator's together; a window is opened before it begins.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.core.records import Window

DAY_MS = 86_400_000
PER_DAY_MS_MAX = 60 * 60_000


class WindowRefusedError(Exception):
    """The window may not be opened; the text says why."""


def check_window(new: tuple[int, int], *, opened: Iterable[Window], now_ms: int) -> None:
    """Refuse a window (from_ms, to_ms) that is late, empty, or too much beside what is opened already."""
    from_ms, to_ms = new
    if from_ms < now_ms:
        raise WindowRefusedError("a maintenance window is opened before it begins")
    if to_ms <= from_ms:
        raise WindowRefusedError("a maintenance window ends after it begins")
    spans = [new, *((window.from_ms, window.to_ms) for window in opened)]
    for day in range(from_ms // DAY_MS, (to_ms - 1) // DAY_MS + 1):
        used_ms = _union_ms(spans, day * DAY_MS, (day + 1) * DAY_MS)
        if used_ms > PER_DAY_MS_MAX:
            minutes = used_ms / 60_000
            raise WindowRefusedError(f"{minutes:g} minutes of maintenance on one UTC day; at most 60")


def _union_ms(spans: Iterable[tuple[int, int]], from_ms: int, to_ms: int) -> int:
    total, reached = 0, from_ms
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, to_ms)
        if end > start:
            total += end - start
            reached = end
    return total
