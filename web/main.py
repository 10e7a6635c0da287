"""The web process: opens the stores, serves the app, ends in order.

Configuration, signals and logging are the caller's; connections are server.py's.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import trio

from engine.core.apprise_url import DEFAULT_SCHEMAS
from engine.core.keys import load_secrets
from storage.datagram import open_uptime_source
from storage.open import open_stores
from storage.settings import DatabaseSettings, DatagramSettings, RedisSettings
from web.app import WebApp, create_app
from web.backend import BeatDoor
from web.server import Server
from web.settings import WebSettings

NO_DATAGRAM = DatagramSettings()  # without a token it is not used
_log = structlog.get_logger("web")


async def serve(
    *,
    settings: WebSettings,
    database: DatabaseSettings,
    redis: RedisSettings,
    datagram: DatagramSettings = NO_DATAGRAM,
    secrets_file: Path,
    shards: int,
    ingest: BeatDoor,
    listening: Callable[[str], None],
    stop: trio.Event,
    clock_ahead_ms: int = 0,
    services: str = DEFAULT_SCHEMAS,
    seal_after_ms: int = 600_000,
) -> None:
    """Serve the web API until `stop` is set, then end within drain_s + graceful_s and a moment.

    `listening` is called once with ``http://host:port`` when connections are accepted. `ingest` is the
    engine's ingest settings, `services` and `seal_after_ms` what the worker is told. OSError when the
    address cannot be had or the secrets file not be read, ValueError when its content is none;
    StoreUnavailableError is no reason to end.
    """
    secrets = load_secrets(secrets_file)

    def clock() -> int:
        return system_ms() + clock_ahead_ms

    async with (
        open_stores(database=database, redis=redis) as stores,
        open_uptime_source(datagram, clock=clock) as uptime_source,
    ):
        app = create_app(
            stores,
            settings,
            secrets,
            clock,
            ingest=ingest,
            shards=shards,
            uptime_source=uptime_source,
            services=services,
            seal_after_ms=seal_after_ms,
        )
        if uptime_source is not None:
            app.backend.watch("datagram", uptime_source.statistics)
        await serve_app(app, settings, listening=listening, stop=stop)


async def serve_app(
    app: WebApp, settings: WebSettings, *, listening: Callable[[str], None], stop: trio.Event
) -> None:
    """Serve a made app with its backend running, on the configured address."""
    server = Server(app, settings=settings)
    app.backend.watch("web_connections", server.statistics)
    listeners = await trio.open_tcp_listeners(settings.port, host=settings.host, backlog=settings.backlog)
    url = _url(listeners[0])

    def tell() -> None:
        _log.info("web_listening", url=url)
        listening(url)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.backend.run)
        await server.serve(listeners, stop=stop, listening=tell, before_close=partial(_drain, app, settings))
        nursery.cancel_scope.cancel()
    _log.info("web_ended", url=url)


async def _drain(app: WebApp, settings: WebSettings) -> None:
    """Not ready first, so that nobody new is sent here; then the streams, which would never end."""
    _log.info("web_draining")
    app.backend.draining = True
    await trio.sleep(settings.drain_s)
    app.backend.tails.close()


def _url(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    if listener.socket.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"http://{host}:{port}"


def system_ms() -> int:
    """The system's clock, unix ms."""
    return time.time_ns() // 1_000_000
