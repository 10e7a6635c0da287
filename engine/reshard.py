"""A start with another shard count: what the old shards' folders hold of a shard's rows becomes its own.

Row r is of shard r mod N, so with another N a shard's rows lie in several old folders. Each is recovered as
at a restart; rows are copied with all that is known of them (`engine.reshard_rows`), outputs that may not be
in Postgres yet go along (`engine.reshard_outputs`; written twice they change nothing). All this is made into
a journal and a snapshot beside the shard's place and put there at once (`engine.folders`): a death in the
middle leaves everything as it was, and Postgres is not needed.

Of two folders that know a row the newer one counts. Usually one old count is there, whole; when a change of
the count was itself cut short and another count is asked for, older folders fill in what the newest miss.
"""

from __future__ import annotations

from math import lcm
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from engine import snapshot
from engine.clock import Clock
from engine.core.keys import MasterSecrets
from engine.core.records import Gap, Window
from engine.decisions import Decisions
from engine.folders import Folder, folders, fresh_beside, place_of, put_in_place, remove_superseded
from engine.gaps import Gaps
from engine.journal import POSITION_PER_MS, Journal
from engine.journal_blocks import OUTPUT_KINDS, Kind, Tick, end_of, read
from engine.recovery import Recovered, recover
from engine.reshard_outputs import Outputs
from engine.reshard_rows import move_rows
from engine.snapshot import Snapshot, SnapshotHeader
from engine.table import Table
from engine.windows import Windows

Array = npt.NDArray[Any]

_COMMIT_BYTES = 8 * 1024 * 1024


class Resharded(NamedTuple):
    """What a shard's folder was made from."""

    counts: tuple[int, ...]  # shard counts of the folders it was made from, the newest first
    rows: int
    blocks: int  # of outputs, to be flushed
    complete: bool  # False: some folder held nothing; all rows are loaded from the registry again


def settle_folder(
    root: Path,
    *,
    shard: int,
    shards: int,
    secrets: MasterSecrets,
    segment_bytes: int,
) -> Resharded | None:
    """Make ``ROOT/{shards}/{shard}`` what it must be before its shard is recovered; None: it was already.

    To be called at every start, when no engine of another count runs any more. Takes as long as the replay
    of every old folder that shares rows with this shard. The last of the shards to get here removes the
    old folders. OSError; DamagedError.
    """
    place = place_of(root, shards=shards, shard=shard)
    put_in_place(place)
    found = [folder for folder in folders(root) if _concerns(folder, shards, shard)]
    own = max((folder.newest for folder in found if folder.shards == shards), default=0)
    made = None
    if any(folder.newest > own for folder in found):
        heir = _Heir(
            Table(shard=shard, shards=shards),
            _begin_journal(fresh_beside(place), found, shard, shards, segment_bytes),
            secrets,
        )
        made = heir.make(found)
        put_in_place(place)
    remove_superseded(root, shards=shards)
    return made


def _concerns(folder: Folder, shards: int, shard: int) -> bool:
    """Of another count with rows of this shard, or this shard's own."""
    if folder.shards == shards:
        return folder.shard == shard
    return folder.shares_rows(shards, shard)


