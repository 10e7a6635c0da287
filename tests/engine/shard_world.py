"""A shard for tests, in two sizes: `Bench`, whose every step is a call, and `Life`, a whole `Shard` on trio.

A `Bench` is the product's own parts, joined as `engine.parts` does, but for the loops: commits are begun and
finished by the test, actors decide at once, time is a number. A `Life` runs under a mock clock; what would be
done in a thread is done at once, so that no jump of the clock can overtake it.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import trio

import engine.clock
from engine.committer import Committer
from engine.core.ports import NewNode
from engine.core.records import INTERVAL_DTYPE, Event, RowSpec, SessionSpec
from engine.decisions import Decisions
from engine.gap_news import GapNews
from engine.gaps import Gaps
from engine.intake import Intake
from engine.journal import DiskFiles, Journal
from engine.journal_blocks import Kind, Tick, read
from engine.judge import Judge
from engine.pace import Pace
from engine.parts import Surroundings
from engine.recovery import recover
from engine.registry_follow import RegistryBlock
from engine.rows import apply_spec
from engine.settings import EngineSettings, IngestSettings, JournalSettings, LivenessSettings
from engine.shard import Shard
from engine.snapshot import Snapshot
from engine.snapshots import Snapshots
from engine.table import Table
from engine.windows import Windows
from storage.memory import MemoryWorld, memory_stores_of
from tests.engine.rows_world import FAR, SECRETS, T0, frame

NO_FRAME = bytes(48)


class FullableFiles(DiskFiles):
    """The real disk, without waiting for it; refuses everything while `full`."""

    def __init__(self) -> None:
        self.full = False

    def create(self, path: Path, size: int) -> int:
        self._check()
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._check()
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._check()

    def _check(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on the disk of this test")


class AtOnce:
    """Takes changes as the actors do and decides each at once."""

    def __init__(self, table: Table, decisions: Decisions) -> None:
        self._table, self._decisions = table, decisions
        self.aside: list[int] = []  # rows whose changes are lost

    def set_aside(self) -> list[int]:
        return self.aside

    def tell(self, heard: Iterable[tuple[int, Any]], said: Iterable[tuple[int, Any]]) -> None:
        touched = set()
        for index, change in heard:
            if index not in self.aside:
                self._decisions.node(index, change)
                touched.add(index)
        for slot, spoken in said:
            self._decisions.workload(slot, spoken)
            touched.add(int(self._table.slot.row_index[slot]))
        for index in touched:
            self._decisions.cool(index)


class Bench:
    """One life of a small shard. Rows are told by `learn`; `replies` are those to `send`, in order."""

    def __init__(
        self,
        directory: Path,
        *,
        shard: int = 0,
        shards: int = 1,
        now_ms: int = T0,
        segment_bytes: int = 1 << 16,
        ingest: IngestSettings | None = None,
        journal: JournalSettings | None = None,
        liveness: LivenessSettings | None = None,
        gap_news: bool = False,
    ) -> None:
        self.directory, self.now_ms = directory, now_ms
        self.table = Table(shard=shard, shards=shards, rows=2, slots=2)
        self.decisions = Decisions(self.table)
        self.gaps = Gaps(self.table, GapNews(self.decisions) if gap_news else None)
        self.windows = Windows()
        self.recovered = recover(directory, self.table, self.decisions, self.gaps, self.windows, SECRETS)
        self.files = FullableFiles()
        self.journal = Journal(
            directory,
            shard=shard,
            shards=shards,
            boot_id="boot",
            segment_bytes=segment_bytes,
            now_ms=now_ms,
            files=self.files,
        )
        self.woken = 0
        self.pace = Pace(rate_max=1e9, jitter=0.0, seed=1)
        self.ingest = ingest or IngestSettings()
        self.intake = Intake(
            self.table, self.pace, self.ingest, now_ms=self._now, wake=self._wake, cloned=self.decisions.clone
        )
        actors: Any = AtOnce(self.table, self.decisions)
        self.actors = actors
        self.failures: list[OSError] = []
        self.committer = Committer(
            self.intake,
            self.journal,
            self.decisions,
            actors,
            self.gaps,
            journal or JournalSettings(),
            TrioHost(),
            failed=self.failures.append,
        )
        self.phases: list[str] = []
        self.judge = Judge(
            self.table,
            self.decisions,
            actors,
            self.gaps,
            self.windows,
            self.journal,
            liveness or LivenessSettings(),
            seed=1,
            phase_changed=self.phases.append,
        )
        self.judge.breaker = self.recovered.breaker
        self.position = self.recovered.registry_position
        self.flushed: int | None = None  # as far as Postgres has the journal
        self.replies: list[bytes] = []

    def _now(self) -> int:
        return self.now_ms

    def _wake(self) -> None:
        self.woken += 1

    def learn(self, *specs: RowSpec) -> None:
        """What the registry tells of some rows."""
        for each in specs:
            self.windows.replace(apply_spec(self.table, each, SECRETS), each.windows)
        self.position += 1
        block = RegistryBlock(self.position, list(specs))
        self.journal.append(Kind.REGISTRY, self.now_ms, msgspec.msgpack.encode(block))

    def send(self, *frames: bytes, at_ms: int | None = None) -> None:
        """Frames as HTTP brings them, received now."""
        self.now_ms = self.now_ms if at_ms is None else at_ms
        self.intake.submit_frames(b"".join(frames), self.now_ms, self.replies.append)

    def beat(self, row: int, at_ms: int, **values: Any) -> None:
        """One beat of the row, received then; not yet committed."""
        self.send(frame(row, at_ms, **values), at_ms=at_ms)

    def beats(self, rows: Iterable[int], at_ms: int, **values: Any) -> None:
        """One beat of each row, received then, committed."""
        self.send(*(frame(row, at_ms, **values) for row in rows), at_ms=at_ms)
        self.commit()

    def begin(self) -> Any:
        self.intake.verify_queued()
        return self.committer.begin()

    def end(self, commit: Any) -> bool:
        """Write what was begun and do what follows."""
        try:
            self.journal.commit(commit.blocks)
        except OSError as error:
            self.committer.failed(commit, error)
            return False
        self.committer.written(commit)
        return True

    def commit(self) -> None:
        """Commit until nothing waits, or the disk refuses."""
        self.intake.verify_queued()
        while self.intake.waiting or self.journal.pending_bytes:
            if not self.end(self.begin()):
                return

    def tick(self, *, last: bool = False) -> None:
        tick = Tick(self.now_ms, self.now_ms * 1_000_000, "boot", last)
        self.journal.append(Kind.TICK, self.now_ms, msgspec.msgpack.encode(tick))
        self.commit()

    def look(self, at_ms: int) -> None:
        """Judge as of then, until nobody is due. What was decided waits for the next commit."""
        self.now_ms = self.decisions.now_ms = at_ms
        while self.judge.look(at_ms):
            pass
        self.decisions.drain(self.journal, at_ms)

    def codes(self) -> list[int]:
        """The codes of all ACKs so far; -1 for 48 zero bytes."""
        return codes_of(self.replies)

    def states(self) -> list[int]:
        return [int(state) for state in self.table.row.state[: self.table.rows]]


def events_in(directory: Path) -> list[Event]:
    """Every event in a journal, each once."""
    found: dict[str, Event] = {}
    for block in read(directory, 0, kinds=frozenset({Kind.EVENTS})):
        for event in msgspec.msgpack.decode(block.payload, type=list[Event]):
            found.setdefault(event.event_id, event)
    return list(found.values())


def intervals_in(directory: Path) -> set[tuple[int, ...]]:
    """Every base row in a journal, each once."""
    found: set[tuple[int, ...]] = set()
    for block in read(directory, 0, kinds=frozenset({Kind.INTERVALS})):
        found.update(np.frombuffer(block.payload, INTERVAL_DTYPE).tolist())
    return found


class FakeTime:
    """Stands where `engine.clock` has the `time` module: trio's clock, and a wall clock that can be set."""

    CLOCK_BOOTTIME = 7

    def __init__(self, read_s: Callable[[], float] = trio.current_time) -> None:
        self._read_s = read_s
        self.wall_ms = T0  # the system's clock at second 0 of the other one

    def monotonic_ns(self) -> int:
        return round(self._read_s() * 1e9)

    def time_ns(self) -> int:
        return self.wall_ms * 1_000_000 + self.monotonic_ns()

    def clock_gettime_ns(self, clock: int) -> int:
        assert clock == self.CLOCK_BOOTTIME
        return self.monotonic_ns()


