"""An installation of some shards for tests of a change of their count: real journals in temporary folders.

A `Fleet` is one life of all its shards; the next life is made by `restarted`, with another count or the same.
What is known of rows, and what was written for Postgres, is told by row, so that two installations can be
compared that had other counts.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.core.beats import FIRST_REPORT_DTYPE
from engine.core.records import INTERVAL_DTYPE, Event, Gap, RowSpec, SlotSpec, Window
from engine.folders import place_of
from engine.journal_blocks import OUTPUT_KINDS, Kind, end_of, read
from engine.reshard import Resharded, settle_folder
from engine.rows import id_of
from engine.settings import IngestSettings
from np1.codec import FLAG_STOPPING
from tests.engine.rows_world import SECRETS, T0, session, spec, workload
from tests.engine.shard_world import Bench

SEGMENT_BYTES = 1 << 14
STEP_MS = 20_000
ROWS = tuple(row for row in range(14) if row != 5)  # the registry has told of no row 5


def settle(root: Path, shard: int, shards: int) -> Resharded | None:
    return settle_folder(root, shard=shard, shards=shards, secrets=SECRETS, segment_bytes=SEGMENT_BYTES)


def one_shard(root: Path, shard: int, shards: int, *, now_ms: int) -> Bench:
    """One life of one shard, in its place."""
    place = place_of(root, shards=shards, shard=shard)
    small = IngestSettings(batch_frames_max=64)
    return Bench(place, shard=shard, shards=shards, now_ms=now_ms, ingest=small)


class Fleet:
    """One life of all shards of an installation."""

    def __init__(self, root: Path, *, shards: int, now_ms: int = T0) -> None:
        self.root, self.shards, self.now_ms = root, shards, now_ms
        self.made = [settle(root, shard, shards) for shard in range(shards)]
        self.shard = [one_shard(root, k, shards, now_ms=now_ms) for k in range(shards)]

    def restarted(self, *, shards: int, now_ms: int) -> Fleet:
        """The next life: listening from `now_ms` on, with its gap written down."""
        self.die()
        later = Fleet(self.root, shards=shards, now_ms=now_ms)
        later.listen()
        return later

    def listen(self) -> None:
        for number, bench in enumerate(self.shard):
            last_ms = bench.recovered.last_ms
            assert last_ms is not None
            cause = "restart" if bench.recovered.orderly else "crash"
            bench.gaps.record(Gap(number, last_ms, self.now_ms, cause, self.shards), bench.journal)
            bench.judge.judged_ms = self.now_ms
            bench.commit()

    def die(self) -> None:
        """No more is written."""
        for bench in self.shard:
            bench.journal.close()

    def of(self, row: int) -> Bench:
        return self.shard[row % self.shards]

    def learn(self, told: RowSpec) -> None:
        self.of(told.row).learn(told)
        self.of(told.row).commit()

    def beat(self, row: int, at_ms: int, **values: Any) -> None:
        self.now_ms = at_ms
        self.of(row).beats([row], at_ms, **values)

    def tick(self, at_ms: int, *, last: bool = False) -> None:
        """All shards judge, then write a tick."""
        self.now_ms = at_ms
        for bench in self.shard:
            bench.look(at_ms)
            bench.tick(last=last)

    def codes(self, row: int) -> list[int]:
        return self.of(row).codes()


# -- what is known of rows ------------------------------------------------------------------------------


def known(fleet: Fleet) -> dict[int, Any]:
    """Everything known of each row, with nothing in it that depends on where it lies."""
    found: dict[int, Any] = {}
    for bench in fleet.shard:
        for index in np.flatnonzero(bench.table.row.known[: bench.table.rows]).tolist():
            row = bench.table.number_of(index)
            assert row not in found
            found[row] = _row(bench, index)
    return found


def _row(bench: Bench, index: int) -> Any:
    table = bench.table
    columns = {name: column[index].item() for name, column in table.row.arrays.items()}
    base, room = columns.pop("slot_base"), columns.pop("slot_room")
    columns.pop("deadline_ms")  # when the judge looks next: too early does no harm, and a replay moves it
    columns["project"] = table.project_of(index)
    slots = {name: column[base : base + room].tolist() for name, column in table.slot.arrays.items()}
    assert slots.pop("row_index") == [index] * room
    pair = slice(2 * index, 2 * index + 2)
    detached = {slot - base for slot in table.detached if base <= slot < base + room}
    return {
        "row": columns,
        "generations": {name: column[pair].tolist() for name, column in table.generation.arrays.items()},
        "slots": slots,
        "detached": detached,
        "windows": bench.windows.held().get(index, []),
        "gaps": {
            (gap.from_ms, gap.to_ms, gap.cause) for gap in bench.gaps.since(0, row=table.number_of(index))
        },
    }


def written(
    root: Path, *, shards: int, only: Sequence[int] | None = None
) -> tuple[set[Any], set[Any], set[Any]]:
    """(base rows, events, first reports) in the journals of all shards, or only some, each once."""
    rows: set[Any] = set()
    events: set[Any] = set()
    reports: set[Any] = set()
    for shard in range(shards) if only is None else only:
        path = root / str(shards) / str(shard)
        end = end_of(path)
        for block in read(path, 0, kinds=OUTPUT_KINDS):
            if block.position >= end:
                break
            if block.kind == Kind.INTERVALS:
                rows.update(np.frombuffer(block.payload, INTERVAL_DTYPE).tolist())
            elif block.kind == Kind.FIRST_REPORTS:
                found = np.frombuffer(block.payload, FIRST_REPORT_DTYPE).tolist()
                reports.update((id_of(high, low), at_ms) for high, low, at_ms in found)
            elif block.kind == Kind.EVENTS:
                told = msgspec.msgpack.decode(block.payload, type=list[Event])
                events.update((event.event_id, event.kind, event.node_id, event.since_ms) for event in told)
    return rows, events, reports


def gaps_of(root: Path, row: int, *, shards: int) -> set[tuple[int, int, str]]:
    """The gaps of a row that are written for Postgres."""
    found = set()
    for shard in range(shards):
        for block in read(root / str(shards) / str(shard), 0, kinds=frozenset({Kind.GAP})):
            gap = msgspec.msgpack.decode(block.payload, type=Gap)
            if row % gap.shards == gap.shard:
                found.add((gap.from_ms, gap.to_ms, gap.cause))
    return found


# -- a random life --------------------------------------------------------------------------------------


class Script:
    """What happens to some rows, drawn from a seed; told to any number of fleets alike."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = T0
        self.specs = {row: self._first(row) for row in ROWS}

    def _first(self, row: int) -> RowSpec:
        project = f"00000000-0000-0000-0000-{row % 3:012}"
        kind = {7: "check", 8: "canary"}.get(row, "node")
        return spec(row, workloads=row % 4 + (60 if row == 9 else 1), project_id=project, kind=kind)

    def begin(self, *fleets: Fleet) -> None:
        for told in self.specs.values():
            for fleet in fleets:
                fleet.learn(told)

    def live(self, *fleets: Fleet, steps: int) -> None:
        for _ in range(steps):
            self.now_ms += self.chance.randrange(1, STEP_MS)
            for row in ROWS:
                what = self.chance.random()
                if what < 0.05:
                    self._change(row, fleets)
                elif what < (0.1 if row % 5 == 3 else 0.6):  # some rows fall silent for long
                    self._beat(row, fleets)
            for fleet in fleets:
                fleet.tick(self.now_ms)

    def _beat(self, row: int, fleets: tuple[Fleet, ...]) -> None:
        current = self.specs[row].current
        assert current is not None
        bits = (1 << 64) - 1
        plane0, plane1 = self.chance.choice(
            [(bits, 0), (bits, 0), (bits, 0), (0, bits), (bits, bits), (5, 2)]
        )
        flags = FLAG_STOPPING if self.chance.random() < 0.04 else 0
        counter = self.chance.randrange(1 << 16)
        for fleet in fleets:
            fleet.beat(
                row,
                self.now_ms,
                plane0=plane0,
                plane1=plane1,
                flags=flags,
                counter=counter,
                generation=current.generation,
            )

    def _change(self, row: int, fleets: tuple[Fleet, ...]) -> None:
        """A new session, more workloads, a workload less in the map, a window, or the row retired."""
        told = self.specs[row]
        assert told.current is not None
        what = self.chance.choice(["session", "workload", "window", "narrow", "retire"])
        if what == "window":
            begins = self.now_ms + self.chance.randrange(-5_000, 60_000)
            window = Window(f"w{begins}", None, begins, begins + 45_000, False)
            told = msgspec.structs.replace(told, windows=(*told.windows, window))
        elif what == "retire":
            told = msgspec.structs.replace(told, retired=self.chance.random() < 0.2)
        else:
            if what == "workload" and len(told.slots) < 64:
                new = SlotSpec(len(told.slots), workload(row, len(told.slots)), 0, None)
                told = msgspec.structs.replace(told, slots=(*told.slots, new))
            slots = (1 << len(told.slots)) - 1
            if what == "narrow":
                slots &= ~1
            opened = session(told.current.generation + 1, slots=slots, opened_ms=self.now_ms - 1)
            told = msgspec.structs.replace(told, current=opened, previous=told.current)
        self.specs[row] = told
        for fleet in fleets:
            fleet.learn(told)


# -- dying in the middle --------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


_CALLS = ("rename", "fsync", "fdatasync", "mkdir", "unlink", "rmdir", "pwrite", "ftruncate")


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the `number`-th call that changes the disk is the last thing that happens: it does not."""
    left = [number]

    def deadly(call: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] <= 0:
                raise Killed
            return call(*args, **options)

        return called

    with monkeypatch.context() as patched:
        for name in _CALLS:
            patched.setattr(os, name, deadly(getattr(os, name)))
        yield
