"""One shard of the engine, put together: recovery, listening, commits, judging, flushes, snapshots.

The parts know each other only through what is passed here. `Shard.serve` runs until told to stop, then stops
in order: no more beats taken, everything committed and applied, a last tick, a last flush, a snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import trio

from engine.actors import Actor
from engine.answering import Answering
from engine.core.ports import StoreUnavailableError
from engine.core.records import Gap
from engine.core.step import SUSPECT, UP
from engine.figures import figures_of, rejected
from engine.intake import Foreign
from engine.journal_blocks import Kind, Tick
from engine.listener_udp import UdpListener, drained_ms
from engine.parts import Drops, Hooks, Parts, Surroundings
from engine.recovery import Recovered
from engine.rows import node_id, workload_id
from engine.settings import EngineSettings

_TICK_S = 1.0
_DROPS_S = 0.25
_REGISTRY_WAIT_S = 1.0
_FINISH_S = 5.0  # how long the last flush and the last snapshot may take each, when stores are away

Figures = dict[str, float | dict[str, float]]


class Shard:
    """One shard, recovered when made; `serve` runs it."""

    def __init__(
        self, *, settings: EngineSettings, shard: int, directory: Path, around: Surroundings
    ) -> None:
        self.settings, self.number, self.directory = settings, shard, directory
        self._around = around
        self._log = around.log
        self.listeners: list[UdpListener] = []
        self.foreign: Foreign = self._drop_foreign
        self._drops_seen_ms = 0
        self.listening = False
        hooks = Hooks(self.complete_ms, self._crashed)
        self.parts = parts = Parts(
            settings=settings, shard=shard, directory=directory, around=around, hooks=hooks
        )
        self.table, self.decisions, self.gaps = parts.table, parts.decisions, parts.gaps
        self.clock, self.journal, self.intake = parts.clock, parts.journal, parts.intake
        self.actors, self.committer, self.judge = parts.actors, parts.committer, parts.judge
        self.registry, self.flusher, self.pace = parts.registry, parts.flusher, parts.pace
        self.recovered: Recovered = parts.recovered
        self.started_ms = self.clock.now_ms()
        self.answering: Answering | None = None
        if around.asks is not None:
            self.answering = Answering(
                around.asks,
                self.table,
                self.journal,
                self.committer,
                self.actors,
                self.listeners,
                now_ms=self.clock.now_ms,
                complete_ms=self.complete_ms,
                gaps=self.gaps,
                flusher=self.flusher,
                figures=lambda: figures_of(self),
            )

    # -- what the parts ask -------------------------------------------------------------------------

    def complete_ms(self) -> int:
        """Everything received up to here has been taken from the sockets, committed and applied."""
        now = drained_ms(self.listeners) if self.listeners else self.clock.now_ms()
        oldest = self.committer.oldest_unapplied_ms()
        return now if oldest is None else min(now, oldest - 1)

    def _crashed(self, actor: Actor, error: BaseException, aside: bool) -> None:
        self._log.error("actor.crashed", actor=repr(actor), error=repr(error), quarantined=aside)
        self._around.report(error, shard=str(self.number), actor=repr(actor))
        if aside:
            whom = self._id_of(actor)
            detail = f"{actor!r}, {whom}, kept crashing: {error!r}"
            self.decisions.installation_event("actor.quarantined", self.clock.now_ms(), detail, about=whom)
        self.judge.look_again(actor.index)

    def _id_of(self, actor: Actor) -> str:
        """The node's or the workload's."""
        if actor.slot < 0:
            return node_id(self.table, actor.index)
        return workload_id(self.table, int(self.table.row.slot_base[actor.index]) + actor.slot)

    def _drop_foreign(self, frames: Any, names: Any, t_ms: int) -> None:
        self.intake.rejected["row"] += len(frames)

    def _stalled(self, from_ms: int, to_ms: int) -> None:
        self._log.warning("shard.stalled", ms=to_ms - from_ms, shard=self.number)
        self.gaps.record(self._gap(from_ms, to_ms, "stall"), self.journal)

    def _gap(self, from_ms: int, to_ms: int, cause: str) -> Gap:
        return Gap(self.number, from_ms, to_ms, cause, self.settings.shards)

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
        await self._learn_rows()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.actors.run, self._after_slice)
            nursery.start_soon(self.committer.run)
            if not self.settings.liveness.passivate:
                await self.actors.start_all()
            self._begin_listening(nursery)
            close_doors = await open_doors(self)
            for part in (
                self.registry.run,
                self.flusher.run,
                self._judge,
                self._tick,
                self.parts.snapshots.run,
            ):
                nursery.start_soon(part)
            if self._around.drops is not None:
                nursery.start_soon(self._watch_drops, self._around.drops)
            if self.answering is not None:
                nursery.start_soon(self.answering.run)
            if self.parts.settler is not None:
                nursery.start_soon(self.parts.settler.run)
            self.listening = True
            listening()
            await stop.wait()
            self.listening = False
            await close_doors()
            if not self.settings.liveness.passivate:
                await self.actors.passivate_all()
            nursery.cancel_scope.cancel()
        await self._finish()

    async def _learn_rows(self) -> None:
        """A shard that knows nothing yet waits for the registry; one that does catches up if it can."""
        while True:
            try:
                if self.registry.position == 0:
                    # Generations that the table knows keep their seqs; of the others none survived.
                    await self.registry.load(seq_floor_ms=self.started_ms)
                else:
                    await self.registry.catch_up()
                return
            except StoreUnavailableError:
                self.registry.set_away(away=True)
                if self.registry.position:
                    return
                self._log.warning("registry.awaited", shard=self.number)
                await trio.sleep(_REGISTRY_WAIT_S)

    def _begin_listening(self, nursery: trio.Nursery) -> None:
        now_ms = self.clock.now_ms()
        last_ms = self.recovered.last_ms
        if last_ms is not None:
            cause = "restart" if self.recovered.orderly else "crash"
            self.gaps.record(self._gap(last_ms, now_ms, cause), self.journal)
            self.decisions.drain(self.journal, now_ms)  # people hear of it with the same commit
        for sock in self._around.udp:
            listener = UdpListener(
                sock,
                self.intake,
                host=self._around.host,
                now_ms=self.clock.now_ms,
                foreign=self._take_foreign,
                stalled=self._stalled if not self.listeners else lambda _from, _to: None,
                batch_max=self.settings.ingest.batch_frames_max,
            )
            listener.begin(now_ms)
            self.listeners.append(listener)
            nursery.start_soon(listener.run)
        # Before the first beat: a life of less than a second must leave a reading of the clock, too.
        self._journal_tick(last=False)
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
            self.parts.leases.look(self.complete_ms())
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
            if not self.committer.short_of_disk:  # a tick says that beats could be taken
                self._journal_tick(last=False)
            for index in self.actors.forgive(now_ms):
                self.judge.let_in(index)
            rows = self.table.row.state[: self.table.rows]
            self.pace.follow(int(((rows == UP) | (rows == SUSPECT)).sum()))
            self._check_disk()
            self.gaps.tick(now_ms)
            self.intake.throughput.read(self.clock.monotonic_ms(), rejected(self.intake))
            if not self.intake.busy:  # else it waits: the blocks could pile up before a full disk
                self.intake.refusals.drain(self.journal, now_ms)

    def _journal_tick(self, *, last: bool) -> Tick:
        tick = msgspec.structs.replace(self.clock.tick(), last=last)
        self.journal.append(Kind.TICK, tick.wall_ms, msgspec.msgpack.encode(tick))
        self.committer.wake()
        return tick

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
                self.gaps.record(self._gap(self._drops_seen_ms, now_ms, "drops"), self.journal)
                self.committer.wake()
            seen, self._drops_seen_ms = count, now_ms

    async def _finish(self) -> None:
        """Nothing is taken any more: commit and apply what was, say that we stop, flush, snapshot."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.actors.run, self._after_slice)
            await self.committer.finish()
            while not self.actors.settled():
                await trio.lowlevel.checkpoint()
            self._after_slice()
            self.committer.set_short_of_disk(False, self.clock.now_ms())  # what it could not take till now
            self.gaps.tick(self.clock.now_ms(), last=True)
            self.decisions.drain(self.journal, self.clock.now_ms())
            self.intake.refusals.drain(self.journal, self.clock.now_ms(), last=True)
            tick = self._journal_tick(last=True)
            await self.committer.finish()
            if self.committer.failing_since_ms is None:  # else the next start takes this for a crash, rightly
                nursery.start_soon(self.committer.run)
                with trio.move_on_after(_FINISH_S):
                    await self.flusher.cycle()
                    await self.flusher.cycle()
                with trio.move_on_after(_FINISH_S):
                    await self.parts.snapshots.take(last=tick)
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

    def statistics(self) -> dict[str, Figures]:
        """Figures of every part, for `/metrics`: name of the part -> name -> number or labelled numbers."""
        parts: dict[str, Any] = {
            "intake": self.intake,
            "ack": self.intake.throughput,
            "refusals": self.intake.refusals,
            "sources": self.intake.sources,
            "journal": self.journal,
            "committer": self.committer,
            "actors": self.actors,
            "judge": self.judge,
            "decisions": self.decisions,
            "gaps": self.gaps,
            "registry": self.registry,
            "flusher": self.flusher,
            "clock": self.clock,
            "snapshots": self.parts.snapshots,
            "table": self.table,
            "pace": self.pace,
        }
        if self.answering is not None:
            parts["answering"] = self.answering
        if self.parts.settler is not None:
            parts["settler"] = self.parts.settler
        for number, listener in enumerate(self.listeners):
            parts[f"udp{number}"] = listener
        return {name: _figures(part.statistics()._asdict()) for name, part in parts.items()}


def _figures(statistics: dict[str, Any]) -> Figures:
    figures: Figures = {}
    for name, value in statistics.items():
        if isinstance(value, dict):
            figures[name] = {str(key): float(number) for key, number in value.items()}
        elif isinstance(value, str):
            figures[name] = {value: 1.0}
        else:
            figures[name] = float(value or 0)
    return figures
