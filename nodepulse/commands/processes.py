"""`serve`, `engine`, `web`, `worker`: the processes of the product, together or each alone.

With `--config-file` a command is a child of `serve` and gets descriptors; without, it opens what it needs
itself (for systemd or Kubernetes) and wants the stores' URLs in its configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import structlog
import trio

from engine.core.version import VERSION
from nodepulse.child import Listening, run_process
from nodepulse.commands.options import Sources, address_option, config_options
from nodepulse.config import Config
from nodepulse.limits import ConfigError, Problem
from nodepulse.runfolder import read_effective
from storage.collector import spare_collector
from storage.observe import configure_logging, init_sentry


@click.command()
@click.option("--web", metavar="HOST:PORT", help="Web API; 127.0.0.1:8080 by default.")
@click.option("--beats", metavar="HOST:PORT", help="Beats by UDP and HTTP; 127.0.0.1:7900 by default.")
@click.option("--shards", type=int, help="Engine processes; the rows are split among them.")
@config_options
def serve(*, web: str | None, beats: str | None, shards: int | None, sources: Sources) -> None:
    """Run the whole system on this machine: stores, engines, web and worker as supervised children."""
    from nodepulse.serve import serve as run

    web_host, web_port = address_option(web, "--web")
    beats_host, beats_port = address_option(beats, "--beats")
    config = sources.configured(
        web__host=web_host,
        web__port=web_port,
        ingest__host=beats_host,
        ingest__port=beats_port,
        engine__shards=shards,
    )
    observe(config, "serve")
    raise SystemExit(run(config, say=tell))


def tell(text: str) -> None:
    """Say something to whoever started us. That nobody can read it (a full disk, a closed terminal) is no
    reason to stop serving."""
    try:
        os.write(sys.stdout.fileno(), text.encode() + b"\n")
    except OSError as error:
        structlog.get_logger().warning("stdout.unwritable", why=str(error))


def child_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `serve` hands to a child. Not for people."""
    for name, kind in (("--ready-fd", int), ("--parent-fd", int), ("--config-file", str)):
        command = click.option(name, type=kind, hidden=True)(command)
    return config_options(command)


@click.command()
@click.option("--shard", type=int, default=0, help="Which shard this is, from 0.")
@click.option("--udp-fd", default="", hidden=True)
@click.option("--http-fd", type=int, hidden=True)
@child_options
def engine(*, shard: int, udp_fd: str, http_fd: int | None, **how: Any) -> None:
    """Run one shard of the beat engine. Alone it opens `ingest.port` itself."""
    from engine.sockets import open_beat_sockets
    from nodepulse.engine_process import serve as run

    config = _process_config(how)
    if not 0 <= shard < config.engine.shards:
        raise ConfigError([Problem("--shard", f"is {shard}; engine.shards is {config.engine.shards}")])
    observe(config, f"engine-{shard}")
    if http_fd is None:
        opened = open_beat_sockets(
            host=config.ingest.host,
            port=config.ingest.port,
            sockets=config.ingest.sockets_per_shard,
            receive_buffer_bytes=config.ingest.receive_buffer_bytes,
        )
        udp_fds, http_fd = [one.detach() for one in opened.udp], opened.http.detach()
    else:
        udp_fds = [int(number) for number in udp_fd.split(",")]
        for number in (*udp_fds, http_fd):
            os.set_inheritable(number, False)

    async def live(stop: trio.Event, listening: Listening) -> None:
        await run(
            settings=config.engine_settings,
            metrics_host=config.engine.metrics_host,
            metrics_port=config.engine.metrics_port,
            shard=shard,
            data_dir=config.folder,
            database=config.database,
            redis=config.redis,
            secrets_file=config.secrets_file,
            udp_fds=udp_fds,
            http_fd=http_fd,
            listening=listening,
            stop=stop,
        )

    _run(live, how)


@click.command()
@child_options
def web(**how: Any) -> None:
    """Run the web API."""
    from web.main import serve as run

    config = _process_config(how)
    observe(config, "web")

    async def live(stop: trio.Event, listening: Listening) -> None:
        await run(
            settings=config.web,
            database=config.database,
            redis=config.redis,
            datagram=config.datagram,
            secrets_file=config.secrets_file,
            shards=config.engine.shards,
            ingest=config.ingest,
            listening=_sparing(listening),
            stop=stop,
            clock_ahead_ms=config.clock_ahead_s * 1_000,
            services=config.worker.apprise_schemas,
            seal_after_ms=config.worker.seal_after_s * 1_000,
        )

    _run(live, how)


@click.command()
@child_options
def worker(**how: Any) -> None:
    """Run the notifier and the deliveries."""
    from worker.main import serve as run

    config = _process_config(how)
    observe(config, "worker")

    async def live(stop: trio.Event, listening: Listening) -> None:
        await run(
            settings=config.worker,
            database=config.database,
            redis=config.redis,
            datagram=config.datagram,
            shards=config.engine.shards,
            listening=_sparing(listening),
            stop=stop,
            clock_ahead_ms=config.clock_ahead_s * 1_000,
            public_url=config.web.public_url,
        )

    _run(live, how)


def _sparing(listening: Listening) -> Listening:
    """All is loaded when one is listening: Python's collector need not look at it again."""

    def ready(where: str) -> None:
        spare_collector()
        listening(where)

    return ready


def observe(config: Config, process: str) -> None:
    """Logs and crash reports of this process."""
    configure_logging(process, level=config.log_level)
    init_sentry(
        config.sentry.dsn,
        process,
        release=f"nodepulse@{VERSION}",
        environment=config.sentry.environment,
    )


def _process_config(how: dict[str, Any]) -> Config:
    if how["config_file"] is not None:
        return read_effective(Path(how["config_file"]))
    sources: Sources = how["sources"]
    config = sources.configured()
    missing = [path for path, url in _store_urls(config) if not url]
    if missing:
        advice = "is empty; only `serve` brings embedded stores, a process alone needs the URL"
        raise ConfigError([Problem(path, advice) for path in missing])
    if not config.secrets_file.exists():
        advice = f"{config.secrets_file} is missing; copy it from the installation's first process"
        raise ConfigError([Problem("secrets", advice)])
    return config


def _store_urls(config: Config) -> tuple[tuple[str, str], ...]:
    return (("database.url", config.database.url), ("redis.url", config.redis.url))


def _run(live: Callable[[trio.Event, Listening], Awaitable[None]], how: dict[str, Any]) -> None:
    raise SystemExit(run_process(live, parent_fd=how["parent_fd"], ready_fd=how["ready_fd"]))
