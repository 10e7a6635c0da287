"""Puts calls that arrive while one is under way into one batch: a commit costs the same for one as for many.

Whoever comes first carries the batch for those who wait; if it is cancelled, the next takes over. The work
itself, and what makes two calls unfit for one batch, belong to the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import outcome
import trio

from engine.core.ports import StoreUnavailableError

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Call(Generic[Q, R]):
    question: Q
    answer: outcome.Outcome[R] | None = None


class Gather(Generic[Q, R]):
    """`ask` one question; `work` is given a list of them, no two of the same `key`, at most `size_max`."""

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Awaitable[Sequence[R]]],
        *,
        key: Callable[[Q], Hashable],
        size_max: int,
    ) -> None:
        self._work = work
        self._key = key
        self._size_max = size_max
        self._waiting: list[_Call[Q, R]] = []
        self._turn = trio.Lock()  # fair: first come, first served

    async def ask(self, question: Q) -> R:
        """The answer to this question. What `work` raises for it; StoreUnavailableError for all alike."""
        call: _Call[Q, R] = _Call(question)
        self._waiting.append(call)
        try:
            async with self._turn:
                while call.answer is None:
                    await self._answer_some(call)
        finally:
            if call in self._waiting:
                self._waiting.remove(call)
        return call.answer.unwrap()

    async def _answer_some(self, mine: _Call[Q, R]) -> None:
        batch = self._batch()
        try:
            answers = await self._work([call.question for call in batch])
        except StoreUnavailableError as error:
            # Not one after the other: each of those who wait would wait for the same timeout again.
            for call in self._waiting:
                call.answer = outcome.Error(StoreUnavailableError(str(error)))
            self._waiting.clear()
            return
        except Exception:  # whatever it was: raised for who is alone with it, found out for the others
            if batch == [mine]:
                raise
            # One of them is at fault, and nobody knows which: this one alone, the others in their turn.
            (answer,) = await self._work([mine.question])
            batch, answers = [mine], [answer]
        for call, answer in zip(batch, answers, strict=True):
            call.answer = outcome.Value(answer)
            if call in self._waiting:  # its asker may have gone
                self._waiting.remove(call)

    def _batch(self) -> list[_Call[Q, R]]:
        """From the front, so that nobody waits for ever; a second of one key waits for the next batch."""
        batch: dict[Hashable, _Call[Q, R]] = {}
        for call in self._waiting:
            if len(batch) < self._size_max:
                batch.setdefault(self._key(call.question), call)
        return list(batch.values())