def _begin_journal(
    directory: Path, found: list[Folder], shard: int, shards: int, segment_bytes: int
) -> Journal:
    """A journal above the end of every other: what Postgres remembers of those lies below it."""
    end = max(max(end_of(folder.path), folder.newest) for folder in found)
    clock = Clock()
    journal = Journal(
        directory,
        shard=shard,
        shards=shards,
        boot_id=clock.boot_id,
        segment_bytes=segment_bytes,
        now_ms=max(clock.now_ms(), end // POSITION_PER_MS + 1),
    )
    journal.append(Kind.HEIR, clock.now_ms(), b"")
    return journal


class _Heir:
    """A shard that takes its rows over from the folders of others."""

    def __init__(self, table: Table, journal: Journal, secrets: MasterSecrets) -> None:
        self._table, self._journal, self._secrets = table, journal, secrets
        self._gaps: list[Gap] = []
        self._gap_ends: set[int] = set()
        self._windows: dict[int, list[Window]] = {}
        self._recovered: list[Recovered] = []
        self._rows = self._blocks = 0

    def make(self, found: list[Folder]) -> Resharded | None:
        """Fill the journal's folder from these, the newest first. None when none of them ever listened."""
        table, counts = self._table, []
        residues = np.arange(lcm(table.shards, *(folder.shards for folder in found)))
        missing = residues % table.shards == table.shard
        try:
            for folder in found:
                takes = missing & (residues % folder.shards == folder.shard)
                if takes.any() and self._inherit(folder, takes):
                    missing &= ~takes
                    counts.append(folder.shards)
            if not counts:
                return None
            complete = not missing.any()
            self._finish(0 if not complete else min(each.registry_position for each in self._recovered))
        finally:
            self._journal.close()
        return Resharded(tuple(dict.fromkeys(counts)), self._rows, self._blocks, complete)

    def _inherit(self, folder: Folder, takes: Array) -> bool:
        """Take the rows with ``takes[row % len(takes)]``. False when the folder's shard never listened."""
        old = Table(shard=folder.shard, shards=folder.shards)
        decisions, gaps, windows = Decisions(old), Gaps(old), Windows()
        recovered = recover(folder.path, old, decisions, gaps, windows, self._secrets)
        if recovered.last_ms is None:
            return False
        known = np.flatnonzero(old.row.known[: old.rows])
        index = known[takes[(known * old.shards + old.shard) % len(takes)]]
        moved = move_rows(old, self._table, index)
        held = windows.held()
        windowed = np.isin(index, np.array(list(held), np.int64))
        places = zip(index[windowed].tolist(), moved[windowed].tolist(), strict=True)
        self._windows.update((to, held[at]) for at, to in places)
        self._gaps.extend(gaps.recent)
        self._gap_ends.update(old.gap_ends)
        self._recovered.append(recovered)
        self._rows += len(index)
        first = folder.shard % self._table.shards == self._table.shard and bool(takes[folder.shard])
        outputs = Outputs(old, index, installation=first)
        end = end_of(folder.path)
        for block in read(folder.path, 0, kinds=OUTPUT_KINDS):
            if block.position >= end:
                break  # behind a torn block of another kind: never committed
            self._copy(outputs, block.kind, block.t_ms, block.payload)
        anew = _Blocks()
        decisions.drain(anew, recovered.last_ms)
        for kind, t_ms, payload in anew.blocks:
            self._copy(outputs, kind, t_ms, payload)
        return True

    def _copy(self, outputs: Outputs, kind: int, t_ms: int, payload: bytes) -> None:
        mine = outputs.of(kind, payload)
        if mine:
            self._blocks += 1
            self._journal.append(Kind(kind), t_ms, mine)
        if self._journal.pending_bytes >= _COMMIT_BYTES:
            self._commit()

    def _commit(self) -> None:
        taken = self._journal.take()
        self._journal.commit(taken)
        self._journal.settle(taken, written=True)

    def _finish(self, registry_position: int) -> None:
        """Commit what was copied and take the snapshot: with it the folder is whole."""
        ticks = [each.last_tick for each in self._recovered if each.last_tick is not None]
        newest = max(ticks, key=lambda tick: tick.wall_ms, default=None)
        heard_ms = max((each.last_ms or 0 for each in self._recovered), default=0)
        clock = Clock(newest, not_before_ms=heard_ms)
        tick = msgspec.structs.replace(clock.tick(), last=all(each.orderly for each in self._recovered))
        # Also so that there is a segment: what follows the snapshot must follow something.
        self._journal.append(Kind.TICK, tick.wall_ms, msgspec.msgpack.encode(tick))
        self._commit()
        table = self._table
        header = self._header(tick, registry_position)
        snapshot.write(self._journal.directory, Snapshot(header, table.copy_columns()))

    def _header(self, tick: Tick, registry_position: int) -> SnapshotHeader:
        table = self._table
        return SnapshotHeader(
            version=snapshot.VERSION,
            position=self._journal.committed,
            shard=table.shard,
            shards=table.shards,
            rows=table.rows,
            slots=table.slots,
            projects=table.project_ids,
            gap_ends=sorted(self._gap_ends),
            gaps=sorted(self._gaps, key=lambda gap: gap.to_ms),
            detached=table.detached,
            phase="normal",
            phase_since_ms=tick.wall_ms,
            registry_position=registry_position,
            tick=tick,
            windows=self._windows,
            # The restart's gap begins when the first of them stopped listening.
            listened_ms=min(each.last_ms for each in self._recovered if each.last_ms is not None),
        )


class _Blocks:
    """Keeps the blocks that are appended."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Kind, int, bytes]] = []

    def append(self, kind: Kind, t_ms: int, payload: bytes) -> None:
        self.blocks.append((kind, t_ms, payload))
