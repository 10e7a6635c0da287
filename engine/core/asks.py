"""Asking a shard for rows as they are at this very moment, without waiting for its next flush.

The live view is written in bulk, ten times a second or less; whoever reads a single row up to now would wait
for that. So web asks the shard itself, over the store that both already share, and gets the records that a
flush would have written now, under a header of their own. An ask that nobody answers in time is no fault: the
view is read instead. docs/decisions/0053 says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from engine.core.figures import ShardFigures
from engine.core.ports import LiveRow
from engine.core.records import Gap

ROWS_PER_ASK_MAX = 1_000


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """What a shard is asked: the rows by their index in it (row // shards); or, with `figures`, how it is."""

    reply_to: str
    number: int
    indices: list[int]
    figures: bool = False


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What it answers: the header (JSON), the rows' records in order, their slots' one after the other.

    `gaps`: of the shard, those that history may not have yet. `figures`: if it was asked for them, and then
    nothing else.
    """

    number: int
    head: bytes
    rows: bytes
    slots: bytes
    gaps: list[Gap]
    figures: ShardFigures | None = None


class Found(NamedTuple):
    """Rows as they are, and gaps that history may not have yet."""

    rows: dict[int, LiveRow]
    gaps: tuple[Gap, ...]


class RowAsks(Protocol):
    """Who asks: web."""

    async def ask(self, rows: Sequence[int], *, shards: int, timeout_s: float) -> Found | None:
        """Rows of one shard (at most ROWS_PER_ASK_MAX), as of no earlier than this call.

        None when the shard does not answer in time or the store is away.
        """
        ...

    async def figures(self, shard: int, *, timeout_s: float) -> ShardFigures | None:
        """How a shard is now; None as above. It answers at once, also while it can take no beats."""
        ...


class RowAnswers(Protocol):
    """Who answers: a shard."""

    async def asked(self, shard: int) -> list[Ask]:
        """What was asked since the last call; waits until there is something."""
        ...

    async def answer(self, told: Sequence[tuple[Ask, Told]]) -> None:
        """Tell those who asked. A store that is away loses the answers: nobody depends on them."""
        ...
