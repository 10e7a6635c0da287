"""The worker's sealer alone, on stores that are there, until stdin closes.

sealer_child OPTIONS (JSON): database, redis (URLs). Answers {"ready"}, and to each line, a unix millisecond,
what sealing all that was due by then took: {"seconds", "rows", "waiting"}, and {"stall_ms"}: how much later
than asked a task beside it was given its turn (p50, p99, p99.9, max), which is what the worker's other parts
feel.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import structlog
import trio

from bench.rig.beater_child import percentiles
from bench.rig.child import say
from storage.bridge import run_on_uvloop
from storage.collector import spare_collector
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings
from worker.main import seal_stores
from worker.sealer import Sealer

PULSE_S = 0.005


class Clock:
    """Stands still at what the bench says, so that it decides which days are over."""

    def __init__(self) -> None:
        self.at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms


async def _main(options: dict[str, Any]) -> int:
    settings = DatabaseSettings(url=options["database"]), RedisSettings(url=options["redis"])
    clock = Clock()
    async with open_stores(*settings) as stores:
        sealer = Sealer(seal_stores(stores), shards=1, source=None, now_ms=clock.now_ms, after_ms=0)
        spare_collector()  # as `nodepulse worker` does
        say(ready=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            clock.at_ms = int(line)
            say(**await _timed(sealer))
    return 0


async def _timed(sealer: Sealer) -> dict[str, Any]:
    late_ms: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pulse, late_ms)
        began = time.perf_counter()
        sealed = await sealer.run_once()
        took_s = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return {
        "seconds": took_s,
        "rows": sum(seal.rows for seal in sealed),
        "waiting": sealer.waiting_for(),
        "stall_ms": percentiles(np.array(late_ms)),
    }


async def _pulse(late_ms: list[float]) -> None:
    while True:
        asked_s = time.perf_counter() + PULSE_S
        await trio.sleep(PULSE_S)
        late_ms.append((time.perf_counter() - asked_s) * 1_000)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(run_on_uvloop(partial(_main, json.loads(sys.argv[1]))))
