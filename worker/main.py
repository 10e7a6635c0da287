"""The worker process over the real stores: what the front door calls. parts.py puts the parts together."""

from __future__ import annotations

from collections.abc import Callable

import trio

from storage.datagram import open_uptime_source
from storage.open import AllStores, open_stores
from storage.settings import DatabaseSettings, DatagramSettings, RedisSettings
from worker.jobs import prunes, reports
from worker.parts import Worker, wall_ms
from worker.publish_settings import PublishSettings
from worker.publisher import RootPublisher
from worker.seal_day import SealStores
from worker.sealer import Sealer
from worker.settings import WorkerSettings

NO_DATAGRAM = DatagramSettings()  # without a token it is not used


async def serve(
    *,
    settings: WorkerSettings,
    database: DatabaseSettings,
    redis: RedisSettings,
    datagram: DatagramSettings = NO_DATAGRAM,
    shards: int,
    listening: Callable[[str], None],
    stop: trio.Event,
    clock_ahead_ms: int = 0,
    public_url: str = "",
) -> None:
    """Run the worker until `stop`, on a guest run (storage/bridge.py).

    `listening` is told ``host:port`` of metrics and health. An OSError (in a group) when that port is taken.
    """

    def now_ms() -> int:
        return wall_ms() + clock_ahead_ms

    async with (
        open_stores(database, redis) as stores,
        open_uptime_source(datagram, clock=now_ms) as uptime_source,
    ):
        worker = Worker(
            settings=settings,
            outbox=stores.outbox,
            newsroom=stores.newsroom,
            sending=stores.sending,
            live=stores.live,
            directory=stores.directory,
            letters=stores.letters,
            rollouts=stores.rollouts,
            inventory_sync=stores.inventory_sync,
            now_ms=now_ms,
            sealer=Sealer(
                seal_stores(stores),
                shards=shards,
                source=uptime_source,
                now_ms=now_ms,
                after_ms=settings.seal_after_s * 1_000,
            ),
            publisher=root_publisher(stores, settings.publish, now_ms=now_ms),
            public_url=public_url,
            schedule=stores.schedule,
            watermarks=stores.sealing.watermarks,
            shards=shards,
            jobs=(*prunes(stores, settings.retention), *reports(stores, settings.reports)),
        )
        await worker.run(listening=listening, stop=stop)


def root_publisher(
    stores: AllStores, settings: PublishSettings, *, now_ms: Callable[[], int]
) -> RootPublisher | None:
    """None where no target is named."""
    if not settings.named:
        return None
    return RootPublisher(stores.publications, settings, now_ms=now_ms, wall_ms=wall_ms)


def seal_stores(stores: AllStores) -> SealStores:
    """What seals are made from."""
    return SealStores(
        sealing=stores.sealing,
        bulk=stores.bulk,
        live=stores.live,
        projects=stores.projects,
        inventory=stores.inventory,
        leases=stores.leases,
        evidence=stores.evidence,
    )
