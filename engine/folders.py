"""The folders of the shards' journals, ``ROOT/{shards}/{shard}``, over changes of the shard count.

Which of two folders that share rows knows more of them is told by their positions: a folder that takes rows
over begins above the end of every other one (engine.journal_blocks). A folder is made beside its place, as
``{shard}.fresh``; once it holds a snapshot it is whole and counts for what stands in its place, so a death at
any moment leaves either the old or the new. What is put into a folder is `engine.reshard`'s.
"""

from __future__ import annotations

import os
import shutil
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

from engine import snapshot
from engine.journal_blocks import SUFFIX as _JOURNAL

_FILES = (_JOURNAL, snapshot.SUFFIX)
_FRESH = ".fresh"
_REMOVED = ".removed"


class Folder(NamedTuple):
    """One shard's journal and snapshots. `newest`: the position of its newest file."""

    path: Path
    shards: int
    shard: int
    newest: int

    def shares_rows(self, shards: int, shard: int) -> bool:
        """Whether a row can be both of this shard and of that one."""
        return (self.shard - shard) % gcd(self.shards, shards) == 0


def place_of(root: Path, *, shards: int, shard: int) -> Path:
    """Where a shard's folder is; made when it is not there. OSError."""
    place = root / str(shards) / str(shard)
    place.mkdir(parents=True, exist_ok=True)
    return place


def fresh_beside(place: Path) -> Path:
    """An empty folder beside a place, to be filled and then put there. OSError."""
    fresh = place.with_name(place.name + _FRESH)
    _remove(fresh)
    fresh.mkdir()
    return fresh


def put_in_place(place: Path) -> None:
    """Put the folder made beside this place there, if it is whole. To be called at every start. OSError."""
    fresh = place.with_name(place.name + _FRESH)
    if not _is_whole(fresh):
        return
    _remove(place)
    fresh.rename(place)
    for folder in (place.parent, place.parent.parent):
        _sync(folder)


def folders(root: Path) -> list[Folder]:
    """All folders that hold anything, the newest first."""
    found = [
        folder
        for count in _numbers_in(root)
        for shard in range(count)
        if (folder := _folder(root / str(count) / str(shard), count, shard)) is not None
    ]
    return sorted(found, key=lambda folder: folder.newest, reverse=True)


def remove_superseded(root: Path, *, shards: int) -> list[int]:
    """Remove the folders of all other counts once each of the present shards has taken over what it shares.

    The counts that were removed. Several may call at once; what a death left half removed goes as well.
    """
    found = folders(root)
    present = {folder.shard: folder.newest for folder in found if folder.shards == shards}
    for old in found:
        heirs = [shard for shard in range(shards) if old.shares_rows(shards, shard)]
        if old.shards != shards and any(present.get(shard, 0) < old.newest for shard in heirs):
            return []
    for left in root.glob(f"*{_REMOVED}"):
        _remove(left)
    return [count for count in _numbers_in(root) if count != shards and _remove_count(root, count)]


def _remove_count(root: Path, count: int) -> bool:
    """False when another was quicker."""
    removed = root / f"{count}{_REMOVED}"
    try:
        (root / str(count)).rename(removed)
    except FileNotFoundError:
        return False
    _remove(removed)
    return True


def _folder(place: Path, shards: int, shard: int) -> Folder | None:
    for path in (place.with_name(place.name + _FRESH), place):
        if path != place and not _is_whole(path):
            continue
        positions = [int(Path(name).stem) for name in _names_in(path) if name.endswith(_FILES)]
        if positions:
            return Folder(path, shards, shard, max(positions))
    return None


def _is_whole(fresh: Path) -> bool:
    return any(name.endswith(snapshot.SUFFIX) for name in _names_in(fresh))


def _numbers_in(folder: Path) -> list[int]:
    return sorted(int(name) for name in _names_in(folder) if name.isdigit())


def _names_in(folder: Path) -> list[str]:
    """Empty for a folder that is not there, or has just gone."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it; another shard may be doing the same."""

    def failed(_function: Any, _path: str, what: tuple[Any, BaseException, Any]) -> None:
        if not isinstance(what[1], FileNotFoundError):
            raise what[1]

    shutil.rmtree(folder, onerror=failed)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
