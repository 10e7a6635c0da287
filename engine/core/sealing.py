"""Sealing a day: what is due, what keeps it from being sealed, corrections, and the ports of both.

Pure. What a seal says is sealed.py's; when one looks and how rows are put together the worker's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from engine.core.bulk import BulkItem
from engine.core.people import Act
from engine.core.records import Gap, ShardHead
from engine.core.sealed import DAY_MS, Seal, SealedRow

CORRECTIONS_PER_DAY_MAX = 100  # so that all revisions of a day fit a page
GRANTS_MAX = 10_000  # maintenance windows of one correction
CHANGED_TOLD_MAX = 1_000  # rows that a correction changed, listed


class NotYetError(Exception):
    """The day cannot be sealed now; the text names the reason."""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A project's day that is over. `correction_id`: it is to be sealed again, for `reason` by `actor`."""

    project_id: str
    project: str  # slug
    day_ms: int
    correction_id: str | None = None
    reason: str = ""
    actor: str = ""

    @property
    def end_ms(self) -> int:
        return self.day_ms + DAY_MS


class Grant(msgspec.Struct, frozen=True):
    """Maintenance ordered by the project, written with a correction; within the day, unix ms."""

    workload_id: str
    from_ms: int
    to_ms: int


class ChangedRow(msgspec.Struct, frozen=True):
    """A row that a correction changed. None: it was not there before, or is no more."""

    workload_id: str
    paid_before_ms: int | None
    paid_after_ms: int | None


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A day that is sealed once more. `revision` to `changed`: of what came of it; None: not done yet."""

    correction_id: str
    project_id: str
    day: str
    reason: str
    actor: str
    grants: int
    asked_ms: int
    revision: int | None = None
    done_ms: int | None = None
    rows_changed: int | None = None
    paid_before_ms: int | None = None
    paid_after_ms: int | None = None
    changed: tuple[ChangedRow, ...] = ()


class CorrectionRefusedError(Exception):
    """`code`: not_sealed | too_many | unknown_reference; the text says why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Condition(msgspec.Struct, frozen=True):
    """One of the conditions of LIVENESS.md 6. `lacks`: empty, when it is met. `shard`: None of those that
    are nobody's in particular.

    `what`: view (the shard is in the live view) | history (is in the store beyond midnight) | after_midnight
    (it took a beat or a tick since) | gaps | degraded | leases | turn (the days before are sealed) | source.
    """

    what: str
    shard: int | None
    lacks: str


def conditions(
    *,
    end_ms: int,
    after_ms: int,
    shards: int,
    watermarks: Mapping[int, int],
    leases_ms: int,
    heads: Mapping[int, ShardHead],
) -> list[Condition]:
    """What shards must say before a day that ends at `end_ms` is sealed (LIVENESS.md 6), in order.

    `after_ms`: how far beyond midnight history must reach. A watermark moves by ticks and beats only, so one
    beyond midnight says that the shard took one after it. `leases_ms`: who held which licence is settled
    up to there.
    """
    found: list[Condition] = []
    for shard in range(shards):
        told = heads.get(shard)
        head = told if told is not None and told.shards == shards else None
        lacks = {
            "view": "" if head else f"shard {shard} is not in the live view",
            "history": ""
            if watermarks.get(shard, 0) >= end_ms + after_ms
            else f"history of shard {shard} does not reach beyond midnight yet",
        } | _of_head(shard, head, end_ms, after_ms)
        found += [Condition(what, shard, text) for what, text in lacks.items()]
    found.append(
        Condition("leases", None, "" if leases_ms >= end_ms else "leases are not settled up to midnight")
    )
    return found


def _of_head(shard: int, head: ShardHead | None, end_ms: int, after_ms: int) -> dict[str, str]:
    """What the live view of a shard must say; while it is not there, nothing of it is known."""
    if head is None:
        return dict.fromkeys(("after_midnight", "gaps", "degraded"), f"shard {shard} does not tell")
    undecided = head.provisional_from_ms is not None and head.provisional_from_ms < end_ms
    return {
        "after_midnight": ""
        if head.watermark_ms >= end_ms + after_ms
        else f"the live view of shard {shard} does not reach beyond midnight yet",
        "gaps": f"a gap of shard {shard} is not decided" if undecided else "",
        "degraded": f"shard {shard} is degraded"
        if head.degraded and head.provisional_from_ms is None
        else "",
    }


def kept_back_by(
    *,
    end_ms: int,
    after_ms: int,
    shards: int,
    watermarks: Mapping[int, int],
    leases_ms: int,
    heads: Mapping[int, ShardHead],
) -> str | None:
    """The first of the `conditions` that is not met; None: the day may be sealed."""
    found = conditions(
        end_ms=end_ms,
        after_ms=after_ms,
        shards=shards,
        watermarks=watermarks,
        leases_ms=leases_ms,
        heads=heads,
    )
    return next((each.lacks for each in found if each.lacks), None)


class Writing(Protocol):
    """One seal while it is written: all of it is there at once after `finish`, or nothing is."""

    @property
    def seal_no(self) -> int: ...
    @property
    def revision(self) -> int: ...

    async def write(self, rows: Sequence[SealedRow], hours: Sequence[bytes], *, first_place: int) -> None:
        """The next rows in order, and their hours as they are stored."""
        ...

    async def finish(
        self,
        seal: Seal,
        *,
        kinds_ms: Sequence[int],
        block_roots: Mapping[int, Sequence[bytes]],
        node_blocks: Sequence[int],
    ) -> None:
        """Header, sums by kind, roots, event, and what became of a correction."""
        ...


class Sealing(Protocol):
    """What the worker that seals reads and writes."""

    async def watermarks(self) -> dict[int, int]:
        """By shard: everything up to this unix millisecond is in history."""
        ...

    async def clear(self) -> None:
        """Days that a worker began to seal and did not finish, because it died, take claims again."""
        ...

    async def due(self, *, before_ms: int) -> list[Due]:
        """Of each project the oldest day that is not sealed, of those that end by `before_ms`; oldest first.

        Corrections that were asked for come after them.
        """
        ...

    def paused(self) -> AbstractAsyncContextManager[None]:
        """For the time of the block nobody seals; it begins when a seal that is being written is done."""
        ...

    def writing(self, due: Due, *, now_ms: int) -> AbstractAsyncContextManager[Writing | None]:
        """None: another worker seals at this time, or has sealed that day.

        From here on no claim of the day is taken any more; left without `finish` nothing was written, and a
        day that has no seal takes claims again.
        """
        ...

    async def page(
        self, project_id: str, *, after_node: str, limit: int, from_ms: int, to_ms: int
    ) -> list[BulkItem]:
        """Workloads that lived within the window, in order of (node, slot), of nodes after that one; all of a
        node's or none. `limit`: more than a node's slots."""
        ...


class Corrections(Protocol):
    """Corrections, as whoever runs the project asks for them."""

    async def correct(
        self,
        project_id: str,
        day: str,
        *,
        reason: str,
        grants: Sequence[Grant],
        gap: Gap | None,
        act: Act,
    ) -> Correction:
        """Ask for a day to be sealed once more; what is granted is on record at once.

        `gap`: one of ours that was written down late; an admin's to give. The correction `act.made_id` that
        is there already is returned. CorrectionRefusedError.
        """
        ...

    async def corrections(self, project_id: str, day: str) -> list[Correction]:
        """Of a day, in order, without the rows that changed."""
        ...

    async def correction(self, project_id: str, day: str, correction_id: str) -> Correction | None: ...
