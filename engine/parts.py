"""The parts of a shard and how they are joined: recovered, but not yet running.

Parts know each other only through what is passed here; there is no other place where they meet. How they
run, and stop, is `engine.shard`.
"""

from __future__ import annotations

import secrets as random_secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from engine.actors import Actor, Actors
from engine.clock import Clock
from engine.committer import Committer
from engine.core.keys import MasterSecrets
from engine.core.ports import History, LiveView, RegistryFeed
from engine.decisions import Decisions
from engine.flusher import Flusher, HeadSource
from engine.gaps import Gaps
from engine.intake import Intake
from engine.journal import Files, Journal
from engine.judge import Judge
from engine.pace import Pace
from engine.recovery import Recovered, recover
from engine.registry_follow import RegistryFollower
from engine.settings import EngineSettings
from engine.snapshots import Snapshots
from engine.table import Table
from engine.windows import Windows


class Log(Protocol):
    """Where changes of state are told (a structlog logger fits)."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


class Drops(Protocol):
    """Counts datagrams that the kernel dropped for want of buffer (`engine.sockets.DropCounter`)."""

    def read(self) -> int: ...


class Surroundings(NamedTuple):
    """What a shard is given from outside."""

    registry: RegistryFeed
    history: History
    live: LiveView
    secrets: MasterSecrets
    log: Log
    report: Callable[..., None]  # a crash, with tags
    udp: tuple[socket.socket, ...] = ()
    drops: Drops | None = None
    files: Files | None = None  # the journal's system calls; faults in tests


class Hooks(NamedTuple):
    """What the parts ask of the shard that runs them."""

    complete_ms: Callable[[], int]  # everything received up to here is applied
    wake: Callable[[], None]  # the committer has work; from either loop
    crashed: Callable[[Actor, BaseException, bool], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """One shard's parts."""

    table: Table
    decisions: Decisions
    gaps: Gaps
    windows: Windows
    pace: Pace
    recovered: Recovered
    clock: Clock
    journal: Journal
    intake: Intake
    actors: Actors
    committer: Committer
    judge: Judge
    registry: RegistryFollower
    flusher: Flusher
    snapshots: Snapshots


def build(
    *, settings: EngineSettings, shard: int, directory: Path, around: Surroundings, hooks: Hooks
) -> Parts:
    """Recover a shard from its folder and join its parts. Takes as long as the replay; OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    table = Table(shard=shard, shards=settings.shards)
    decisions, gaps, windows = Decisions(table), Gaps(table), Windows()
    recovered = recover(directory, table, decisions, gaps, windows, around.secrets)
    clock = Clock(recovered.last_tick)
    decisions.now_ms = clock.now_ms()
    log = around.log
    journal = Journal(
        directory,
        shard=shard,
        shards=settings.shards,
        boot_id=clock.boot_id,
        segment_bytes=settings.journal.segment_bytes_max,
        now_ms=clock.now_ms(),
        files=around.files,
    )
    pace = Pace(rate_max=settings.ingest.next_ms_rate_max, jitter=settings.ingest.next_ms_jitter)
    intake = Intake(table, pace, settings.ingest, now_ms=clock.now_ms, wake=hooks.wake)
    actors = Actors(table, decisions, settings.liveness, now_ms=clock.now_ms, crashed=hooks.crashed)
    committer = Committer(
        intake,
        journal,
        decisions,
        actors,
        gaps,
        settings.journal,
        failed=lambda error: log.error("journal.failed", error=str(error), shard=shard),
    )
    judge = Judge(
        table,
        decisions,
        actors,
        gaps,
        windows,
        journal,
        settings.liveness,
        phase_changed=lambda phase: log.warning("breaker.changed", phase=phase, shard=shard),
    )
    judge.breaker = recovered.breaker
    registry, flusher, snapshots = _followers(
        settings, directory, around, hooks, table, windows, journal, committer, decisions, gaps, judge, clock,
        recovered,
    )  # fmt: skip
    return Parts(
        table=table,
        decisions=decisions,
        gaps=gaps,
        windows=windows,
        pace=pace,
        recovered=recovered,
        clock=clock,
        journal=journal,
        intake=intake,
        actors=actors,
        committer=committer,
        judge=judge,
        registry=registry,
        flusher=flusher,
        snapshots=snapshots,
    )


def _followers(
    settings: EngineSettings,
    directory: Path,
    around: Surroundings,
    hooks: Hooks,
    table: Table,
    windows: Windows,
    journal: Journal,
    committer: Committer,
    decisions: Decisions,
    gaps: Gaps,
    judge: Judge,
    clock: Clock,
    recovered: Recovered,
) -> tuple[RegistryFollower, Flusher, Snapshots]:
    """The parts that follow a store or the disk at their own pace."""
    log, shard = around.log, table.shard

    def tell_away(store: str, away: bool) -> None:
        if away:
            log.warning("store.away", store=store, shard=shard)
        else:
            log.info("store.back", store=store, shard=shard)

    registry = RegistryFollower(
        around.registry,
        table,
        windows,
        journal,
        around.secrets,
        settings.flush,
        position=recovered.registry_position,
        now_ms=clock.now_ms,
        appended=committer.wake,
        away=lambda away: tell_away("registry", away),
    )
    flusher = Flusher(
        table,
        journal,
        committer,
        decisions,
        around.history,
        around.live,
        settings.flush,
        epoch=random_secrets.token_hex(8),
        source=HeadSource(
            hooks.complete_ms,
            lambda: registry.position,
            lambda: judge.degraded,
            lambda: committer.undecided_from_ms,
            clock.now_ms,
        ),
        away=tell_away,
    )
    snapshots = Snapshots(
        directory,
        table,
        decisions,
        gaps,
        journal,
        committer,
        clock,
        settings.journal,
        breaker=lambda: judge.breaker,
        registry_position=lambda: registry.position,
        flushed=lambda: flusher.flushed,
        failed=lambda error: log.error("snapshot.failed", error=str(error), shard=shard),
    )
    return registry, flusher, snapshots
