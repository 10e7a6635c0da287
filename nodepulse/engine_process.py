"""The engine process: one shard with its stores, its doors and its metrics, wired together.

The engine itself knows only ports; what stands behind them is chosen here.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import trio

from engine.core.keys import MasterSecrets, load_secrets
from engine.forwarder import Forwarder, open_forwarder
from engine.http_requests import PlainRequests
from engine.ingest_http import HttpListener, serve_http
from engine.parts import Surroundings
from engine.reshard import settle_folder
from engine.settings import EngineSettings
from engine.shard import Shard
from engine.sockets import DropCounter
from np1.codec import FLAG_NO_ACK, FRAME_BYTES, Code
from storage.bridge import Host, await_host
from storage.metrics_http import new_registry, serve_metrics
from storage.observe import capture
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings


async def serve(
    *,
    settings: EngineSettings,
    metrics_host: str,
    metrics_port: int,
    shard: int,
    data_dir: Path,
    database: DatabaseSettings,
    redis: RedisSettings,
    secrets_file: Path,
    udp_fds: list[int],
    http_fd: int,
    listening: Callable[[str], None],
    stop: trio.Event,
) -> None:
    """Serve one shard until `stop`. `listening` is told where its metrics are once beats are taken."""
    udp = tuple(socket.socket(fileno=fd) for fd in udp_fds)
    http = socket.socket(fileno=http_fd)
    for opened in (*udp, http):
        opened.setblocking(False)
    secrets = load_secrets(secrets_file)
    journals = data_dir / "journal"
    await _take_over_other_count(journals, settings, shard, secrets)
    async with open_stores(database, redis) as stores, trio.open_nursery() as nursery:
        host_loop = Host("journal")
        around = Surroundings(
            registry=stores.registry,
            history=stores.history,
            live=stores.live,
            secrets=secrets,
            log=structlog.get_logger(),
            report=capture,
            host=host_loop,
            udp=udp,
            drops=DropCounter(udp) if udp else None,
            asks=stores.asks,
            leases=stores.lease_settling,
        )
        served = await _recover(journals / f"{settings.shards}" / f"{shard}", settings, shard, around)
        doors = _Doors(http, data_dir / "run", secrets, settings)
        registry = new_registry({name: partial(_part, served, name) for name in served.statistics()})
        host, port = await nursery.start(
            partial(
                serve_metrics,
                host=metrics_host,
                port=metrics_port + shard if metrics_port else 0,
                registry=registry,
                live=lambda: {"loop": ""},
                ready=served.ready,
            )
        )
        await served.serve(
            open_doors=doors.open,
            listening=lambda: listening(f"shard {shard}: metrics on http://{host}:{port}/metrics"),
            stop=stop,
        )
        host_loop.close()
        nursery.cancel_scope.cancel()


async def _take_over_other_count(
    journals: Path, settings: EngineSettings, shard: int, secrets: MasterSecrets
) -> None:
    """What folders of another shard count hold becomes ours, once."""
    resharded = await trio.to_thread.run_sync(
        partial(
            settle_folder,
            journals,
            shard=shard,
            shards=settings.shards,
            secrets=secrets,
            segment_bytes=settings.journal.segment_bytes_max,
        )
    )
    if resharded is not None:
        log = structlog.get_logger()
        log.info("shard.resharded", shard=shard, shards=settings.shards, **resharded._asdict())


async def _recover(directory: Path, settings: EngineSettings, shard: int, around: Surroundings) -> Shard:
    made = await trio.to_thread.run_sync(
        partial(Shard, settings=settings, shard=shard, directory=directory, around=around)
    )
    around.log.info("shard.recovered", shard=shard, beats=made.recovered.beats, rows=made.table.rows)
    return made


def _part(shard: Shard, name: str) -> dict[str, float | dict[str, float]]:
    return shard.statistics()[name]


class _Doors:
    """The HTTP listener and, with several shards, the forwarder of one shard."""

    def __init__(self, http: socket.socket, run: Path, secrets: Any, settings: EngineSettings) -> None:
        self._http = http
        self._run = run
        self._secrets = secrets
        self._settings = settings

    async def open(self, shard: Shard) -> Callable[[], Awaitable[None]]:
        """Open both on the host loop; how to close them."""
        plain = PlainRequests(door=shard.intake, secrets=self._secrets)
        forwarder: Forwarder | None = None
        if self._settings.shards > 1:
            forwarder = await await_host(
                partial(open_forwarder, self._run, shard=shard.number, door=shard.intake, handle=plain.handle)
            )
            shard.foreign = _ForeignDatagrams(shard, forwarder)
        listener: HttpListener = await await_host(
            partial(
                serve_http,
                self._http,
                door=shard.intake,
                secrets=self._secrets,
                settings=self._settings.ingest,
                plain=plain,
                forwarder=forwarder,
            )
        )

        async def close() -> None:
            await await_host(listener.close)
            if forwarder is not None:
                await await_host(forwarder.close)

        return close


class _ForeignDatagrams:
    """Brings datagrams of other shards' rows to their owners and the ACKs back to their senders."""

    def __init__(self, shard: Shard, forwarder: Forwarder) -> None:
        self._shard = shard
        self._forwarder = forwarder

    def __call__(self, frames: Any, names: Any, t_ms: int) -> None:
        owners = np.ascontiguousarray(frames[:, 4:8]).view(">u4")[:, 0] % self._shard.table.shards
        for owner in np.unique(owners).tolist():
            mine = owners == owner
            quiet = frames[mine, 1] & FLAG_NO_ACK != 0
            self._forwarder.forward_frames(
                owner, frames[mine].tobytes(), t_ms, partial(self._answer, names[mine], quiet)
            )

    def _answer(self, names: Any, quiet: Any, acks: bytes | None) -> None:
        """Over UDP a peer that is away is silence: an ACK could not be signed here.

        `quiet`: which of the frames ask for no OK and no EARLY; the owner answers all, as for HTTP.
        """
        if acks is None or not self._shard.listeners:
            return
        frames = np.frombuffer(acks, np.uint8).reshape(-1, FRAME_BYTES)
        told = (frames[:, 0] != 0) & ~(quiet & (frames[:, 1] <= Code.EARLY))
        self._shard.listeners[0].send(frames[told], names[told])
