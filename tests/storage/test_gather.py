"""Calls that share a batch: who carries it, who waits, and what becomes of them when it fails."""

from __future__ import annotations

import trio
import trio.testing

from engine.core.ports import StoreUnavailableError
from storage.gather import Gather


class Desk:
    """Answers n with 10 * n; an answer waits for `open`; a question in `bad` breaks its batch."""

    def __init__(self, *, size_max: int = 100) -> None:
        self.batches: list[list[int]] = []
        self.open = trio.Event()
        self.bad: set[int] = set()
        self.away = False
        self.gather = Gather(self.work, key=lambda question: question % 100, size_max=size_max)
        self.answers: dict[int, object] = {}

    async def work(self, questions):
        self.batches.append(list(questions))
        await self.open.wait()
        if self.away:
            raise StoreUnavailableError("away")
        if self.bad.intersection(questions):
            raise LookupError("bad question")
        return [question * 10 for question in questions]

    async def ask(self, question: int) -> None:
        try:
            self.answers[question] = await self.gather.ask(question)
        except (LookupError, StoreUnavailableError) as error:
            self.answers[question] = type(error)


async def asked(desk: Desk, nursery: trio.Nursery, *questions: int) -> None:
    for question in questions:
        nursery.start_soon(desk.ask, question)
        await trio.testing.wait_all_tasks_blocked()


async def test_what_arrives_while_one_is_under_way_goes_together():
    desk = Desk()
    async with trio.open_nursery() as nursery:
        await asked(desk, nursery, 1, 2, 3, 4)
        desk.open.set()
    assert desk.batches == [[1], [2, 3, 4]]
    assert desk.answers == {1: 10, 2: 20, 3: 30, 4: 40}


async def test_a_batch_has_a_bound_and_one_of_each_key():
    desk = Desk(size_max=2)
    async with trio.open_nursery() as nursery:
        await asked(desk, nursery, 1, 2, 102, 3, 4)
        desk.open.set()
    assert desk.batches == [[1], [2, 3], [102, 4]]
    assert desk.answers == {1: 10, 2: 20, 102: 1020, 3: 30, 4: 40}


async def test_a_carrier_that_is_cancelled_leaves_the_others_unharmed():
    desk = Desk()
    async with trio.open_nursery() as nursery:
        await asked(desk, nursery, 1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as carrier:
                carrier.start_soon(desk.ask, 2)
                await trio.testing.wait_all_tasks_blocked()
                await asked(desk, nursery, 3)
                scope.cancel()
        desk.open.set()
    assert desk.answers == {1: 10, 3: 30}


async def test_a_carrier_cancelled_in_the_middle_is_replaced_by_the_next():
    desk = Desk()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as carrier:
                carrier.start_soon(desk.ask, 1)
                await trio.testing.wait_all_tasks_blocked()
                await asked(desk, nursery, 2, 3)
                scope.cancel()
        desk.open.set()
    assert desk.batches == [[1], [2, 3]]
    assert desk.answers == {2: 20, 3: 30}


async def test_one_bad_question_spoils_no_other():
    desk = Desk()
    desk.bad = {3}
    async with trio.open_nursery() as nursery:
        await asked(desk, nursery, 1, 2, 3, 4)
        desk.open.set()
    assert desk.answers == {1: 10, 2: 20, 3: LookupError, 4: 40}


async def test_an_outage_is_told_to_all_who_wait_at_once():
    desk = Desk()
    desk.away = True
    async with trio.open_nursery() as nursery:
        await asked(desk, nursery, 1, 2, 3)
        desk.open.set()
    assert desk.batches == [[1]]
    assert desk.answers == dict.fromkeys((1, 2, 3), StoreUnavailableError)
    desk.away = False
    with trio.fail_after(5):
        assert await desk.gather.ask(4) == 40
