"""The parts of a shard and how they are joined: recovered, but not yet running.

Parts know each other only through what is passed here; there is no other place where they meet. How they
run, and stop, is `engine.shard`.
"""

from __future__ import annotations

import secrets as random_secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from engine.actors import Actor, Actors
from engine.clock import Clock
from engine.committer import Committer
from engine.core.asks import RowAnswers
from engine.core.keys import MasterSecrets
from engine.core.leases import LeaseSettling
from engine.core.ports import History, LiveView, RegistryFeed
from engine.decisions import Decisions
from engine.flusher import Flusher, HeadSource
from engine.gap_news import GapNews
from engine.gaps import Gaps
from engine.host import Host
from engine.intake import Intake
from engine.journal import Files, Journal
from engine.judge import Judge
from engine.lease_front import LeaseFront
from engine.pace import Pace
from engine.recovery import recover
from engine.registry_follow import RegistryFollower
from engine.settings import EngineSettings
from engine.settler import Settler
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
    host: Host
    udp: tuple[socket.socket, ...] = ()
    drops: Drops | None = None
    asks: RowAnswers | None = None  # those who want rows as they are now; none in most tests
    files: Files | None = None  # the journal's system calls; faults in tests
    leases: LeaseSettling | None = None  # where leases are settled; nowhere in most tests


class Hooks(NamedTuple):
    """What the parts ask of the shard that runs them."""

    complete_ms: Callable[[], int]  # everything received up to here is applied
    crashed: Callable[[Actor, BaseException, bool], None]


