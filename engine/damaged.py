"""What to say when a shard's folder on disk cannot be followed: what is damaged, and what can be done.

A shard that started all the same would know less than was acknowledged, and nobody would notice. Damage is
what no crash of ours leaves behind (those are cut and gone on from): a bad disk, a file edited or removed.
"""

from __future__ import annotations

from pathlib import Path

_COPY = "Bring the folder back from a copy"
_FROM_SNAPSHOT = (
    "To give up what was recorded after the snapshot, and outputs not yet in Postgres: move the *.journal "
    "files away; the shard goes on from the snapshot."
)


class DamagedError(Exception):
    """A shard's folder is damaged; the text is for the operator."""


def torn(segment: Path, at: int) -> DamagedError:
    """A segment of the journal ends `at` bytes in, although later ones follow it."""
    return DamagedError(
        f"{segment} is damaged at byte {at}, and later segments follow it: what was recorded after that byte "
        f"cannot be followed. {_COPY}. To give up all that was recorded after it: cut the file there "
        f"(truncate -s {at} {segment}) and move the later *.journal files away."
    )


def unreadable(directory: Path, snapshots: int, *, journal: bool) -> DamagedError:
    """No snapshot can be read, and the journal does not hold everything by itself."""
    what = f"none of the {snapshots} snapshots can be read (damaged, or of another version)"
    rest = "does not begin at its start" if journal else "is not there"
    return DamagedError(
        f"{directory}: {what if snapshots else 'there is no snapshot'}, and the journal {rest}: what the "
        f"shard knew of its rows is lost. {_COPY}. To begin anew: move the folder away. Rows and sessions "
        "then come from the registry; base rows that were open, and outputs not yet in Postgres, are lost."
    )


def starts_late(directory: Path, *, snapshot: int, first: int) -> DamagedError:
    """The journal's oldest segment begins behind the snapshot's position."""
    return DamagedError(
        f"{directory}: the newest snapshot that can be read is of position {snapshot}, the journal begins at "
        f"{first}: what was recorded in between is not there. {_COPY}. {_FROM_SNAPSHOT}"
    )


def ends_early(directory: Path, *, snapshot: int, end: int, last: Path) -> DamagedError:
    """The journal's last whole block lies before the snapshot's position."""
    return DamagedError(
        f"{directory}: the snapshot is of position {snapshot}, but the journal can be read to {end} only: "
        f"{last} is damaged there. {_COPY}. {_FROM_SNAPSHOT}"
    )
