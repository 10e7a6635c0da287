"""Uptime of a project whose days Datagram measures: web/sources.py's rules, for many workloads at once.

Workloads are asked about together when their hours are the same, which most are. It is as slow as Datagram
lets anybody be: five nodes a question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from engine.core.bulk import BulkItem
from engine.core.compose_many import Totals
from engine.core.records import KINDS
from engine.core.uptime_source import UptimeSource, whole_hours
from storage.bulk_reading import Asked, Chunk

_UP, _SILENT, _UNOBSERVED = (KINDS.index(kind) for kind in ("up", "silent", "unobserved"))


async def read_datagram(
    source: UptimeSource, items: Sequence[BulkItem], asked: Asked, *, now_ms: Callable[[BulkItem], int]
) -> Chunk:
    """What the window was for these, in whole hours. `now_ms`: as its shard has it. UptimeSourceError."""
    windows = [_hours(item, asked, now_ms(item)) for item in items]
    from_ms, to_ms = (np.array([each[field] for each in windows], np.int64) for field in range(2))
    totals = Totals(from_ms, to_ms, to_ms.copy())
    totals.ms[:, _UNOBSERVED] = to_ms - from_ms  # of whom nothing is known
    for window in sorted(set(windows)):
        places = [
            place
            for place, item in enumerate(items)
            if windows[place] == window and item.partner_id is not None and window[0] < window[1]
        ]
        if places:
            up_ms = await source.up_ms([str(items[place].partner_id) for place in places], *window)
            for place in places:
                _put(totals, place, up_ms[str(items[place].partner_id)])
    return Chunk(items, totals, list(range(len(items))), [])


def _hours(item: BulkItem, asked: Asked, now_ms: int) -> tuple[int, int]:
    return whole_hours(
        asked.from_ms,
        asked.to_ms,
        created_ms=item.created_ms,
        retired_ms=item.retired_ms,
        now_ms=now_ms,
    )


def _put(totals: Totals, place: int, up_ms: int | None) -> None:
    if up_ms is not None:
        window_ms = int(totals.to_ms[place] - totals.from_ms[place])
        totals.ms[place, (_UP, _SILENT, _UNOBSERVED)] = (up_ms, window_ms - up_ms, 0)
