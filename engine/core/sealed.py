"""A sealed day as records: what a seal says of each workload, the exact bytes that are hashed, and the port.

Pure. How trees are built is merkle.py's, when a day may be sealed and by whom the worker's, how rows are
stored storage/postgres_seals.py's. The byte layout is told to others in docs/proofs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec
import numpy as np

from engine.core.records import KINDS

DAY_MS = 86_400_000
HOURS = 24
DAY_TREE = -1  # the tree over the day's rows; 0 to 23: that of an hour
DAY_DOMAIN = b"nodepulse.day.v1\n"
HOUR_DOMAIN = b"nodepulse.hour.v1\n"
# One workload in the leaf of its node's hour: its id, then the milliseconds of each kind as in KINDS.
HOUR_DTYPE = np.dtype([("hi", ">u8"), ("lo", ">u8"), ("ms", ">u4", (len(KINDS),))])

_ROW_TEXT = (
    '{"v":1,"project":%s,"day":%s,"revision":%d,"workload":"%s","node":"%s","operator":%s,"kind":%s,"source":%s,'
    '"from_ms":%d,"to_ms":%d,"ms":{'
    + ",".join(f'"{kind}":%d' for kind in KINDS)
    + '},"paid_ms":%d,"held":%s,"refused":%s}'
)


class Held(msgspec.Struct, frozen=True):
    """Who owned the licence a workload ran under in a part of the day, and the paid time that falls there."""

    licence_id: str
    owner: str  # a wallet, lower case
    from_ms: int
    to_ms: int
    paid_ms: int


class SealedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One workload's day: [from_ms, to_ms) is the day cut to the workload's life.

    `ms`: by kind in the order of KINDS, sums to the window. `paid_ms`: by the project's policy of that day.
    `kind`: slug of what it runs. `operator_id`: whose machine. `source`: native | datagram. `refused`: beats
    of its node that were refused that day, by reason.
    """

    workload_id: str
    node_id: str
    operator_id: str | None
    kind: str | None
    source: str
    from_ms: int
    to_ms: int
    ms: tuple[int, ...]
    paid_ms: int
    held: tuple[Held, ...] = ()
    refused: dict[str, int] = msgspec.field(default_factory=dict)


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """A revision of a project's day. Times unix ms; roots 32 bytes; `hour_roots`: 24 of them.

    `rows`: leaves of the day's tree, in order of (node id, slot). `nodes`: leaves of each hour's tree, in
    order of node id. `reason`: why the day was sealed once more; empty for revision 1.
    """

    seal_no: int
    project_id: str
    project: str  # slug
    day: str  # YYYY-MM-DD, UTC
    revision: int
    reason: str
    actor: str
    rows: int
    nodes: int
    paid_ms: int
    root: bytes
    hour_roots: tuple[bytes, ...]
    sealed_ms: int


def row_text(row: SealedRow, *, project: str, day: str, revision: int) -> bytes:
    """The one text of a row: JSON in UTF-8, keys in this order, no spaces. Its leaf is over DAY_DOMAIN."""
    # A seal does this a million times: put together from parts, which takes half of what an encoder does.
    text = _ROW_TEXT % (
        _told(project),
        _told(day),
        revision,
        row.workload_id,
        row.node_id,
        _told(row.operator_id),
        _told(row.kind),
        _told(row.source),
        row.from_ms,
        row.to_ms,
        *row.ms,
        row.paid_ms,
        msgspec.json.encode(row.held).decode() if row.held else "[]",
        msgspec.json.encode(dict(sorted(row.refused.items()))).decode() if row.refused else "{}",
    )
    return text.encode()


@lru_cache(maxsize=4096)
def _told(text: str | None) -> str:
    """As JSON has it. Of few different values: the same for many rows."""
    return msgspec.json.encode(text).decode()


