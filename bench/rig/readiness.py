"""How far a shard that was started again has come, step by step: what `bench recover` measures.

`drained`: every socket has been found empty once. `applied`: what was taken till then is committed, applied
and answered. `readable`: the live view tells so (its watermark has passed that moment). All as unix seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trio

from engine.shard import Shard

_LOOK_EVERY_S = 0.005


async def wait_ready(shard: Shard) -> dict[str, Any]:
    """Wait until all steps are done; when each was."""
    await _until(lambda: shard.listening and all(each.drained_ms for each in shard.listeners))
    drained_s, drained_ms = time.time(), shard.clock.now_ms()
    taken = sum(each.statistics().datagrams for each in shard.listeners)
    await _until(lambda: shard.complete_ms() >= drained_ms)
    applied_s = time.time()
    await _until(lambda: shard.flusher.statistics().watermark_ms >= drained_ms)
    return {
        "drained_s": drained_s,
        "applied_s": applied_s,
        "readable_s": time.time(),
        "taken_from_sockets": taken,
    }


async def _until(is_so: Callable[[], bool]) -> None:
    """Looks again and again: the shard is not to be changed for being watched."""
    while True:
        if is_so():
            return
        await trio.sleep(_LOOK_EVERY_S)


def missing_beats(shard: Shard, acked: Path) -> dict[str, int]:
    """Rows whose last acknowledged beat (server ms by row, 0: none, a .npy file) is not in the table."""
    server_ms = np.load(acked)
    known = shard.table.row.last_t_ms[: len(server_ms)]
    return {"acked_rows": int((server_ms > 0).sum()), "missing": int((known < server_ms).sum())}
