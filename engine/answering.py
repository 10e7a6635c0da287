"""Answering those who ask for rows as they are now (engine/core/asks.py): many asks, one look.

What is told is what a flush at this moment would have written, under the same rules: everything received up
to the header's watermark is applied, and what followed from it is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import trio

from engine.actors import Actors
from engine.committer import Committer
from engine.core.asks import ROWS_PER_ASK_MAX, Ask, RowAnswers, Told
from engine.core.figures import ShardFigures
from engine.core.records import Gap
from engine.entries import Entries
from engine.flusher import Flusher
from engine.gaps import Gaps
from engine.journal import Journal
from engine.listener_udp import UdpListener
from engine.pages import row_records, slot_records

_LOOK_AGAIN_S = 0.001
_ACTORS_S = 0.02
_GAP_MARGIN_MS = 60_000  # gaps that ended so long before history's watermark are there
_PATIENCE_S = 0.5  # a journal that takes longer is in trouble: who asked reads the view


class AnsweringStatistics(NamedTuple):
    answered: int
    given_up: int


class Answering:
    """Answers for one shard."""

    def __init__(
        self,
        asks: RowAnswers,
        table: Entries,
        journal: Journal,
        committer: Committer,
        actors: Actors,
        listeners: list[UdpListener],
        *,
        gaps: Gaps,
        now_ms: Callable[[], int],
        complete_ms: Callable[[], int],
        flusher: Flusher,
        figures: Callable[[], ShardFigures],
    ) -> None:
        """complete_ms: up to when everything received is applied."""
        self._figures = figures
        self._asks = asks
        self._table = table
        self._journal = journal
        self._committer = committer
        self._actors = actors
        self._listeners = listeners
        self._now_ms = now_ms
        self._complete_ms = complete_ms
        self._gaps = gaps
        self._flusher = flusher
        self.answered = self.given_up = 0

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            asks = await self._tell_figures(await self._asks.asked(self._table.shard))
            if not asks:
                continue
            with trio.move_on_after(_PATIENCE_S) as patience:
                await self._answer(asks)
            if patience.cancelled_caught:
                self.given_up += len(asks)

    async def _tell_figures(self, asks: list[Ask]) -> list[Ask]:
        """Answer those who ask how we are: at once, above all when nothing can be committed. The others."""
        curious = [ask for ask in asks if ask.figures]
        if curious:
            figures = self._figures()
            await self._asks.answer([(ask, Told(ask.number, b"", b"", b"", [], figures)) for ask in curious])
            self.answered += len(curious)
        return [ask for ask in asks if not ask.figures]

    async def _answer(self, asks: list[Ask]) -> None:
        asked_ms = self._now_ms()
        for listener in self._listeners:
            listener.read()  # what lies there was sent before anybody asked
        self._committer.wake()
        while self._complete_ms() < asked_ms:  # noqa: ASYNC110 - a commit lands within milliseconds
            await trio.sleep(_LOOK_AGAIN_S)
        with trio.move_on_after(_ACTORS_S):  # in a mass outage their turn comes later, and so do verdicts
            while not self._actors.settled():  # noqa: ASYNC110 - as above
                await trio.sleep(_LOOK_AGAIN_S)
        head = msgspec.json.encode(self._flusher.head(self._complete_ms()))
        flushed_ms = self._flusher.history_watermark_ms - _GAP_MARGIN_MS
        gaps = [gap for gap in self._gaps.recent if gap.to_ms > flushed_ms]
        told = [(ask, self._told(ask, head, gaps)) for ask in asks]
        await self._committer.wait_settled(self._journal.appended)
        await self._asks.answer(told)
        self.answered += len(asks)

    def _told(self, ask: Ask, head: bytes, gaps: list[Gap]) -> Told:
        """A copy of the records now: the wait that follows is for what led to them."""
        table = self._table
        known = [index for index in ask.indices[:ROWS_PER_ASK_MAX] if 0 <= index < table.rows]
        rows = np.zeros(min(len(ask.indices), ROWS_PER_ASK_MAX), row_records(table.row, np.arange(0)).dtype)
        if not known:
            return Told(ask.number, head, rows.tobytes(), b"", gaps)
        at = [place for place, index in enumerate(ask.indices[: len(rows)]) if 0 <= index < table.rows]
        rows[at] = row_records(table.row, np.array(known))
        counts = rows["slot_count"].astype(np.int64)
        first = np.repeat(rows["slot_base"] - (np.cumsum(counts) - counts), counts)
        return Told(
            ask.number,
            head,
            rows.tobytes(),
            slot_records(table.slot, first + np.arange(len(first))).tobytes(),
            gaps,
        )

    def statistics(self) -> AnsweringStatistics:
        return AnsweringStatistics(self.answered, self.given_up)
