"""`nodepulse serve`: the whole system on one machine, as children of this process.

It opens the beat sockets and keeps them, starts the stores, brings the database up to date, starts engines,
web and worker, and stops all that in the opposite order. It does none of their work. The exit code is 0 only
if everything that was started also stopped in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from engine.core.ports import StoreUnavailableError
from engine.sockets import BeatSockets, PortTakenError, open_beat_sockets
from nodepulse import readiness
from nodepulse.child import raise_descriptor_limit, stop_on_signals
from nodepulse.config import Config
from nodepulse.freeports import FreePorts, NoFreePortError
from nodepulse.guarding import Guard
from nodepulse.process import ProcessServant, clear_remains
from nodepulse.runfolder import CONFIG_FILE, hold_lock, prepare, write_effective
from nodepulse.stores import StoreServant, ensure_secrets
from nodepulse.supervise import Patience, Servant, StartFailedError, Supervisor
from nodepulse.systemd import notify
from storage.bridge import run_on_uvloop
from storage.embedded import PostgresServer, ValkeyServer
from storage.metrics_http import new_registry, serve_metrics
from storage.migrate import NotTheOwnerError, migrate
from storage.observe import close_sentry
from storage.roles import OtherDatabaseError, make_application_role

log = structlog.get_logger()
Say = Callable[[str], None]
UNCLEAN = 1
GUARD_STOP_S = 0.5


def serve(config: Config, *, say: Say = print) -> int:
    """Run the system until a signal; the exit code. InUseError, OSError when it cannot even begin."""
    raise_descriptor_limit()
    run = prepare(config.folder)
    with hold_lock(run):
        if ensure_secrets(config.secrets_file):
            log.info("secrets.made", file=str(config.secrets_file), advice="back it up: tokens rest on it")
        try:
            return run_on_uvloop(partial(_serve, config, run, say))
        finally:
            (run / CONFIG_FILE).unlink(missing_ok=True)
            close_sentry()


async def _serve(config: Config, run: Path, say: Say) -> int:
    stop = trio.Event()
    code = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signals, stop, nursery.cancel_scope)
        supervisor = Supervisor(nursery, _patience(config))
        system = _System(config, run, supervisor, nursery, say)
        try:
            with trio.CancelScope() as starting:
                nursery.start_soon(_cancel_when, stop, starting)
                await system.start()
            await _first_of(stop, supervisor.gave_up)
        except (StartFailedError, PortTakenError, NoFreePortError, OSError) as error:
            log.critical("serve.cannot_start", why=str(error))
            say(f"nodepulse cannot start: {error}")
            code = UNCLEAN
        finally:
            notify("STOPPING=1")
            in_order = await supervisor.stop()
            system.close()
            nursery.cancel_scope.cancel()
    if supervisor.gave_up.is_set():
        say(f"nodepulse gave up: {supervisor.reason}")
        code = UNCLEAN
    log.info("serve.stopped", in_order=in_order)
    return code if in_order else UNCLEAN


class _System:
    """What serve opens, in the order of its start."""

    def __init__(
        self, config: Config, run: Path, supervisor: Supervisor, nursery: trio.Nursery, say: Say
    ) -> None:
        self._config = config
        self._run = run
        self._supervisor = supervisor
        self._nursery = nursery
        self._say = say
        self._guard = Guard()
        self._sockets: BeatSockets | None = None
        # Children hold the reading end: it says EOF when this process is gone, however it went.
        self._parent_read, self._parent_write = os.pipe()

    async def start(self) -> None:
        await clear_remains(self._run, patience_s=self._config.serve.stop_engine_s)
        sockets = self._sockets = open_beat_sockets(
            host=self._config.ingest.host,
            port=self._config.ingest.port,
            sockets=self._config.engine.shards * self._config.ingest.sockets_per_shard,
            receive_buffer_bytes=self._config.ingest.receive_buffer_bytes,
        )
        await self._supervisor.start([self._guard], stop_s=GUARD_STOP_S)
        config = await self._start_stores(_with_ports(self._config, sockets))
        await _migrate(config, embedded=not self._config.database.url)
        file = write_effective(self._run, _without_owner(config))
        engines = [self._engine(file, shard, sockets) for shard in range(config.engine.shards)]
        await self._supervisor.start(engines, stop_s=config.serve.stop_engine_s)
        edge = [self._child("web", file), self._child("worker", file)]
        if config.canary.count:
            edge.append(self._child("canary", file))
        await self._supervisor.start(edge, stop_s=config.serve.stop_web_s)
        await self._nursery.start(self._serve_metrics, config)
        self._nursery.start_soon(readiness.announce, config, sockets.buffer_bytes, self._say)

    def close(self) -> None:
        if self._sockets is not None:
            self._sockets.close()
        os.close(self._parent_read)
        os.close(self._parent_write)

    async def _start_stores(self, config: Config) -> Config:
        postgres = PostgresServer(config.folder, binaries=config.database.binaries)
        valkey = ValkeyServer(config.folder, binaries=config.redis.binaries)
        servants: list[Servant] = []
        if not config.database.url:
            servants.append(StoreServant(postgres, self._guard))
        if not config.redis.url:
            servants.append(StoreServant(valkey, self._guard))
        await self._supervisor.start(servants, stop_s=config.serve.stop_stores_s)
        replace = msgspec.structs.replace
        if not config.database.url:
            config = replace(config, database=replace(config.database, **_urls_of(postgres)))
        if not config.redis.url:
            config = replace(config, redis=replace(config.redis, url=valkey.url))
        return config

    def _engine(self, file: Path, shard: int, sockets: BeatSockets) -> Servant:
        udp = [opened.fileno() for opened in sockets.udp_of_shard(shard, shards=self._config.engine.shards)]
        http = sockets.http.fileno()
        args = ["--shard", str(shard), "--http-fd", str(http), "--udp-fd", ",".join(map(str, udp))]
        return self._child("engine", file, args, name=f"engine-{shard}", fds=[*udp, http])

    def _child(
        self, command: str, file: Path, args: Sequence[str] = (), *, name: str = "", fds: Sequence[int] = ()
    ) -> Servant:
        return ProcessServant(
            name or command,
            [command, "--config-file", str(file), *args],
            run_folder=self._run,
            parent_fd=self._parent_read,
            pass_fds=fds,
            guard=self._guard,
        )

    async def _serve_metrics(
        self, config: Config, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await serve_metrics(
            host=config.serve.metrics_host,
            port=config.serve.metrics_port,
            registry=new_registry({"serve": self._supervisor.statistics}),
            live=dict,
            ready=lambda: {"children": self._supervisor.reason},
            task_status=task_status,
        )


def _urls_of(postgres: PostgresServer) -> dict[str, str]:
    return {"url": postgres.url, "owner_url": postgres.owner_url}


def _without_owner(config: Config) -> Config:
    """For the children, none of whom may be able to become the owner of what is sealed."""
    replace = msgspec.structs.replace
    return replace(config, database=replace(config.database, owner_url=""))


async def _migrate(config: Config, *, embedded: bool) -> None:
    """Bring the database up to date; one that is away is waited for, as long as a start may take."""
    deadline = trio.current_time() + config.serve.ready_s_max
    while True:
        try:
            if embedded:
                await make_application_role(config.database.owner_url)
            await migrate(config.database.migration_url, application_url=config.database.url)
            return
        except (NotTheOwnerError, OtherDatabaseError) as error:
            raise StartFailedError(f"the database cannot be brought up to date: {error}") from error
        except StoreUnavailableError as error:
            log.warning("database.away", why=str(error))
            if trio.current_time() > deadline:
                raise StartFailedError(f"the database cannot be reached: {error}") from error
        await trio.sleep(1.0)


def _with_ports(config: Config, sockets: BeatSockets) -> Config:
    """The configuration with every port 0 replaced by the port it became. NoFreePortError."""
    replace, free = msgspec.structs.replace, FreePorts()
    engine, web, worker, own = config.engine, config.web, config.worker, config.serve
    shards = engine.shards
    return replace(
        config,
        ingest=replace(config.ingest, port=sockets.port),
        engine=replace(
            engine, metrics_port=engine.metrics_port or free.pick(engine.metrics_host, count=shards)
        ),
        web=replace(web, port=web.port or free.pick(web.host)),
        worker=replace(worker, metrics_port=worker.metrics_port or free.pick(worker.metrics_host)),
        serve=replace(own, metrics_port=own.metrics_port or free.pick(own.metrics_host)),
    )


def _patience(config: Config) -> Patience:
    return Patience(
        intensity=config.serve.restart_intensity,
        period_s=config.serve.restart_period_s,
        attempts_max=config.serve.start_attempts_max,
    )


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _first_of(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def until(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(until, event)
