"""The worker process as `nodepulse worker` runs it, on stores that are there, until stdin closes.

worker_child OPTIONS (JSON): database, redis (URLs), settings (of worker/settings.py). Answers once:
{"where": "host:port" of its metrics}.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import msgspec
import structlog
import trio

from bench.rig.child import say
from nodepulse.child import raise_descriptor_limit
from storage.bridge import run_on_uvloop
from storage.settings import DatabaseSettings, RedisSettings
from worker.main import serve
from worker.settings import WorkerSettings


async def _main(options: dict[str, Any]) -> int:
    stop = trio.Event()
    run = partial(
        serve,
        settings=msgspec.convert(options["settings"], WorkerSettings),
        database=DatabaseSettings(url=options["database"]),
        redis=RedisSettings(url=options["redis"]),
        shards=1,
        listening=lambda where: say(where=where),
        stop=stop,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.lowlevel.wait_readable(sys.stdin)
        stop.set()
    return 0


if __name__ == "__main__":
    # A line per delivery, as in production; into nothing, for a terminal would be what is measured.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    raise_descriptor_limit()
    sys.exit(run_on_uvloop(partial(_main, json.loads(sys.argv[1]))))
