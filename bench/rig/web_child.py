"""The web process as `nodepulse web` runs it, on stores that are there, until stdin closes.

web_child OPTIONS (JSON): database, redis (URLs), secrets_file, shards. Answers once: {"url": ...}.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio

from bench.rig.child import say
from engine.settings import IngestSettings
from storage.bridge import run_on_uvloop
from storage.collector import spare_collector
from storage.settings import DatabaseSettings, RedisSettings
from web.main import serve
from web.settings import WebSettings


async def _main(options: dict[str, Any]) -> int:
    stop = trio.Event()
    run = partial(
        serve,
        settings=WebSettings(port=0, drain_s=0.0, access_log=False, key_requests_per_min_max=1_000_000),
        database=DatabaseSettings(url=options["database"]),
        redis=RedisSettings(url=options["redis"]),
        secrets_file=Path(options["secrets_file"]),
        shards=options["shards"],
        ingest=IngestSettings(),
        listening=lambda url: say(url=url),
        stop=stop,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        spare_collector()
        await trio.lowlevel.wait_readable(sys.stdin)
        stop.set()
    return 0


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(run_on_uvloop(partial(_main, json.loads(sys.argv[1]))))
