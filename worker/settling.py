"""Settling: what came of attempts is written down, all that has ended meanwhile in one statement.

Again and again while Postgres is away: it is the only trace of what was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import trio

from engine.core.outbox import Delivery
from engine.core.ports import StoreUnavailableError
from engine.core.sending import Sending, Settled
from worker.outage import OUTAGE_POLL_S, Outage
from worker.outcome import NOTE_CHARS_MAX, Step


class _Result(msgspec.Struct):
    """One attempt's result on its way; whoever brought it waits for `done`."""

    delivery: Delivery
    step: Step
    settled: Settled
    done: trio.Event
    written: bool = False


class Settling:
    """Use `settle` from any number of tasks while `run` runs; as many wait at most as deliver at a time."""

    def __init__(self, sending: Sending, *, now_ms: Callable[[], int], outage: Outage) -> None:
        self.counts: Counter[Step] = Counter()
        self._sending = sending
        self._now_ms = now_ms
        self._outage = outage
        self._waiting: list[_Result] = []
        self._brought = trio.Event()

    async def settle(self, delivery: Delivery, step: Step, retry_at_ms: int | None, note: str) -> bool:
        """Return once it is written. False: it was left to its lease, which had ended meanwhile."""
        # Receivers have a say in it, and a text that cannot be stored would stop everybody.
        note = note.replace("\0", "").encode("utf-8", "replace").decode()[:NOTE_CHARS_MAX]
        match step:
            case Step.SENT:
                settled = Settled(delivery.delivery_id, "sent", note)
            case Step.RETRY | Step.LATER:
                assert retry_at_ms is not None
                attempted = step is Step.RETRY
                settled = Settled(delivery.delivery_id, "due", note, retry_at_ms, attempted)
            case Step.DEAD | Step.DISABLE:
                settled = Settled(delivery.delivery_id, "dead", note)
        result = _Result(delivery, step, settled, trio.Event())
        self._waiting.append(result)
        self._brought.set()
        await result.done.wait()
        return result.written

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._brought.wait()
            self._brought = trio.Event()
            batch, self._waiting = self._waiting, []
            await self._write(batch)
            for result in batch:
                result.done.set()

    async def _write(self, batch: list[_Result]) -> None:
        while batch:
            now_ms = self._now_ms()
            try:
                await self._sending.settle([result.settled for result in batch], now_ms=now_ms)
                for result in batch:
                    if result.step is Step.DISABLE:
                        await self._sending.disable_channel(
                            result.delivery.channel.channel_id, now_ms=now_ms, note=result.settled.note
                        )
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
                # One whose lease ended meanwhile is due by itself and may be in another's hands: a retry
                # written now would take it out of them.
                batch = [one for one in batch if not self._is_late(one)]
            else:
                self._outage.over()
                for result in batch:
                    result.written = True
                    self.counts[result.step] += 1
                return

    def _is_late(self, result: _Result) -> bool:
        return result.settled.state == "due" and self._now_ms() >= result.delivery.due_ms
