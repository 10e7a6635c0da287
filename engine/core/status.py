"""What anybody may see of a project whose owner wants that: our faults, maintenance; records and a port.

How a network is now is the live view's, how its days were the seals'. Nothing here names a node or a person.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.core.records import Gap

JOINED_MS = 60_000  # gaps nearer to each other than this are told as one incident


class Incident(msgspec.Struct, frozen=True):
    """A time in which some shard did not listen. `to_ms` None: it lasts. `causes`: of its gaps."""

    from_ms: int
    to_ms: int | None
    causes: tuple[str, ...]


class GapTotals(msgspec.Struct, frozen=True):
    """Of all gaps of some time: how many, and how long together, each shard on its own."""

    gaps: int
    length_ms: int


class PlannedWork(msgspec.Struct, frozen=True):
    """Maintenance that the project ordered, as many nodes as have a window of just these times."""

    from_ms: int
    to_ms: int
    nodes: int


def incidents_of(gaps: list[Gap]) -> list[Incident]:
    """Gaps of all shards as people tell of them: what overlaps or nearly does is one. The newest first."""
    found: list[Incident] = []
    for gap in sorted(gaps, key=lambda each: (each.from_ms, each.to_ms)):
        last = found[-1] if found else None
        if last is not None and last.to_ms is not None and gap.from_ms <= last.to_ms + JOINED_MS:
            causes = tuple(dict.fromkeys((*last.causes, gap.cause)))
            found[-1] = Incident(last.from_ms, max(last.to_ms, gap.to_ms), causes)
        else:
            found.append(Incident(gap.from_ms, gap.to_ms, (gap.cause,)))
    return found[::-1]


class StatusBooks(Protocol):
    """StoreUnavailableError of each."""

    async def gaps(self, *, since_ms: int, length_ms_min: int, limit: int) -> tuple[list[Gap], GapTotals]:
        """Of all shards, those that ended since then: the newest that were at least so long, and the sum of
        all, short ones too."""
        ...

    async def planned(self, project_id: str, *, now_ms: int, until_ms: int, limit: int) -> list[PlannedWork]:
        """What lasts now or begins before `until_ms`, by its beginning. Ordered updates and windows of the
        operators' own are left out."""
        ...
