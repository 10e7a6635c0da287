"""An installation that is beaten while it is read: a real shard, a fleet that beats it on demand, and web.

Shared by `bench reads` and `bench pages`. What is asked for, and how often, is theirs.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg

from bench.rig import fleet as rig
from bench.rig.child import Child, python_child
from bench.rig.servers import Running, postgres, valkey
from bench.rig.stage import open_sockets

MB = 1024 * 1024
INTERVAL_MS = 3_600_000  # nobody falls silent while nobody beats
RATE_MAX = 1e9  # the engine stretches no interval: the fleet's own pace is what is measured


class Beaten(NamedTuple):
    """All that runs. `target`: where web listens, for the client."""

    database: Running
    view: Running
    engine: Child
    fleet: Child
    web: Child
    target: str


def beaten_installation(
    stack: ExitStack, folder: Path, *, rows: int, workloads: int, never_heard: int = 0, period_s: float
) -> Beaten:
    """Started, every row but `never_heard` in the live view; each beats once in `period_s` when told to."""
    database, view = stack.enter_context(postgres()), stack.enter_context(valkey())
    asyncio.run(_register(database.url, rows=rows + never_heard, workloads=workloads))
    sockets = open_sockets(shards=1, queue_bytes=256 * MB)
    stack.callback(sockets.close)
    fds = [sockets.udp[0].fileno()]
    engine = python_child(
        "bench.rig.engine_child",
        {
            "directory": str(folder),
            "rows": rows,
            "workloads": workloads,
            "interval_ms": INTERVAL_MS,
            "udp_fds": fds,
            "database_url": database.url,
            "redis_url": view.url,
            "settings": {"ingest": {"next_ms_rate_max": RATE_MAX}},
        },
        fds=fds,
    )
    stack.enter_context(engine)
    engine.answer()
    beats = {"port": sockets.port, "rows": rows, "workloads": workloads, "seed": 7, "period_s": period_s}
    fleet = stack.enter_context(python_child("bench.rig.beater_child", beats))
    fleet.answer()
    engine.ask("ready")  # the whole live view has been written
    secrets = folder / "secrets.json"
    secrets.write_text(json.dumps({"1": "ab" * 32}))
    options = {"database": database.url, "redis": view.url, "secrets_file": str(secrets), "shards": 1}
    web = stack.enter_context(python_child("bench.rig.web_child", options))
    port = urlsplit(web.answer()["url"]).port
    return Beaten(database, view, engine, fleet, web, f"tcp:127.0.0.1:{port}")


async def _register(url: str, *, rows: int, workloads: int) -> None:
    connection = await asyncpg.connect(url)
    born_ms = time.time_ns() // 1_000_000 - 3_600_000
    await rig.register_table(connection, rows=rows, workloads=workloads, born_ms=born_ms)
    await connection.close()
