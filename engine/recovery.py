"""From disk back into the table: the newest snapshot, then the journal after it.

A replay applies beats by the same code as the first time, and takes from the journal what had been decided of
silence, windows, gaps and the breaker: it never judges again. What it closes and raises once more is written
once more; Postgres knows it by its key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from engine import damaged, snapshot
from engine.core.beats import BEAT_DTYPE, ORIGIN_FRAME, VERDICT_DTYPE, joined
from engine.core.breaker import Breaker
from engine.core.keys import MasterSecrets
from engine.core.records import Gap
from engine.decisions import Decisions
from engine.gaps import Gaps
from engine.journal import POSITION_PER_MS
from engine.journal_blocks import INPUT_KINDS, Block, Kind, Tick, end_of, read, segments
from engine.judge import BreakerBlock
from engine.registry_follow import RegistryBlock
from engine.rows import apply_spec
from engine.snapshot import Snapshot
from engine.table import Table
from engine.windows import Windows

Array = npt.NDArray[Any]

_BEATS_AT_ONCE = 65_536


class Recovered(NamedTuple):
    """What a recovery found. `last_ms` is the last committed tick or beat, None on a fresh journal."""

    last_ms: int | None
    last_tick: Tick | None
    registry_position: int
    breaker: Breaker
    beats: int
    orderly: bool  # the shard had been stopped in order


class _Replay:
    def __init__(
        self, table: Table, decisions: Decisions, gaps: Gaps, windows: Windows, secrets: MasterSecrets
    ) -> None:
        self.table, self.decisions, self.gaps = table, decisions, gaps
        self.windows, self.secrets = windows, secrets
        self.last_ms: int | None = None
        self.tick: Tick | None = None
        self.registry_position = 0
        self.breaker = Breaker()
        self.orderly = False
        self.beats = 0
        self._waiting: list[Array] = []
        self._waiting_beats = 0

    def block(self, block: Block) -> None:
        if block.kind == Kind.BEATS:
            beats = np.frombuffer(block.payload, BEAT_DTYPE)
            self._waiting.append(beats)
            self._waiting_beats += len(beats)
            self._heard_at(int(beats["t_ms"].max()))
            if self._waiting_beats >= _BEATS_AT_ONCE:
                self.flush()
            return
        if block.kind == Kind.TICK:
            self.tick = msgspec.msgpack.decode(block.payload, type=Tick)
            self._heard_at(self.tick.wall_ms)
            self.orderly = self.tick.last
            return
        self.flush()
        if block.kind == Kind.VERDICTS:
            self.decisions.now_ms = block.t_ms
            self.decisions.replay_verdicts(np.frombuffer(block.payload, VERDICT_DTYPE))
        elif block.kind == Kind.GAP:
            self.gaps.take(msgspec.msgpack.decode(block.payload, type=Gap))
        elif block.kind == Kind.REGISTRY:
            change = msgspec.msgpack.decode(block.payload, type=RegistryBlock)
            for spec in change.specs:
                index = apply_spec(self.table, spec, self.secrets)
                self.windows.replace(index, spec.windows)
            # The last one told, not the highest: the registry may have been restored (registry_follow).
            self.registry_position = change.position or self.registry_position
        elif block.kind == Kind.BREAKER:
            breaker = msgspec.msgpack.decode(block.payload, type=BreakerBlock)
            self.breaker = Breaker(breaker.phase, breaker.since_ms, breaker.released)

    def _heard_at(self, t_ms: int) -> None:
        self.orderly = False
        self.last_ms = max(t_ms, self.last_ms or 0)

    def flush(self) -> None:
        """Apply the beats gathered so far."""
        if not self._waiting:
            return
        beats = joined(self._waiting)
        self._waiting, self._waiting_beats = [], 0
        self.beats += len(beats)
        self._restore_seqs(beats)
        decisions = self.decisions
        decisions.now_ms = int(beats["t_ms"][-1])
        decisions.close_fallen()
        applied = self.table.apply(beats)
        touched = set()
        for index, change in applied.heard:
            decisions.node(index, change)
            touched.add(index)
        for slot, said in applied.said:
            decisions.workload(slot, said)
            touched.add(int(self.table.slot.row_index[slot]))
        for index in touched:
            decisions.cool(index)

    def _restore_seqs(self, beats: Array) -> None:
        framed = beats[beats["origin"] == ORIGIN_FRAME]
        entry = 2 * (framed["row"] // self.table.shards).astype(np.int64) + (framed["generation"] & 1)
        live = self.table.generation.live[entry] == framed["generation"]
        np.maximum.at(self.table.generation.last_seq, entry[live], framed["seq"][live])


def _check_whole(directory: Path, found: Snapshot | None, end: int) -> int:
    """Where the journal begins; 0 when there is none.

    DamagedError unless it goes on from the snapshot or, without one, begins at its start.
    """
    journal = segments(directory)
    first = journal[0].position if journal else 0
    if found is None:
        snapshots = snapshot.count(directory)
        if (snapshots or journal) and not _from_its_start(directory):
            raise damaged.unreadable(directory, snapshots, journal=bool(journal))
    elif journal and found.header.position < first:
        # One that was begun after the snapshot goes on from it: the older one was given up.
        if not _from_its_start(directory):
            raise damaged.starts_late(directory, snapshot=found.header.position, first=first)
    elif journal and end < found.header.position:
        last = journal[-1].path
        raise damaged.ends_early(directory, snapshot=found.header.position, end=end, last=last)
    return first


def _from_its_start(directory: Path) -> bool:
    """Whether the journal is there from its first block, and began with nothing known before.

    A journal begins at a whole millisecond's position (engine.journal); a segment that others were trimmed
    before does so once in a million times.
    """
    journal = segments(directory)
    if not journal or journal[0].position % POSITION_PER_MS:
        return False
    first = next((block for block in read(directory, 0) if block.kind != Kind.OPENING), None)
    return first is None or first.kind != Kind.HEIR


def recover(
    directory: Path,
    table: Table,
    decisions: Decisions,
    gaps: Gaps,
    windows: Windows,
    secrets: MasterSecrets,
) -> Recovered:
    """Bring the table up to the last committed block. Runs before anything listens.

    DamagedError when snapshots and journal together do not hold all that was committed.
    """
    replay = _Replay(table, decisions, gaps, windows, secrets)
    found = snapshot.load(directory)
    end = end_of(directory)
    first = _check_whole(directory, found, end)
    start = 0
    if found is not None:
        header = found.header
        start = header.position
        table.restore(found)
        for gap in header.gaps:
            gaps.take(gap)
        replay.registry_position = header.registry_position
        replay.breaker = Breaker(header.phase, header.phase_since_ms, header.released)
        windows.restore(header.windows)
        replay.tick, replay.orderly = header.tick, header.tick.last
        replay.last_ms = header.tick.wall_ms if header.listened_ms is None else header.listened_ms
    for block in read(directory, max(start, first), kinds=INPUT_KINDS):
        if block.position >= end:
            break  # behind a torn block of another kind: never committed
        replay.block(block)
    replay.flush()
    return Recovered(
        replay.last_ms,
        replay.tick,
        replay.registry_position,
        replay.breaker,
        replay.beats,
        replay.orderly,
    )