def statement_text(seal: Seal) -> bytes:
    """What is published of a seal: JSON in UTF-8, keys in this order, no spaces."""
    return msgspec.json.encode(
        {
            "v": 1,
            "project": seal.project,
            "day": seal.day,
            "revision": seal.revision,
            "reason": seal.reason,
            "rows": seal.rows,
            "nodes": seal.nodes,
            "paid_ms": seal.paid_ms,
            "root": seal.root.hex(),
            "hours": [root.hex() for root in seal.hour_roots],
            "sealed_ms": seal.sealed_ms,
        }
    )


def hour_content(*, hour_ms: int, node: bytes, workloads: bytes | memoryview) -> bytes:
    """What the leaf of a node's hour is over (HOUR_DOMAIN): the start of the hour in unix ms (8 bytes,
    big-endian), the node's id (16 bytes), then its workloads by slot as HOUR_DTYPE."""
    return hour_ms.to_bytes(8, "big") + node + bytes(workloads)


class SealedDay(msgspec.Struct, frozen=True):
    """What the newest seal of a day says of one workload. `window_ms`: as much of the day as it lived."""

    day: str
    revision: int
    node_id: str
    workload_id: str
    window_ms: int
    paid_ms: int
    up_ms: int
    unobserved_ms: int


class DaySums(msgspec.Struct, frozen=True):
    """What the newest seal of a day says of a whole project. `ms`: by kind, of all its workloads."""

    day: str
    revision: int
    workloads: int
    nodes: int
    paid_ms: int
    ms: dict[str, int]


class SealProgress(msgspec.Struct, frozen=True):
    """How far sealing is. `first_day`: the first on which the project had a workload; `due_day`: the oldest
    that is not sealed; None where there are none. `sealing`: days that are being sealed right now, or were
    begun by a worker that died. `watermarks`: by shard, up to where history is in the store, unix ms."""

    first_day: str | None
    due_day: str | None
    sealing: tuple[str, ...]
    watermarks: dict[int, int]


class Seals(Protocol):
    """Sealed days, as they are read. Nothing here is ever changed."""

    async def progress(self, project_id: str) -> SealProgress:
        """How far the project's days are sealed, and what its next seal has to wait for."""
        ...

    async def seals(self, project_id: str, *, before: str | None, limit: int) -> list[Seal]:
        """All revisions of the newest `limit` days before `before` (YYYY-MM-DD), newest first."""
        ...

    async def seal(self, project_id: str, day: str, revision: int | None = None) -> Seal | None:
        """That revision of the day; None asks for the newest."""
        ...

    async def kinds_ms(self, seal: Seal) -> dict[str, int]:
        """The milliseconds of all rows by kind, all KINDS."""
        ...

    async def row(self, seal: Seal, workload_id: str) -> tuple[int, SealedRow] | None:
        """The workload's place among the day's leaves, and its row."""
        ...

    async def rows(self, seal: Seal, *, after_place: int, limit: int) -> list[tuple[int, SealedRow]]:
        """In order of their places; -1 begins."""
        ...

    async def rows_of_node(self, seal: Seal, node_id: str) -> list[tuple[int, SealedRow]]: ...

    async def days_of_workload(self, workload_id: str, *, from_day: str, to_day: str) -> list[SealedDay]:
        """Of the newest seals of the days [from_day, to_day), by day."""
        ...

    async def days_of_nodes(self, node_ids: Sequence[str], *, from_day: str, to_day: str) -> list[SealedDay]:
        """Of all workloads of these nodes, retired ones as well, by day and workload."""
        ...

    async def sums_by_day(self, project_id: str, *, from_day: str, to_day: str) -> list[DaySums]:
        """Of all workloads of a project, by day; days that are not sealed are left out."""
        ...

    async def block(self, seal: Seal, tree: int, block: int) -> list[bytes]:
        """The leaf hashes of one block (merkle.BLOCK_LEAVES) of the day's tree or of an hour's."""
        ...

    async def block_roots(self, seal: Seal, tree: int) -> list[bytes]:
        """The roots of all blocks of that tree."""
        ...

    async def hour_leaf(self, seal: Seal, hour: int, node_id: str) -> tuple[int, bytes] | None:
        """The node's place among the hour's leaves, and the content that its leaf is over (hour_content)."""
        ...