class Parts:
    """One shard's parts. Recovers the shard from its folder: as long as the replay; OSError, DamagedError."""

    def __init__(
        self, *, settings: EngineSettings, shard: int, directory: Path, around: Surroundings, hooks: Hooks
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._settings, self._directory, self._log = settings, directory, around.log
        self._report = around.report
        self.table = Table(shard=shard, shards=settings.shards)
        self.decisions, self.windows = Decisions(self.table), Windows()
        self.gaps = Gaps(self.table, GapNews(self.decisions))
        self.recovered = recover(
            directory, self.table, self.decisions, self.gaps, self.windows, around.secrets
        )
        self.clock = Clock(
            self.recovered.last_tick,
            not_before_ms=self.recovered.last_ms,
            ahead_ms=settings.clock_ahead_ms,
        )
        self.decisions.now_ms = self.clock.now_ms()
        self.journal = Journal(
            directory,
            shard=shard,
            shards=settings.shards,
            boot_id=self.clock.boot_id,
            segment_bytes=settings.journal.segment_bytes_max,
            now_ms=self.clock.now_ms(),
            files=around.files,
        )
        self._join_beats(hooks, around.host)
        self._join_judge()
        self._join_stores(around, hooks)
        self._join_snapshots()

    def _join_beats(self, hooks: Hooks, host: Host) -> None:
        """From the doors to the journal, the table and the actors."""
        ingest, now_ms = self._settings.ingest, self.clock.now_ms
        self.pace = Pace(rate_max=ingest.next_ms_rate_max, jitter=ingest.next_ms_jitter)
        self.intake = Intake(
            self.table,
            self.pace,
            ingest,
            now_ms=now_ms,
            wake=lambda: self.committer.wake(),
            cloned=self.decisions.clone,
        )
        self.actors = Actors(
            self.table, self.decisions, self._settings.liveness, now_ms=now_ms, crashed=hooks.crashed
        )
        self.committer = Committer(
            self.intake,
            self.journal,
            self.decisions,
            self.actors,
            self.gaps,
            self._settings.journal,
            host,
            failed=lambda error: self._log.error("journal.failed", error=str(error), shard=self.table.shard),
        )

    def _join_judge(self) -> None:
        self.judge = Judge(
            self.table,
            self.decisions,
            self.actors,
            self.gaps,
            self.windows,
            self.journal,
            self._settings.liveness,
            phase_changed=lambda phase: self._log.warning(
                "breaker.changed", phase=phase, shard=self.table.shard
            ),
        )
        self.judge.breaker = self.recovered.breaker
        self.leases = LeaseFront(self.table, self.judge, self.actors, self.gaps, self.committer)

    def _join_stores(self, around: Surroundings, hooks: Hooks) -> None:
        """What follows Postgres and Redis at their own pace."""
        self.registry = RegistryFollower(
            around.registry,
            self.table,
            self.windows,
            self.journal,
            around.secrets,
            self._settings.flush,
            position=self.recovered.registry_position,
            now_ms=self.clock.now_ms,
            appended=self._registry_applied,
            away=lambda away: self._tell_away("registry", away),
            unknown_secret=self._tell_unknown_secret,
            went_back=self._tell_registry_went_back,
        )
        self.flusher = Flusher(
            self.table,
            self.journal,
            self.committer,
            self.decisions,
            around.history,
            around.live,
            self._settings.flush,
            epoch=random_secrets.token_hex(8),
            source=HeadSource(
                hooks.complete_ms,
                lambda: self.registry.position,
                lambda: self.judge.degraded,
                lambda: self.committer.undecided_from_ms,
                self.clock.now_ms,
                self.leases.said_ms,
            ),
            away=self._tell_away,
            failed=self._flush_failed,
            rejoining=self._tell_rejoining,
        )
        self.settler: Settler | None = None
        if around.leases is not None:
            self.settler = Settler(
                around.leases,
                self.flusher,
                shards=self._settings.shards,
                now_ms=self.clock.now_ms,
                failed=self._settle_failed,
            )

    def _join_snapshots(self) -> None:
        self.snapshots = Snapshots(
            self._directory,
            self.table,
            self.decisions,
            self.gaps,
            self.windows,
            self.journal,
            self.committer,
            self.clock,
            self._settings.journal,
            breaker=lambda: self.judge.breaker,
            registry_position=lambda: self.registry.position,
            flushed=lambda: self.flusher.flushed,
            settled=self.actors.settled,
            failed=lambda error: self._log.error("snapshot.failed", error=str(error), shard=self.table.shard),
        )

    def _registry_applied(self) -> None:
        self.committer.wake()
        self.flusher.tell_registry()

    def _flush_failed(self, error: BaseException) -> None:
        self._log.error("flush.failed", error=repr(error), shard=self.table.shard)
        self._report(error, shard=str(self.table.shard), part="flusher")

    def _settle_failed(self, error: BaseException) -> None:
        self._log.error("settle.failed", error=repr(error), shard=self.table.shard)
        self._report(error, shard=str(self.table.shard), part="settler")

    def _tell_unknown_secret(self, secret_id: int) -> None:
        shard = self.table.shard
        self._log.error("secret.unknown", secret_id=secret_id, shard=shard)
        detail = f"sessions of shard {shard} name master secret {secret_id}: it is not in the secrets file"
        self.decisions.installation_event(
            "secret.unknown", self.clock.now_ms(), detail, about=f"shard-{shard} secret-{secret_id}"
        )

    def _tell_registry_went_back(self, known: int, found: int) -> None:
        """Rows and sessions are loaded anew: what the registry forgot it cannot tell us of."""
        self._log.warning("registry.went_back", known=known, found=found, shard=self.table.shard)

    def _tell_rejoining(self, why: str, held: bool) -> None:
        """PostgreSQL is not as we left it: made up for from the journal or, held, waiting for an operator."""
        self.registry.reload()
        told = self._log.error if held else self._log.warning
        told("history.out_of_step" if held else "history.went_back", why=why, shard=self.table.shard)

    def _tell_away(self, store: str, away: bool) -> None:
        if away:
            self._log.warning("store.away", store=store, shard=self.table.shard)
        else:
            self._log.info("store.back", store=store, shard=self.table.shard)