class Told:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


async def no_doors(_shard: Shard) -> Callable[[], Awaitable[None]]:
    return trio.lowlevel.checkpoint


class Life:
    """A world in memory and the lives of one shard in it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.world = MemoryWorld(now_ms=lambda: self.time.time_ns() // 1_000_000)
        self.sessions: dict[int, SessionSpec] = {}
        self._counters = itertools.count(1)
        self.stores = memory_stores_of(self.world)
        self.files = FullableFiles()
        self.log = Told()
        self.reported: list[BaseException] = []
        self.time = FakeTime()
        monkeypatch.setattr(engine.clock, "time", self.time)
        run_at_once(monkeypatch)

    async def add_nodes(self, count: int, *, workloads: int = 2, interval_ms: int = 60_000) -> None:
        """Further nodes in the registry, each with a session open."""
        directory = self.stores.directory
        project = await directory.create_project("p", now_ms=T0)
        new = NewNode(project.project_id, "n", "node", None, interval_ms, ("w",) * workloads)
        for node in await directory.create_nodes([new] * count, now_ms=T0):
            await self.open_session(node.row, now_ms=T0)

    async def open_session(self, row: int, *, now_ms: int) -> int:
        """A new session of the row's node; its generation."""
        _, session, _ = await self.stores.directory.open_session(
            self.world.rows[row],
            nonce=f"{row} {next(self._counters)}",
            nonce_expires_ms=FAR,
            rate_per_min=1_000,
            now_ms=now_ms,
            life_ms=30 * 86_400_000,
            secret_id=1,
        )
        self.sessions[row] = session
        return session.generation

    def frame(self, row: int, at_ms: int, **values: Any) -> bytes:
        """A frame of the row's newest session."""
        session = self.sessions[row]
        key = SECRETS.session_key(secret_id=1, row=row, generation=session.generation, salt=session.salt)
        values.setdefault("counter", next(self._counters) % (1 << 16))
        return frame(row, at_ms, generation=session.generation, with_key=key, **values)

    async def tell(self, shard: Shard, *rows: int, **values: Any) -> list[int]:
        """A beat of each row now, by HTTP: the codes of their ACKs once there are some; -1: zero bytes."""
        now_ms = shard.clock.now_ms()
        answered: list[bytes] = []
        done = trio.Event()

        def reply(acks: bytes) -> None:
            answered.append(acks)
            done.set()

        frames = b"".join(self.frame(row, now_ms, **values) for row in rows)
        shard.intake.submit_frames(frames, now_ms, reply)
        await done.wait()
        return codes_of(answered)

    def shard(self, settings: EngineSettings | None = None, **around: Any) -> Shard:
        surroundings = Surroundings(
            registry=self.stores.registry,
            history=self.stores.history,
            live=self.stores.live,
            secrets=SECRETS,
            log=self.log,
            report=lambda error, **_tags: self.reported.append(error),
            host=TrioHost(),
            files=self.files,
        )
        return Shard(
            settings=settings or EngineSettings(),
            shard=0,
            directory=self.directory,
            around=surroundings._replace(**around),
        )

    @asynccontextmanager
    async def serving(self, settings: EngineSettings | None = None, **around: Any) -> AsyncIterator[Shard]:
        """A shard that serves inside the block and has stopped in order after it."""
        shard = self.shard(settings, **around)
        stop, listening = trio.Event(), trio.Event()

        async def serve() -> None:
            await shard.serve(open_doors=no_doors, listening=listening.set, stop=stop)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await listening.wait()
            yield shard
            stop.set()

    def events(self, *kinds: str) -> list[Event]:
        """Of these kinds; without any all, but for the gaps that each start and stop is."""
        every = [event for event in self.world.events if not event.kind.startswith("gap.")]
        return [event for event in self.world.events if event.kind in kinds] if kinds else every


