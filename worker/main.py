"""The worker process over the real stores: what the front door calls. parts.py puts the parts together."""

from __future__ import annotations

from collections.abc import Callable

import trio

from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings
from worker.jobs import prunes
from worker.parts import Worker, wall_ms
from worker.settings import WorkerSettings


async def serve(
    *,
    settings: WorkerSettings,
    database: DatabaseSettings,
    redis: RedisSettings,
    listening: Callable[[str], None],
    stop: trio.Event,
    clock_ahead_ms: int = 0,
) -> None:
    """Run the worker until `stop`, on a guest run (storage/bridge.py).

    `listening` is told ``host:port`` of metrics and health. An OSError (in a group) when that port is taken.
    """
    async with open_stores(database, redis) as stores:
        worker = Worker(
            settings=settings,
            outbox=stores.outbox,
            history=stores.history,
            live=stores.live,
            directory=stores.directory,
            letters=stores.letters,
            rollouts=stores.rollouts,
            inventory_sync=stores.inventory_sync,
            now_ms=lambda: wall_ms() + clock_ahead_ms,
            schedule=stores.schedule,
            jobs=prunes(stores, settings.retention),
        )
        await worker.run(listening=listening, stop=stop)
