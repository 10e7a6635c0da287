"""Deliveries: claims what is due in the outbox for one kind of channel, has it sent, writes what came of it.

Any number of workers do this side by side: a claim is leased, and no send outlives its lease. A delivery is
marked sent only after the receiver took it, so a crash between the two sends twice and never not at all;
`notice_id` lets the receiver tell. What follows from an outcome is decided in outcome.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import assert_never

import msgspec
import structlog
import trio

from engine.core.outbox import Delivery, Outbox
from engine.core.ports import StoreUnavailableError
from worker.outage import OUTAGE_POLL_S, Outage
from worker.outcome import NOTE_CHARS_MAX, Outcome, Result, Sender, Step, next_step

# Between the end of the longest send and the end of its lease: for writing the result down, and for clocks
# of workers that disagree. Longer delays the retry of what a killed worker had in hand.
LEASE_MARGIN_MS = 40_000

log = structlog.get_logger()


class DeliveryStatistics(msgspec.Struct, frozen=True):
    in_flight: int
    store_away: int
    sent_total: int
    retried_total: int
    dead_total: int
    crashed_total: int


class Deliveries:
    """The deliveries of one kind of channel in this process; at most `concurrency_max` at a time."""

    def __init__(
        self,
        *,
        kind: str,
        outbox: Outbox,
        send: Sender,
        now_ms: Callable[[], int],
        concurrency_max: int,
        timeout_s: float,
        attempts_max: int,
        poll_s: float,
        crashed: Callable[[Exception, Delivery], None],
        attempted: Callable[[Delivery, int], None] = lambda delivery, now_ms: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`crashed` hears of bugs in a sender; `attempted` of each attempt, as it starts."""
        self._kind = kind
        self._outbox = outbox
        self._send = send
        self._now_ms = now_ms
        self._concurrency_max = concurrency_max
        self._timeout_s = timeout_s
        self._attempts_max = attempts_max
        self._poll_s = poll_s
        self._crashed = crashed
        self._attempted = attempted
        self._draw = draw
        self._wake = trio.Event()
        self._stopping = False
        self._in_flight = 0
        self._outage = Outage(f"{kind} deliveries")
        self._counts = {Step.SENT: 0, Step.RETRY: 0, Step.DEAD: 0}
        self._crashes = 0

    def wake(self) -> None:
        """Something may be due: look now and not at the next poll."""
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in hand has been settled."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Until `stop`. Postgres being away is waited for; bugs in a sender are reported and set aside."""
        async with trio.open_nursery() as nursery:
            while not self._stopping:
                self._wake = trio.Event()
                free = self._concurrency_max - self._in_flight
                claimed: list[Delivery] = []
                if free > 0:
                    try:
                        # Never more than can start now: the lease runs from the claim.
                        claimed = await self._claim(free)
                        self._outage.over()
                    except StoreUnavailableError as error:
                        self._outage.began(error)
                for delivery in claimed:
                    self._in_flight += 1
                    nursery.start_soon(self._deliver, delivery)
                if len(claimed) == free:
                    await self._wake.wait()  # all slots taken: go on when one is free again
                else:
                    with trio.move_on_after(OUTAGE_POLL_S if self._outage.away else self._poll_s):
                        await self._wake.wait()

    def statistics(self) -> DeliveryStatistics:
        return DeliveryStatistics(
            in_flight=self._in_flight,
            store_away=int(self._outage.away),
            sent_total=self._counts[Step.SENT],
            retried_total=self._counts[Step.RETRY],
            dead_total=self._counts[Step.DEAD],
            crashed_total=self._crashes,
        )

    async def _claim(self, limit: int) -> list[Delivery]:
        return await self._outbox.claim(
            kind=self._kind,
            limit=limit,
            now_ms=self._now_ms(),
            lease_ms=int(self._timeout_s * 1000) + LEASE_MARGIN_MS,
        )

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = await self._attempt(delivery)
            step, retry_at_ms = next_step(
                outcome,
                attempts=delivery.attempts,
                attempts_max=self._attempts_max,
                now_ms=self._now_ms(),
                draw=self._draw(),
            )
            await self._settle(delivery, step, retry_at_ms, outcome.note[:NOTE_CHARS_MAX])
        finally:
            self._in_flight -= 1
            self._wake.set()

    async def _attempt(self, delivery: Delivery) -> Outcome:
        if delivery.attempts > self._attempts_max:
            return Outcome(Result.REFUSED, "given up: earlier attempts ended without a result")
        now_ms = self._now_ms()
        self._attempted(delivery, now_ms)
        try:
            return await self._send(delivery, now_ms=now_ms, timeout_s=self._timeout_s)
        except Exception as error:  # noqa: BLE001 - one poisoned delivery must not stop the others; reported
            self._crashes += 1
            self._crashed(error, delivery)
            return Outcome(Result.FAILED, f"internal error: {type(error).__name__}")

    async def _settle(self, delivery: Delivery, step: Step, retry_at_ms: int | None, note: str) -> None:
        """Write the result, again and again while Postgres is away: it is the only trace of what was sent."""
        while True:
            try:
                await self._write(delivery, step, retry_at_ms, note)
                break
            except StoreUnavailableError as error:
                self._outage.began(error)
                await trio.sleep(OUTAGE_POLL_S)
            if step is Step.RETRY and self._now_ms() >= delivery.due_ms:
                # The lease ended meanwhile, so it is due by itself and may be in another's hands: a retry
                # written now would take it out of them.
                return
        self._outage.over()
        self._counts[Step.DEAD if step is Step.DISABLE else step] += 1
        log.info(
            f"delivery.{step.value}",
            delivery_id=delivery.delivery_id,
            channel_id=delivery.channel.channel_id,
            channel_kind=self._kind,
            notice_id=delivery.notice.notice_id,
            notice_kind=delivery.notice.kind,
            attempts=delivery.attempts,
            retry_at_ms=retry_at_ms,
            note=note,
        )

    async def _write(self, delivery: Delivery, step: Step, retry_at_ms: int | None, note: str) -> None:
        now_ms = self._now_ms()
        match step:
            case Step.SENT:
                await self._outbox.sent(delivery.delivery_id, now_ms=now_ms, note=note)
            case Step.RETRY | Step.DEAD:
                await self._outbox.failed(
                    delivery.delivery_id, now_ms=now_ms, note=note, retry_at_ms=retry_at_ms
                )
            case Step.DISABLE:
                await self._outbox.failed(delivery.delivery_id, now_ms=now_ms, note=note, retry_at_ms=None)
                await self._outbox.disable_channel(delivery.channel.channel_id, now_ms=now_ms, note=note)
            case _:
                assert_never(step)
