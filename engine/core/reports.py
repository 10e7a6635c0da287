"""Reports: what a project's owners and operators are told of a day or a week, as records and as a port.

Numbers come from sealed rows, summed up once per day and revision. How a report is worded is the worker's.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

WORST_MAX = 5  # nodes of a day that a report names


class Worst(msgspec.Struct, frozen=True):
    """A node of a day that was paid for less than all that could be; `name` as it was called then."""

    node_id: str
    name: str
    paid_ms: int
    payable_ms: int  # the window without what was unobserved


class DaySum(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed day of a project, or of one operator's nodes in it. `day`: YYYY-MM-DD."""

    project_id: str
    scope_id: str  # the project's id, or the operator's
    day: str
    revision: int
    workloads: int
    nodes: int
    window_ms: int
    paid_ms: int
    unobserved_ms: int
    worst: tuple[Worst, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Paid by payable time (LIVENESS.md 2); None when there was nothing to be paid."""
        return ratio_of((self,))


def ratio_of(days: tuple[DaySum, ...]) -> float | None:
    """The ratio of some days together."""
    payable_ms = sum(each.window_ms - each.unobserved_ms for each in days)
    return sum(each.paid_ms for each in days) / payable_ms if payable_ms > 0 else None


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """A person who wants the report. `owns`: ids of projects. `channels`: mail channels that take it."""

    user_id: str
    name: str
    owns: tuple[str, ...]
    channels: tuple[str, ...]


class Reports(Protocol):
    """StoreUnavailableError."""

    async def unsealed(self, from_day: str, to_day: str) -> list[str]:
        """Slugs of projects that had workloads on a day from `from_day` to `to_day` that is not sealed."""
        ...

    async def sum_up(self, from_day: str, to_day: str) -> bool:
        """Sum up one sealed day whose newest revision is not summed up yet; False: there is none."""
        ...

    async def readers(self, *, weekly: bool, after: str | None, limit: int, now_ms: int) -> list[Reader]:
        """Who wants the daily or the weekly report and has a project or a node, by id.

        One who has no mail channel that takes reports, but an account's address, is given a channel for it:
        once, so that whoever removes it is left alone.
        """
        ...

    async def slugs(self) -> dict[str, str]:
        """Of all projects by id."""
        ...

    async def sums(self, scope_ids: list[str], from_day: str, to_day: str) -> list[DaySum]:
        """Of these projects and operators, by project, scope and day; both days are in it."""
        ...

    async def points(self, project_id: str, from_day: str, to_day: str) -> dict[str, int]:
        """Micro-points by day, of the newest commits."""
        ...

    async def gaps(self, from_ms: int, to_ms: int) -> tuple[int, int]:
        """How many gaps of ours there were, and how long they were together (of each shard on its own)."""
        ...

    async def prune(self, *, now_ms: int, kept_ms: int, limit: int) -> int:
        """Forget sums of days that began longer ago; how many."""
        ...
