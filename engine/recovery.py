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

from engine import snapshot
from engine.core.beats import BEAT_DTYPE, ORIGIN_FRAME, VERDICT_DTYPE, joined
from engine.core.breaker import Breaker
from engine.core.keys import MasterSecrets
from engine.core.records import Gap
from engine.decisions import Decisions
from engine.gaps import Gaps
from engine.journal_blocks import INPUT_KINDS, Block, Kind, Tick, end_of, read
from engine.judge import BreakerBlock
from engine.registry_follow import RegistryBlock
from engine.rows import apply_spec
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
            self.registry_position = max(self.registry_position, change.position)
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


def recover(
    directory: Path,
    table: Table,
    decisions: Decisions,
    gaps: Gaps,
    windows: Windows,
    secrets: MasterSecrets,
) -> Recovered:
    """Bring the table up to the last committed block. Runs before anything listens."""
    replay = _Replay(table, decisions, gaps, windows, secrets)
    found = snapshot.load(directory)
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
    end = end_of(directory)
    for block in read(directory, start, kinds=INPUT_KINDS):
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
