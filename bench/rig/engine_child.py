"""One real shard of the engine in a process of its own, its table filled by columns, its stores of no cost.

Orders: `hold` (stop reading the sockets; the whole loop waits in that reading until `go`), `go` with the
number of beats to come (answers, once they are all applied and answered, what that took), `statistics`,
`events` (those since the last time, see `EventLog`), `snapshot`, `ready` and `missing` (see
`bench.rig.readiness`). It ends when stdin closes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
import trio

from bench.rig.child import say
from bench.rig.machine import cpu_s, rss_bytes
from bench.rig.readiness import missing_beats, wait_ready
from bench.rig.stores import POSITION, CountingHistory, CountingLiveView, StillRegistry
from bench.rig.world import fill
from engine.committer import Commit
from engine.core.asks import RowAnswers
from engine.core.keys import MasterSecrets
from engine.core.ports import History, LiveView, RegistryFeed
from engine.core.records import Event
from engine.http_requests import PlainRequests
from engine.ingest_http import HttpListener, serve_http
from engine.journal_blocks import HEADER_BYTES, Kind
from engine.listener_udp import UdpListener
from engine.parts import Surroundings
from engine.settings import EngineSettings
from engine.shard import Shard
from engine.sockets import DropCounter
from storage.bridge import Host, await_host, run_on_uvloop
from storage.open import open_stores
from storage.settings import DatabaseSettings, RedisSettings

SECRETS = MasterSecrets(secrets={1: bytes(range(32))})


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the bench asks for."""

    directory: str
    rows: int
    workloads: int
    interval_ms: int
    shard: int = 0
    udp_fds: list[int] = []
    http_fd: int = -1
    database_url: str = ""  # of real stores; empty: stores of no cost
    redis_url: str = ""
    log_events: bool = False
    recovered: bool = False  # its table is what an earlier life left in the directory
    settings: dict[str, Any] = {}


class Meter:
    """Measures from `go` until so many beats have been applied and answered."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._left = 0
        self._began = (0.0, 0.0)
        self._answer = shard.intake.answer
        shard.intake.answer = self._counted  # type: ignore[method-assign] # a bench's hand on the pulse

    def go(self, frames: int) -> None:
        self._left = frames
        self._began = (time.perf_counter(), cpu_s())

    def _counted(self, group: Any, beats: Any, applied: Any) -> None:
        self._answer(group, beats, applied)
        if self._left <= 0:
            return
        self._left -= len(beats)
        if self._left <= 0:
            wall, cpu = time.perf_counter() - self._began[0], cpu_s() - self._began[1]
            say(wall_s=wall, cpu_s=cpu, **figures(self._shard))


class EventLog:
    """When each event was on disk, by the shard's own clock."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._written = shard.committer.written
        self._blocks: list[tuple[int, bytes]] = []
        shard.committer.written = self._noted  # type: ignore[method-assign]

    def _noted(self, commit: Any) -> None:
        now_ms = self._shard.clock.now_ms()
        self._blocks += [(now_ms, block) for kind, block in commit.blocks if kind == Kind.EVENTS]
        self._written(commit)

    def take(self) -> list[tuple[str, int, int, int]]:
        """(kind, row, since, on disk at) of all nodes' events so far; rows are told by the node's id."""
        found = []
        for at_ms, block in self._blocks:
            for event in msgspec.msgpack.decode(block[HEADER_BYTES:], type=list[Event]):
                if event.node_id is not None:
                    found.append((event.kind, int(event.node_id[-12:], 16), event.since_ms, at_ms))
        self._blocks.clear()
        return found


class LargestCommit:
    """The most beats that one commit took: they had all been verified and waited for the journal."""

    def __init__(self, shard: Shard) -> None:
        self.beats = 0
        self._begin = shard.committer.begin
        shard.committer.begin = self._noted  # type: ignore[method-assign]

    def _noted(self) -> Commit:
        commit = self._begin()
        self.beats = max(self.beats, len(commit.beats))
        return commit


class Gate:
    """Holds a listener: its next reading waits, and the loop with it, so that the queue can be filled.

    The time held is no stall of the shard's: its readings are counted from the moment it is let go.
    """

    def __init__(self, listener: UdpListener, shard: Shard, meter: Meter) -> None:
        self._read = listener.read
        self._listener, self._shard, self._meter = listener, shard, meter
        self.closed = False
        listener.read = self._gated  # type: ignore[method-assign]

    def _gated(self) -> bool:
        if self.closed:
            self.closed = False
            say(held=True)
            order = json.loads(sys.stdin.readline())
            for each in self._shard.listeners:
                each.begin(self._shard.clock.now_ms())
            self._meter.go(order["frames"])
        return self._read()


