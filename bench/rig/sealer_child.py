"""The worker's sealer alone, on stores that are there, until stdin closes.

sealer_child OPTIONS (JSON): database, redis (URLs). Answers {"ready"}, and to each line {"seconds", "rows",
"waiting"}: it sealed all that was due.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import Any

import structlog
import trio

from bench.rig.child import say
from storage.bridge import run_on_uvloop
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings
from worker.main import seal_stores
from worker.parts import wall_ms
from worker.sealer import Sealer


async def _main(options: dict[str, Any]) -> int:
    settings = DatabaseSettings(url=options["database"]), RedisSettings(url=options["redis"])
    async with open_stores(*settings) as stores:
        sealer = Sealer(seal_stores(stores), shards=1, source=None, now_ms=wall_ms, after_ms=0)
        say(ready=True)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            began = time.perf_counter()
            sealed = await sealer.run_once()
            took_s = time.perf_counter() - began
            say(
                seconds=took_s,
                rows=sum(seal.rows for seal in sealed),
                waiting=sealer.waiting_for(),
            )
    return 0


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(run_on_uvloop(partial(_main, json.loads(sys.argv[1]))))
