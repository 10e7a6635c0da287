"""Web's way to many nodes and workloads of the live view at once: fresh enough for its request.

What is read is storage/view_arrays.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import trio

from engine.core.records import Gap
from storage import view_arrays
from storage.view_arrays import Seen

if TYPE_CHECKING:
    from web.backend import Backend


async def wait_view(backend: Backend, *, up_to_ms: int | None = None) -> None:
    """Wait until the view knows what was acknowledged before this request, `read_wait_ms_max` at most.

    `up_to_ms`: nothing later is wanted.
    """
    deadline = trio.current_time() + backend.settings.read_wait_ms_max / 1000
    for shard in range(backend.shards):
        now_ms = backend.heads.now_ms(shard)
        at_ms = now_ms if up_to_ms is None else min(up_to_ms, now_ms + 1)
        left_s = max(0.0, deadline - trio.current_time())
        await backend.heads.wait_watermark(shard, at_ms, timeout_s=left_s)


async def look(backend: Backend, row: np.ndarray, slot: np.ndarray) -> tuple[Seen, dict[int, Gap]]:
    """These slots of these rows, and by shard the gaps that have begun and are not decided."""
    return await view_arrays.look(backend.live, backend.shards, row, slot)