def figures(shard: Shard) -> dict[str, Any]:
    """What the shard counts."""
    counted = shard.statistics()
    udp = [each.statistics() for each in shard.listeners]
    return {
        "taken": shard.intake.taken,
        "answered": {str(code): number for code, number in shard.intake.answered.items()},
        "rejected": dict(shard.intake.rejected),
        "acks_sent": sum(each.acks_sent for each in udp),
        "acks_lost": sum(each.acks_lost for each in udp),
        "batches": sum(each.batches for each in udp),
        "commits": counted["journal"]["commits"],
        "commit_ms_max": counted["committer"]["commit_ms_max"],
        "gaps": counted["gaps"]["gaps"],
        "unobserved_ms": counted["gaps"]["unobserved_ms"],
        "actors_started": counted["actors"]["started"],
        "process_cpu_s": cpu_s(),
        "rss_bytes": rss_bytes(),
    }


async def _main(options: Options) -> int:
    async with _stores(options) as (history, live, asks):
        udp = tuple(socket.socket(fileno=fd) for fd in options.udp_fds)
        shard = Shard(
            settings=msgspec.convert(options.settings, EngineSettings),
            shard=options.shard,
            directory=Path(options.directory) / f"{options.shard}",
            around=Surroundings(
                registry=cast("RegistryFeed", StillRegistry()),
                history=history,
                live=live,
                asks=asks,
                secrets=SECRETS,
                log=structlog.get_logger(),
                report=_report,
                host=Host("journal"),
                udp=udp,
                drops=DropCounter(udp) if udp else None,
            ),
        )
        recovered_s = time.time()
        if not options.recovered:
            fill(
                shard.table,
                rows=options.rows,
                workloads=options.workloads,
                interval_ms=options.interval_ms,
                now_ms=shard.clock.now_ms(),
            )
            shard.registry.position, shard.registry.loaded = POSITION, True
        await _serve(shard, options, recovered_s)
    return 0


@asynccontextmanager
async def _stores(options: Options) -> AsyncIterator[tuple[History, LiveView, RowAnswers | None]]:
    if not options.database_url:
        yield cast("History", CountingHistory()), cast("LiveView", CountingLiveView()), None
        return
    database, redis = DatabaseSettings(url=options.database_url), RedisSettings(url=options.redis_url)
    async with open_stores(database, redis) as stores:
        yield stores.history, stores.live, stores.asks


async def _serve(shard: Shard, options: Options, recovered_s: float) -> None:
    orders = Orders(shard, options)
    began, journal_end = time.perf_counter(), shard.journal.committed

    def listening() -> None:
        # All actors have been started, and have run until they parked themselves.
        say(
            listening=True,
            recovered_s=recovered_s,
            listening_s=time.time(),
            replayed_beats=shard.recovered.beats,
            journal_end=journal_end,
            start_s=time.perf_counter() - began,
            actors_live=shard.actors.live,
            rss_bytes=rss_bytes(),
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(orders.run)
        await shard.serve(open_doors=partial(_open_http, options), listening=listening, stop=orders.stop)
        nursery.cancel_scope.cancel()


async def _open_http(options: Options, shard: Shard) -> Callable[[], Awaitable[None]]:
    if options.http_fd < 0:
        return trio.lowlevel.checkpoint
    listener: HttpListener = await await_host(
        partial(
            serve_http,
            socket.socket(fileno=options.http_fd),
            door=shard.intake,
            secrets=SECRETS,
            settings=shard.settings.ingest,
            plain=PlainRequests(door=shard.intake, secrets=SECRETS),
        )
    )

    async def close() -> None:
        await await_host(listener.close)

    return close


class Orders:
    """What the bench wants of the shard."""

    def __init__(self, shard: Shard, options: Options) -> None:
        self.stop = trio.Event()
        self._shard = shard
        self._meter = Meter(shard)
        self._largest = LargestCommit(shard)
        self._events = EventLog(shard) if options.log_events else None
        self._gates: list[Gate] = []

    async def run(self) -> None:
        """Until stdin closes."""
        while True:
            await trio.lowlevel.wait_readable(sys.stdin)
            line = sys.stdin.readline()
            if not line:
                self.stop.set()
                return
            await self._obey(json.loads(line))

    async def _obey(self, order: dict[str, Any]) -> None:
        shard = self._shard
        if order["do"] == "hold":
            self._gates = self._gates or [Gate(each, shard, self._meter) for each in shard.listeners]
            self._gates[0].closed = True
        elif order["do"] == "go":
            self._meter.go(order["frames"])
        elif order["do"] == "events" and self._events is not None:
            say(events=self._events.take())
        elif order["do"] == "snapshot":
            await shard.parts.snapshots.take()
            say(**shard.parts.snapshots.statistics()._asdict())
        elif order["do"] == "ready":
            say(**await wait_ready(shard))
        elif order["do"] == "missing":
            say(**missing_beats(shard, Path(order["acked"])))
        else:
            say(**figures(shard), commit_beats_max=self._largest.beats)


def _report(error: BaseException, **_tags: Any) -> None:
    raise error  # an actor that crashes ends the bench: its figures would be of something else


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    decoded = msgspec.json.decode(sys.argv[1], type=Options)
    os.makedirs(decoded.directory, exist_ok=True)
    sys.exit(run_on_uvloop(partial(_main, decoded)))
