"""Drives the real engine through a history: table, intake, journal, recovery, judge and step.

Everything is the product's own code but the loops: commits are begun and finished here, actors decide at
once, and time is the history's. What came of it is an `Observed` for the oracle's checker.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.committer import Committer
from engine.core.beats import FIRST_REPORT_DTYPE
from engine.core.keys import MasterSecrets
from engine.core.records import BASE_KINDS, INTERVAL_DTYPE, NODE_STATES, Event, Gap
from engine.core.step import NodeState
from engine.decisions import Decisions
from engine.door import GONE, PlainAnswer, PlainBeat
from engine.gaps import Gaps
from engine.intake import Intake
from engine.journal import Journal
from engine.journal_blocks import Kind, Tick, read
from engine.judge import Judge
from engine.lease_front import LeaseFront
from engine.pace import Pace
from engine.recovery import recover
from engine.registry_follow import RegistryBlock
from engine.rows import apply_spec, id_of
from engine.settings import IngestSettings, JournalSettings, LivenessSettings
from engine.table import Table
from engine.windows import Windows
from np1.codec import FLAG_NO_ACK, FLAG_STOPPING, Beat, Code, encode_beat
from tests.engine.shard_world import TrioHost
from tests.sim import history as told
from tests.sim.observed import Ack, BaseRow, OpenRow, Verdict
from tests.sim.registry_world import RegistryWorld, Standing

SECRETS = MasterSecrets(secrets={1: b"simulated master secret, 32 byte"})
BOOT = "boot"
LATE_MS = 10


class MemoryFiles:
    """The journal's system calls without syncing, and with a disk that can be full."""

    def __init__(self) -> None:
        self.full = False

    def create(self, path: Path, size: int) -> int:
        import os

        self._check()
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        import os

        self._check()
        os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._check()

    def cut(self, fd: int, size: int) -> None:
        import os

        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        import os

        os.close(fd)

    def _check(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")


class ActorsAtOnce:
    """Takes changes as the actors do and decides each at once."""

    def __init__(self, table: Table, decisions: Decisions) -> None:
        self._table, self._decisions = table, decisions

    def set_aside(self) -> list[int]:
        return []

    def settled(self) -> bool:
        return True

    def tell(self, heard: Iterable[tuple[int, Any]], said: Iterable[tuple[int, Any]]) -> None:
        touched = set()
        for index, change in heard:
            self._decisions.node(index, change)
            touched.add(index)
        for slot, spoken in said:
            self._decisions.workload(slot, spoken)
            touched.add(int(self._table.slot.row_index[slot]))
        for index in touched:
            self._decisions.cool(index)


class LoudDecisions(Decisions):
    """Decisions that tell which states were reached."""

    def __init__(self, table: Table, reached: list[tuple[int, int, int]]) -> None:
        super().__init__(table)
        self._reached_list = reached

    def _enter(self, index: int, after: NodeState) -> None:
        super()._enter(index, after)
        self._reached_list.append((self.table.number_of(index), after.state, self.now_ms))


class StretchedPace(Pace):
    """A pace at which the largest next_ms is so many thousandths of a row's interval."""

    permille = 1_000

    def intervals(self, configured_ms: Any) -> Any:
        configured = configured_ms.astype(np.int64)
        return np.maximum(configured, configured * self.permille // 1_000)

    def ttl(self, configured_ms: int, session_ttl_ms: int = 0) -> int:
        return int(self.ttls(np.array([configured_ms]), np.array([session_ttl_ms]))[0])


class Engine:
    """One life of a shard, from start (or restart) to crash."""

    def __init__(self, world: EngineWorld, now_ms: int) -> None:
        self.world, self.now_ms = world, now_ms
        self.dying = False  # what is taken now will not reach the disk
        self.table = Table(shard=world.history.shard, shards=world.shards, rows=16, slots=64)
        self.decisions = LoudDecisions(self.table, [])
        self.gaps, self.windows = Gaps(self.table), Windows()
        self.recovered = recover(
            world.directory, self.table, self.decisions, self.gaps, self.windows, SECRETS
        )
        self.decisions._reached_list = world.reached
        self.journal = Journal(
            world.directory,
            shard=world.history.shard,
            shards=world.shards,
            boot_id=BOOT,
            segment_bytes=1 << 16,
            now_ms=now_ms,
            files=world.files,
        )
        self.pace = StretchedPace(rate_max=1e9, jitter=0.1, seed=1)
        self.intake = Intake(
            self.table,
            self.pace,
            IngestSettings(),
            now_ms=lambda: self.now_ms,
            wake=lambda: None,
            cloned=self.decisions.clone,
        )
        actors: Any = ActorsAtOnce(self.table, self.decisions)
        self.committer = Committer(
            self.intake,
            self.journal,
            self.decisions,
            actors,
            self.gaps,
            JournalSettings(),
            TrioHost(),
            failed=lambda _error: None,
        )
        self.judge = Judge(
            self.table,
            self.decisions,
            actors,
            self.gaps,
            self.windows,
            self.journal,
            LivenessSettings(),
            phase_changed=lambda _phase: None,
        )
        self.front = LeaseFront(self.table, self.judge, actors, self.gaps, self.committer)

    def commit(self) -> None:
        """Commit until nothing waits, or the disk refuses."""
        if self.dying:
            return
        self.intake.verify_queued()
        while self.intake.waiting or self.journal.pending_bytes:
            commit = self.committer.begin()
            try:
                self.journal.commit(commit.blocks)
            except OSError as error:
                self.committer.failed(commit, error)
                self.world.in_waiting.clear()
                return
            self.committer.written(commit)
            self.world.credited.update(self.world.in_waiting)
            self.world.in_waiting.clear()

    def tick(self) -> None:
        tick = Tick(wall_ms=self.now_ms, boottime_ns=self.now_ms * 1_000_000, boot_id=BOOT)
        self.journal.append(Kind.TICK, self.now_ms, msgspec.msgpack.encode(tick))
        self.commit()

    def look(self, now_ms: int) -> None:
        """Judge as of now, until nobody is due."""
        self.now_ms = self.decisions.now_ms = now_ms
        self._judge(now_ms)

    def _judge(self, judged_ms: int) -> None:
        self.front.look(judged_ms)
        while self.judge.look(judged_ms):
            pass
        self.decisions.drain(self.journal, self.now_ms)
        self.commit()

    def said_ms(self) -> int:
        """Up to when everything is said of licences: HTTP may hand in a beat a moment late."""
        self.decisions.now_ms = self.now_ms
        self._judge(self.now_ms - LATE_MS)
        return self.front.said_ms(self.now_ms - LATE_MS)


class EngineWorld:
    """Plays a whole history. `acks` and `credited` by frame id."""

    def __init__(
        self,
        history: told.History,
        directory: Path,
        *,
        shards: int = 1,
        standing: Callable[[str, int], Standing] = lambda _workload_id, _now_ms: Standing(),
    ) -> None:
        self.history = history
        self.directory = directory
        self.shards = shards
        self.files = MemoryFiles()
        self.reached: list[tuple[int, int, int]] = []
        self.registry = RegistryWorld(history.rows, standing)
        self.acks: dict[int, Ack] = {}
        self.credited: set[int] = set()
        self.in_waiting: list[int] = []  # frames that were accepted and are not yet on disk
        self.engine = Engine(self, 0)
        self.dead_from = self._spans()

    def _spans(self) -> list[tuple[int, int]]:
        """When nobody is judged: the shard is dead, stalled, or cannot write."""
        return [
            (record.from_ms, record.to_ms)
            for record in self.history.records
            if isinstance(record, told.Gap) and record.cause != "drops"
        ]

    # -- time ---------------------------------------------------------------------------------------

    def advance(self, to_ms: int) -> None:
        """Let registry changes and deadlines up to `to_ms` happen, each at its time."""
        engine = self.engine
        while True:
            moments = [
                self.registry.next_change(engine.now_ms),
                self._next_deadline(),
            ]
            at_ms = min((m for m in moments if m is not None), default=None)
            if at_ms is None or at_ms > to_ms:
                break
            at_ms = max(at_ms, engine.now_ms)
            for from_ms, end_ms in self.dead_from:
                if from_ms <= at_ms < end_ms:
                    at_ms = end_ms
            if at_ms > to_ms:
                break
            self._apply_registry(at_ms)
            engine.look(at_ms)
        engine.now_ms = max(to_ms, engine.now_ms)
        if self._apply_registry(engine.now_ms) and not self.dead(engine.now_ms):
            engine.look(engine.now_ms)

    def dead(self, now_ms: int) -> bool:
        return any(from_ms <= now_ms < end_ms for from_ms, end_ms in self.dead_from)

    def _next_deadline(self) -> int | None:
        engine = self.engine
        rows = engine.table.row
        used = engine.table.rows
        deadline = int(rows.deadline_ms[:used].min()) if used else 2**62
        edges = [
            edge
            for windows in engine.windows._windows.values()
            for window in windows
            for edge in (window.from_ms, window.to_ms)
            if edge > engine.now_ms
        ]
        detached = [
            int(engine.table.slot.own_t_ms[s]) + int(engine.table.slot.open_ttl_ms[s])
            for s in engine.table.detached
        ]
        found = min([deadline, *edges, *detached, *self._absences()])
        # A little late, as the judge is: a beat over HTTP may be handed in some ms after it was received.
        return None if found >= 2**62 else max(found + LATE_MS, engine.now_ms)

    def _absences(self) -> list[int]:
        """When workloads will have been absent for 10 intervals."""
        rows, slots = self.engine.table.row, self.engine.table.slot
        found = []
        for slot in np.flatnonzero(slots.away_ms[: self.engine.table.slots] > 0).tolist():
            row = int(slots.row_index[slot])
            since = max(int(slots.away_ms[slot]), int(rows.window_end_ms[row]))
            found.append(since + 10 * (2 * int(rows.ttl_ms[row]) // 3))
        return [at for at in found if at + LATE_MS > self.engine.now_ms]

    def _apply_registry(self, now_ms: int) -> bool:
        engine = self.engine
        due = self.registry.specs_due(now_ms)
        for spec in due:
            index = apply_spec(engine.table, spec, SECRETS)
            engine.windows.replace(index, spec.windows)
            block = RegistryBlock(1, [spec])
            engine.journal.append(Kind.REGISTRY, now_ms, msgspec.msgpack.encode(block))
        engine.commit()
        return bool(due)

    # -- records ------------------------------------------------------------------------------------

    def play(self) -> None:
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[int]:
        """Play one record after the other: before each, when it is."""
        records = self.history.records
        at = 0
        while at < len(records):
            record = records[at]
            yield _time_of(record)
            if isinstance(record, told.Frame):
                same = [record]
                while (
                    at + len(same) < len(records)
                    and isinstance(following := records[at + len(same)], told.Frame)
                    and following.t_ms == record.t_ms
                    and following.durable == record.durable
                    and following.via == record.via == "udp"  # a batch keeps the order of datagrams only
                ):
                    same.append(following)
                self.frames(same, self._next_gap(at))
                at += len(same)
                continue
            if isinstance(record, told.Gap) and record.cause == "drops":
                following = self._next_gap(at)
                full = following is not None and following.cause == "disk_full"
                if (
                    following is not None
                    and full
                    and following.from_ms < record.to_ms
                    and not self.files.full
                ):
                    self._fill_disk(following.from_ms)
            if isinstance(record, told.Tick):
                self.advance(record.at_ms)
                self.engine.tick()
            elif isinstance(record, told.Restart):
                self.restart(record)
            elif isinstance(record, told.Gap):
                self.gap(record)
            at += 1
        yield self.history.as_of_ms
        self.advance(self.history.as_of_ms)
        self.engine.look(self.history.as_of_ms)

    def _next_gap(self, at: int) -> told.Gap | None:
        rest = self.history.records[at:]
        return next((r for r in rest if isinstance(r, told.Gap) and r.cause != "drops"), None)

    def frames(self, frames: list[told.Frame], gap: told.Gap | None) -> None:
        now_ms = max(frames[0].t_ms, self.engine.now_ms)
        disk_full = not frames[0].durable and gap is not None and gap.cause == "disk_full"
        if disk_full and not self.files.full:
            self._fill_disk(gap.from_ms)
        self.advance(now_ms)
        self.engine.dying = not (frames[0].durable or disk_full)
        for frame in frames:
            before = self.engine.intake.waiting_beats
            self.offer(frame)
            if self.engine.intake.waiting_beats > before:
                self.in_waiting.append(frame.frame_id)
        if frames[0].durable or disk_full:
            self.engine.commit()

    def _fill_disk(self, listened_ms: int) -> None:
        self.advance(listened_ms)
        if self.engine.committer.listened_ms < listened_ms:
            self.engine.tick()
            # The history's last tick; frames that were refused after it have moved the clock on.
            self.engine.committer.listened_ms = listened_ms
        self.files.full = True

    def offer(self, frame: told.Frame) -> None:
        engine = self.engine
        away = any(each.from_ms <= frame.t_ms < each.to_ms for each in self.history.store_away)
        engine.table.honour_expired(honour=away)
        self._set_pace(frame)
        if frame.via in ("json", "ping"):
            generation = frame.generation if frame.generation is not None else 1
            beat = PlainBeat(
                frame.row,
                generation,
                frame.generation is None,
                FLAG_STOPPING if frame.stopping else 0,
                frame.plane0,
                frame.plane1,
                frame.t_ms,
                frame.unknown_ids,
            )
            engine.intake.submit_plain(beat, lambda said: self._plain_answer(frame, said))
            engine.intake.verify_queued()  # at this frame's pace, and known to be good or gone
            return
        data = self._encode(frame)
        if frame.via == "http":
            engine.intake.submit_frames(data, frame.t_ms, lambda acks: self._frame_answer(frame, acks))
            engine.intake.verify_queued()
            return
        raw = np.zeros((1, 64), np.uint8)
        raw[0, :48] = np.frombuffer(data, np.uint8)
        engine.intake.take_datagrams(
            raw,
            np.array([48]),
            np.zeros((1, 28), np.uint8),
            frame.t_ms,
            send=lambda acks, _names: self._udp_answer(frame, acks),
            foreign=lambda _frames, _names, _t: None,
        )

    def _set_pace(self, frame: told.Frame) -> None:
        """The pace at which the world journaled this ttl."""
        row = self.registry.rows[frame.row]
        wanted = -(-frame.ttl_ms * 2 // 3)
        permille = max(1_000, -(-wanted * 1_000 // row.interval_ms))
        self.engine.pace.permille = permille
        while self.engine.pace.ttl(row.interval_ms) > frame.ttl_ms and self.engine.pace.permille > 1_000:
            self.engine.pace.permille -= 1

    def _encode(self, frame: told.Frame) -> bytes:
        assert frame.generation is not None
        assert frame.seq is not None
        flags = (FLAG_STOPPING if frame.stopping else 0) | (FLAG_NO_ACK if frame.no_ack else 0)
        beat = Beat(flags, frame.generation, frame.row, frame.seq, frame.plane0, frame.plane1)
        return encode_beat(beat, self.registry.key(frame.row, frame.generation))

    def _udp_answer(self, frame: told.Frame, acks: Any) -> int:
        self._frame_answer(frame, acks.tobytes())
        return len(acks)

    def _frame_answer(self, frame: told.Frame, ack: bytes) -> None:
        if not any(ack[:1]):
            return
        found = self.registry.read_ack(frame.row, frame.generation or 0, ack)
        self.acks[frame.frame_id] = Ack(
            code=int(found.code), server_ms=found.server_ms, ttl_ms=found.ttl_ms, next_ms=found.next_ms
        )

    def _plain_answer(self, frame: told.Frame, said: PlainAnswer) -> None:
        if said.code == GONE:
            return
        refused = said.code in (Code.BUSY, Code.MOVED)
        self.acks[frame.frame_id] = Ack(
            code=said.code,
            server_ms=None if refused else said.server_ms,
            ttl_ms=None if refused else said.ttl_ms,
            next_ms=said.next_ms,
        )

    # -- faults -------------------------------------------------------------------------------------

    def restart(self, record: told.Restart) -> None:
        """The process is gone with all that was not synced; what is on disk is recovered."""
        before = {row: state for row, state, _ in self.reached}
        self.in_waiting.clear()
        self.engine = Engine(self, record.at_ms)
        self.engine.judge.judged_ms = record.at_ms
        for index in range(self.engine.table.rows):
            state = int(self.engine.table.row.state[index])
            row = self.engine.table.number_of(index)
            if state != before.get(row, 0):
                self.reached.append((row, state, record.at_ms))
        if record.seqs_lost:
            self.engine.table.generation.last_seq[:] = np.uint64(record.at_ms << 16)
        self.registry.forget_applied()
        self._apply_registry(record.at_ms)
        if record.seqs_lost:
            self.engine.table.generation.last_seq[:] = np.uint64(record.at_ms << 16)

    def gap(self, record: told.Gap) -> None:
        engine = self.engine
        if record.cause == "disk_full":
            if not self.files.full:
                self._fill_disk(record.from_ms)
            if engine.committer.failing_since_ms is None:
                engine.tick()  # fails: nobody could be heard
            engine.now_ms = max(record.to_ms, engine.now_ms)
            self.files.full = False
            engine.tick()
            engine.commit()
            engine.look(engine.now_ms)  # a window may have opened while nobody could be judged
            return
        if record.cause == "crash":
            begun = engine.recovered.last_ms
            assert begun == record.from_ms, f"the gap begins at the last tick or beat: {begun}"
        if record.cause == "stall":
            self.advance(record.from_ms)
        if record.cause != "drops":
            engine.now_ms = max(record.to_ms, engine.now_ms)
        else:
            self.advance(record.to_ms)
        gap = Gap(self.history.shard, record.from_ms, record.to_ms, record.cause, self.shards)
        engine.gaps.record(gap, engine.journal)
        engine.commit()
        if record.cause != "drops":
            engine.look(engine.now_ms)  # a window may have opened meanwhile

    # -- what came of it ----------------------------------------------------------------------------

    def outputs(self) -> tuple[list[BaseRow], list[Event], list[Gap], dict[str, int]]:
        """Everything written for Postgres, doubles merged as Postgres would."""
        rows: dict[tuple[str, int], BaseRow] = {}
        events: dict[str, Event] = {}
        gaps: dict[tuple[str, int], Gap] = {}
        reports: dict[str, int] = {}
        for block in read(self.directory, 0):
            if block.kind == Kind.INTERVALS:
                for hi, lo, kind, started, ended, ttl in np.frombuffer(
                    block.payload, INTERVAL_DTYPE
                ).tolist():
                    workload = id_of(hi, lo)
                    rows[workload, started] = BaseRow(
                        workload_id=workload,
                        kind=BASE_KINDS[kind],
                        started_ms=started,
                        ended_ms=ended,
                        ttl_ms=ttl,
                    )
            elif block.kind == Kind.EVENTS:
                for event in msgspec.msgpack.decode(block.payload, type=list[Event]):
                    events.setdefault(event.event_id, event)
            elif block.kind == Kind.GAP:
                gap = msgspec.msgpack.decode(block.payload, type=Gap)
                gaps[gap.cause, gap.from_ms] = gap
            elif block.kind == Kind.FIRST_REPORTS:
                for hi, lo, at in np.frombuffer(block.payload, FIRST_REPORT_DTYPE).tolist():
                    reports.setdefault(id_of(hi, lo), at)
        return list(rows.values()), list(events.values()), list(gaps.values()), reports

    def open_rows(self) -> list[OpenRow]:
        table = self.engine.table
        found = []
        for slot in range(table.slots):
            index = int(table.slot.row_index[slot])
            base = int(table.row.slot_base[index])
            if not table.slot.kind[slot] or not base <= slot < base + int(table.row.slot_count[index]):
                continue
            workload = id_of(int(table.slot.workload_hi[slot]), int(table.slot.workload_lo[slot]))
            found.append(
                OpenRow(
                    workload_id=workload,
                    kind=BASE_KINDS[int(table.slot.kind[slot])],
                    started_ms=int(table.slot.started_ms[slot]),
                    last_t_ms=int(table.slot.own_t_ms[slot]) or int(table.row.last_t_ms[index]),
                    ttl_ms=int(table.slot.open_ttl_ms[slot]),
                )
            )
        return found

    def verdicts(self) -> list[Verdict]:
        return [Verdict(row=row, state=NODE_STATES[state], at_ms=at_ms) for row, state, at_ms in self.reached]


def _time_of(record: told.Record) -> int:
    if isinstance(record, told.Frame):
        return record.t_ms
    if isinstance(record, told.Gap):
        return record.to_ms
    return record.from_ms if isinstance(record, told.Degraded) else record.at_ms