class TrioHost:
    """`storage.bridge.Host` on plain trio, in trio's own worker threads."""

    def in_thread(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        trio.lowlevel.spawn_system_task(self._run, work, done)

    def soon(self, callback: Callable[[], None]) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(callback)

    async def _run(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        error: BaseException | None = None
        try:
            await trio.to_thread.run_sync(work)
        except Exception as raised:  # noqa: BLE001 - `done` is told
            error = raised
        done(error)

    def when_readable(self, sock: socket.socket, callback: Callable[[], None]) -> Callable[[], None]:
        watching = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._watch, watching, sock, callback)
        return watching.cancel

    async def _watch(
        self, watching: trio.CancelScope, sock: socket.socket, callback: Callable[[], None]
    ) -> None:
        with watching:
            while True:
                await trio.lowlevel.wait_readable(sock)
                callback()


def run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is for a worker thread is done at once: a mock clock does not see threads."""
    monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)


async def _at_once(function: Callable[..., Any], *args: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*args)


def codes_of(replies: Iterable[bytes]) -> list[int]:
    """The codes of ACKs as they were replied; -1 for 48 zero bytes."""
    whole = b"".join(replies)
    acks = [whole[at : at + 48] for at in range(0, len(whole), 48)]
    return [-1 if ack == NO_FRAME else int(ack[1]) for ack in acks]


def snapshots_of(bench: Bench, *, failed: Callable[[OSError], None] | None = None) -> Snapshots:
    """What takes snapshots of a bench. A stand-in for the clock tells the bench's time."""
    clock: Any = BenchClock(bench)
    return Snapshots(
        bench.directory,
        bench.table,
        bench.decisions,
        bench.gaps,
        bench.windows,
        bench.journal,
        bench.committer,
        clock,
        JournalSettings(),
        breaker=lambda: bench.judge.breaker,
        registry_position=lambda: bench.position,
        flushed=lambda: bench.flushed,
        settled=lambda: True,
        failed=failed or bench.failures.append,
    )


def snapshot_of(bench: Bench) -> Snapshot:
    """What a snapshot taken now would contain; it counts once all that was appended is committed."""
    bench.decisions.drain(bench.journal, bench.now_ms)
    return snapshots_of(bench)._capture(BenchClock(bench).tick())


class BenchClock:
    """`engine.clock.Clock` as far as snapshots ask."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def now_ms(self) -> int:
        return self._bench.now_ms

    def tick(self) -> Tick:
        return Tick(self._bench.now_ms, self._bench.now_ms * 1_000_000, "boot")
