"""One shard of the engine, put together: recovery, listening, commits, judging, flushes, snapshots.

The parts know each other only through what is passed here. `Shard.serve` runs until told to stop, then stops
in order: no more beats taken, everything committed and applied, a last tick, a last flush, a snapshot.
"""

from __future__ import annotations

import os
import secrets as random_secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import trio

from engine import snapshot
from engine.actors import Actor, Actors
from engine.clock import Clock
from engine.committer import Committer
from engine.core.keys import MasterSecrets
from engine.core.ports import History, LiveView, RegistryFeed, StoreUnavailableError
from engine.core.records import Gap
from engine.core.step import SUSPECT, UP
from engine.decisions import Decisions
from engine.flusher import Flusher, HeadSource
from engine.gaps import Gaps
from engine.intake import Foreign, Intake
from engine.journal import Files, Journal
from engine.journal_blocks import Kind
from engine.judge import Judge
from engine.listener_udp import UdpListener, drained_ms
from engine.pace import Pace
from engine.recovery import Recovered, recover
from engine.registry_follow import RegistryFollower
from engine.settings import EngineSettings
from engine.table import Table
from engine.windows import Windows

_TICK_S = 1.0
_DROPS_S = 0.25
_REGISTRY_WAIT_S = 1.0


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
    udp: tuple[socket.socket, ...]
    drops: Drops | None
    files: Files | None = None  # the journal's system calls; faults in tests


class Shard:
    """One shard. Made by `open_shard`, which recovers it."""

    def __init__(
        self,
        *,
        settings: EngineSettings,
        shard: int,
        directory: Path,
        around: Surroundings,
    ) -> None:
        self.settings, self.number, self.directory = settings, shard, directory
        self._around = around
        self._log = around.log
        self.table = Table(shard=shard, shards=settings.shards)
        self.decisions = Decisions(self.table)
        self.gaps = Gaps(self.table)
        self.windows = Windows()
        self.pace = Pace(rate_max=settings.ingest.next_ms_rate_max, jitter=settings.ingest.next_ms_jitter)
        directory.mkdir(parents=True, exist_ok=True)
        self.recovered: Recovered = recover(
            directory, self.table, self.decisions, self.gaps, self.windows, around.secrets
        )
        self.clock = Clock(self.recovered.last_tick)
        self.started_ms = self.clock.now_ms()
        self.decisions.now_ms = self.started_ms
        self.journal = Journal(
            directory,
            shard=shard,
            shards=settings.shards,
            boot_id=self.clock.boot_id,
            segment_bytes=settings.journal.segment_bytes_max,
            now_ms=self.started_ms,
            files=around.files,
        )
        self._token: trio.lowlevel.TrioToken | None = None
        self._asked = False
        self.intake = Intake(
            self.table, self.pace, settings.ingest, now_ms=self.clock.now_ms, wake=self._wake
        )
        self.actors = Actors(
            self.table, self.decisions, settings.liveness, now_ms=self.clock.now_ms, crashed=self._crashed
        )
        self.committer = Committer(
            self.intake,
            self.journal,
            self.decisions,
            self.actors,
            self.gaps,
            settings.journal,
            failed=lambda error: self._log.error("journal.failed", error=str(error), shard=shard),
        )
        self.judge = Judge(
            self.table,
            self.decisions,
            self.actors,
            self.gaps,
            self.windows,
            self.journal,
            settings.liveness,
            phase_changed=lambda phase: self._log.warning("breaker.changed", phase=phase, shard=shard),
        )
        self.judge.breaker = self.recovered.breaker
        self.registry = RegistryFollower(
            around.registry,
            self.table,
            self.windows,
            self.journal,
            around.secrets,
            settings.flush,
            position=self.recovered.registry_position,
            now_ms=self.clock.now_ms,
            appended=self.committer.wake,
            away=lambda away: self._away("registry", away),
        )
        self.flusher = Flusher(
            self.table,
            self.journal,
            self.committer,
            self.decisions,
            around.history,
            around.live,
            settings.flush,
            epoch=random_secrets.token_hex(8),
            source=HeadSource(
                self.complete_ms,
                lambda: self.registry.position,
                lambda: self.judge.degraded,
                lambda: self.committer.undecided_from_ms,
                self.clock.now_ms,
            ),
            away=self._away,
        )
        self.listeners: list[UdpListener] = []
        self.foreign: Foreign = self._drop_foreign
        self._drops_seen_ms = 0
        self._snapshot_ms = 0.0
        self.listening = False

    # -- what the parts ask -------------------------------------------------------------------------

    def complete_ms(self) -> int:
        """Everything received up to here has been taken from the sockets, committed and applied."""
        now = drained_ms(self.listeners) if self.listeners else self.clock.now_ms()
        oldest = self.committer.oldest_unapplied_ms()
        return now if oldest is None else min(now, oldest - 1)

    def _wake(self) -> None:
        """Wake the committer, from trio or from the host loop; once is enough until it runs."""
        if self._asked or self._token is None:
            return
        self._asked = True
        self._token.run_sync_soon(self._woken)

    def _woken(self) -> None:
        self._asked = False
        self.committer.wake()

    def _away(self, store: str, away: bool) -> None:
        if away:
            self._log.warning("store.away", store=store, shard=self.number)
        else:
            self._log.info("store.back", store=store, shard=self.number)

    def _crashed(self, actor: Actor, error: BaseException, aside: bool) -> None:
        self._log.error("actor.crashed", actor=repr(actor), error=repr(error), quarantined=aside)
        self._around.report(error, shard=str(self.number), actor=repr(actor))
        if aside:
            detail = f"{actor!r} kept crashing: {error!r}"
            self.decisions.installation_event("actor.quarantined", self.clock.now_ms(), detail)
        self.judge.look_again(actor.index)

    def _drop_foreign(self, frames: Any, names: Any, t_ms: int) -> None:
        self.intake.rejected["row"] += len(frames)

    def _stalled(self, from_ms: int, to_ms: int) -> None:
        self._log.warning("shard.stalled", ms=to_ms - from_ms, shard=self.number)
        self.gaps.record(Gap(self.number, from_ms, to_ms, "stall"), self.journal)

    # -- running ------------------------------------------------------------------------------------

    async def serve(
        self,
        *,
        open_doors: Callable[[Shard], Awaitable[Callable[[], Awaitable[None]]]],
        listening: Callable[[], None],
        stop: trio.Event,
    ) -> None:
        """Serve until `stop`. `open_doors` starts HTTP listener and forwarder and returns how to close them.

        Rows and sessions are known before the first datagram is read; without Postgres those of the journal.
        """
        self._token = trio.lowlevel.current_trio_token()
        await self._learn_rows()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.actors.run, self._after_slice)
            nursery.start_soon(self.committer.run)
            await trio.lowlevel.checkpoint()
            if not self.settings.liveness.passivate:
                self.actors.start_all()
            self._begin_listening(nursery)
            close_doors = await open_doors(self)
            for part in (self.registry.run, self.flusher.run, self._judge, self._tick, self._snapshots):
                nursery.start_soon(part)
            if self._around.drops is not None:
                nursery.start_soon(self._watch_drops, self._around.drops)
            self.listening = True
            listening()
            await stop.wait()
            self.listening = False
            await close_doors()
            nursery.cancel_scope.cancel()
        await self._finish()

    async def _learn_rows(self) -> None:
        """A shard that knows nothing yet waits for the registry; one that does catches up if it can."""
        fresh = self.recovered.last_ms is None
        while True:
            try:
                if self.registry.position == 0:
                    await self.registry.load(seq_floor_ms=self.started_ms if fresh else 0)
                else:
                    await self.registry.catch_up()
                return
            except StoreUnavailableError:
                self.registry.away = True
                if self.registry.position:
                    return
                self._log.warning("registry.awaited", shard=self.number)
                await trio.sleep(_REGISTRY_WAIT_S)

    def _begin_listening(self, nursery: trio.Nursery) -> None:
        now_ms = self.clock.now_ms()
        last_ms = self.recovered.last_ms
        if last_ms is not None:
            cause = "restart" if self.recovered.orderly else "crash"
            self.gaps.record(Gap(self.number, last_ms, now_ms, cause), self.journal)
        for sock in self._around.udp:
            listener = UdpListener(
                sock,
                self.intake,
                now_ms=self.clock.now_ms,
                foreign=self._take_foreign,
                stalled=self._stalled if not self.listeners else lambda _from, _to: None,
                batch_max=self.settings.ingest.batch_frames_max,
            )
            listener.begin(now_ms)
            self.listeners.append(listener)
            nursery.start_soon(listener.run)
        self.judge.judged_ms = now_ms
        self._drops_seen_ms = now_ms
        self.committer.wake()

    def _take_foreign(self, frames: Any, names: Any, t_ms: int) -> None:
        self.foreign(frames, names, t_ms)

    def _after_slice(self) -> None:
        self.decisions.drain(self.journal, self.clock.now_ms())
        if self.journal.pending_bytes:
            self.committer.wake()

    async def _judge(self) -> None:
        while True:
            await trio.sleep(self.settings.liveness.judge_interval_ms / 1_000)
            if self.committer.undecided_from_ms is not None:
                continue  # we cannot take beats: nobody is silent by fault of its own
            self.decisions.now_ms = self.clock.now_ms()
            while self.judge.look(self.complete_ms()):
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_TICK_S)
            now_ms = self.clock.now_ms()
            if self.clock.slew():
                self._log.warning("clock.stepped", **self.clock.statistics()._asdict())
                self.decisions.installation_event("clock.stepped", now_ms, str(self.clock.statistics()))
            self._journal_tick(last=False)
            for index in self.actors.forgive(now_ms):
                self.judge.look_again(index)
            rows = self.table.row.state[: self.table.rows]
            self.pace.follow(int(((rows == UP) | (rows == SUSPECT)).sum()))
            self._check_disk()

    def _journal_tick(self, *, last: bool) -> None:
        tick = msgspec.structs.replace(self.clock.tick(), last=last)
        self.journal.append(Kind.TICK, tick.wall_ms, msgspec.msgpack.encode(tick))
        self.committer.wake()

    def _check_disk(self) -> None:
        """Below the reserve nothing is taken any more, while there is still room to write down the fact."""
        if self.committer.failing_since_ms is not None:
            return
        disk = os.statvfs(self.directory)
        short = disk.f_bavail * disk.f_frsize < self.settings.journal.reserve_bytes
        self.committer.set_short_of_disk(short, self.clock.now_ms())

    async def _watch_drops(self, drops: Drops) -> None:
        """Datagrams dropped by the kernel between two readings of its counter are a gap of ours."""
        seen = drops.read()
        while True:
            await trio.sleep(_DROPS_S)
            now_ms, count = self.clock.now_ms(), drops.read()
            if count > seen:
                self._log.warning("kernel.dropped", datagrams=count - seen, shard=self.number)
                self.gaps.record(Gap(self.number, self._drops_seen_ms, now_ms, "drops"), self.journal)
                self.committer.wake()
            seen, self._drops_seen_ms = count, now_ms

    # -- snapshots ----------------------------------------------------------------------------------

    async def _snapshots(self) -> None:
        while True:
            await trio.sleep(self.settings.journal.snapshot_interval_s)
            await self.take_snapshot()

    async def take_snapshot(self) -> None:
        """Copy the columns, wait until what follows from them is committed, write, trim the journal."""
        started = trio.current_time()
        self.decisions.drain(self.journal, self.clock.now_ms())
        taken = self._capture()
        if self.journal.pending_bytes:
            self.committer.wake()
        await self.committer.wait_settled(self.journal.appended)
        try:
            await trio.to_thread.run_sync(snapshot.write, self.directory, taken)
        except OSError as error:
            self._log.error("snapshot.failed", error=str(error), shard=self.number)
            return
        self._trim()
        self._snapshot_ms = (trio.current_time() - started) * 1_000

    def _trim(self) -> None:
        """A segment goes when both a snapshot and Postgres have passed it."""
        if self.flusher.flushed is not None:
            self.journal.trim(min(snapshot.oldest_position(self.directory), self.flusher.flushed))

    def _capture(self) -> snapshot.Snapshot:
        table = self.table
        header = snapshot.SnapshotHeader(
            version=snapshot.VERSION,
            position=self.committer.applied_position,
            shard=self.number,
            shards=self.settings.shards,
            rows=table.rows,
            slots=table.slots,
            projects=table.project_ids,
            gap_ends=table.gap_ends,
            gaps=self.gaps.recent,
            detached=table.detached,
            phase=self.judge.breaker.phase,
            phase_since_ms=self.judge.breaker.since_ms,
            registry_position=self.registry.position,
            tick=self.clock.tick(),
        )
        columns = {
            "row": table.row.copy(table.rows),
            "generation": table.generation.copy(table.rows),
            "slot": table.slot.copy(table.slots),
        }
        return snapshot.Snapshot(header, columns)

    async def _finish(self) -> None:
        """Nothing is taken any more: commit and apply what was, say that we stop, flush, snapshot."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.actors.run, self._after_slice)
            await self.committer.finish()
            while not self.actors.settled():
                await trio.lowlevel.checkpoint()
            self._after_slice()
            self._journal_tick(last=True)
            await self.committer.finish()
            nursery.start_soon(self.committer.run)
            with trio.move_on_after(5):
                await self.flusher.cycle()
                await self.flusher.cycle()
            with trio.move_on_after(5):
                await self.take_snapshot()
            nursery.cancel_scope.cancel()
        self.journal.close()

    # -- being observed -----------------------------------------------------------------------------

    def ready(self) -> Mapping[str, str]:
        """What keeps this shard from being ready, by name; empty texts are well."""
        return {
            "listening": "" if self.listening else "not listening yet",
            "journal": "the journal cannot be written" if self.intake.busy else "",
            "registry": "" if self.registry.loaded else "rows are not loaded yet",
        }

    def statistics(self) -> dict[str, dict[str, float | dict[str, float]]]:
        """Figures of every part, for `/metrics`: name of the part -> name -> number or labelled numbers."""
        parts: dict[str, Any] = {
            "intake": self.intake.statistics(),
            "journal": self.journal.statistics(),
            "committer": self.committer.statistics(),
            "actors": self.actors.statistics(),
            "judge": self.judge.statistics(),
            "decisions": self.decisions.statistics(),
            "gaps": self.gaps.statistics(),
            "registry": self.registry.statistics(),
            "flusher": self.flusher.statistics(),
            "clock": self.clock.statistics(),
        }
        for number, listener in enumerate(self.listeners):
            parts[f"udp{number}"] = listener.statistics()
        figures = {name: _figures(part._asdict()) for name, part in parts.items()}
        figures["table"] = {
            "rows": self.table.rows,
            "slots": self.table.slots,
            "bytes": self.table.row.nbytes() + self.table.generation.nbytes() + self.table.slot.nbytes(),
            "snapshot_ms_last": self._snapshot_ms,
            "interval_ms_min": self.pace.interval_ms_min,
        }
        return figures


def _figures(statistics: dict[str, Any]) -> dict[str, float | dict[str, float]]:
    figures: dict[str, float | dict[str, float]] = {}
    for name, value in statistics.items():
        if isinstance(value, dict):
            figures[name] = {str(key): float(number) for key, number in value.items()}
        elif isinstance(value, str):
            figures[name] = {value: 1.0}
        else:
            figures[name] = float(value or 0)
    return figures
