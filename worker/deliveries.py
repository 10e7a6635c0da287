"""Deliveries: claims what is due in the outbox for one kind of channel, has it sent, writes what came of it.

Any number of workers do this side by side: a claim is leased, and no send outlives its lease. A delivery is
marked sent only after the receiver took it, so a crash between the two sends twice and never not at all;
the notice's id lets the receiver tell. What follows from an outcome is decided in outcome.py, whom to leave
alone in circuits.py; results are written by settling.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import structlog
import trio

from engine.core.outbox import Delivery
from engine.core.ports import StoreUnavailableError
from engine.core.sending import Sending
from storage.failpoint import reached
from worker.circuits import Circuits
from worker.outage import OUTAGE_POLL_S, Outage
from worker.outcome import Outcome, Result, Sender, Step, next_step
from worker.settling import Settling

# Between claims under load: what ends meanwhile is claimed for together. Adds itself to the time until people
# are told, and halves the statements.
CLAIM_PAUSE_S = 0.005

log = structlog.get_logger()


class DeliveryStatistics(msgspec.Struct, frozen=True):
    in_flight: int
    store_away: int
    circuits_open: int
    circuits_opened_total: int
    probes_total: int
    sent_total: int
    retried_total: int
    later_total: int
    dead_total: int
    crashed_total: int


class Deliveries:
    """The deliveries of one kind of channel in this process; at most `concurrency_max` at a time."""

    def __init__(
        self,
        *,
        kind: str,
        sending: Sending,
        send: Sender,
        now_ms: Callable[[], int],
        concurrency_max: int,
        endpoint_concurrency_max: int,
        timeout_s: float,
        lease_margin_s: float,
        attempts_max: int,
        poll_s: float,
        crashed: Callable[[Exception, Delivery], None],
        attempted: Callable[[Delivery, int], None] = lambda delivery, now_ms: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`crashed` hears of bugs in a sender; `attempted` of each attempt, as it starts.

        `lease_margin_s`: between the end of the longest send and the end of its lease, for writing the
        result down and for clocks of workers that disagree.
        """
        self._kind = kind
        self._sending = sending
        self._send = send
        self._now_ms = now_ms
        self._concurrency_max = concurrency_max
        self._timeout_s = timeout_s
        self._lease_ms = int((timeout_s + lease_margin_s) * 1000)
        self._attempts_max = attempts_max
        self._poll_s = poll_s
        self._crashed = crashed
        self._attempted = attempted
        self._draw = draw
        self._wake = trio.Event()
        self._stopping = False
        self._limited = False  # a delivery that ends makes room for one that waits
        self._in_flight = 0
        self._outage = Outage(f"{kind} deliveries")
        self._circuits = Circuits(in_flight_max=endpoint_concurrency_max)
        self._settling = Settling(sending, now_ms=now_ms, outage=self._outage)
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
            nursery.start_soon(self._settling.run)
            async with trio.open_nursery() as sends:
                while not self._stopping:
                    self._wake = trio.Event()
                    # Before the claim as well: what ends while it is under way was in its way.
                    self._limited = bool(self._circuits.full())
                    claimed = await self._claim()
                    for delivery in claimed:
                        self._in_flight += 1
                        self._circuits.started(delivery.endpoint)
                        sends.start_soon(self._deliver, delivery)
                    self._limited |= self._in_flight >= self._concurrency_max or bool(self._circuits.full())
                    if claimed and self._in_flight < self._concurrency_max:
                        await trio.sleep(CLAIM_PAUSE_S)
                    else:
                        await self._wait()
            nursery.cancel_scope.cancel()

    def statistics(self) -> DeliveryStatistics:
        counts, circuits = self._settling.counts, self._circuits.statistics()
        return DeliveryStatistics(
            in_flight=self._in_flight,
            store_away=int(self._outage.away),
            circuits_open=circuits.open,
            circuits_opened_total=circuits.opened_total,
            probes_total=circuits.probes_total,
            sent_total=counts[Step.SENT],
            retried_total=counts[Step.RETRY],
            later_total=counts[Step.LATER],
            dead_total=counts[Step.DEAD] + counts[Step.DISABLE],
            crashed_total=self._crashes,
        )

    async def _wait(self) -> None:
        """For the next poll, or for something to do; with all slots taken for as long as that takes."""
        if self._in_flight >= self._concurrency_max:
            await self._wake.wait()
            await trio.sleep(CLAIM_PAUSE_S)  # others may end as well
            return
        with trio.move_on_after(OUTAGE_POLL_S if self._outage.away else self._poll_s):
            await self._wake.wait()

    async def _claim(self) -> list[Delivery]:
        """What can start now and never more: the lease runs from the claim."""
        free = self._concurrency_max - self._in_flight
        if free <= 0:
            return []
        now_ms, claimed = self._now_ms(), list[Delivery]()
        try:
            probed = self._circuits.to_probe(now_ms)[:free]
            if probed:
                claimed = await self._sending.probe(
                    kind=self._kind, circuits=probed, now_ms=now_ms, lease_ms=self._lease_ms
                )
                found = {delivery.circuit for delivery in claimed}
                for circuit in probed:
                    self._circuits.probed(circuit, found=circuit in found)
            claimed += await self._sending.claim(
                kind=self._kind,
                limit=free - len(claimed),
                now_ms=now_ms,
                lease_ms=self._lease_ms,
                in_flight=self._circuits.in_flight,
                in_flight_max=self._circuits.in_flight_max,
                without=self._circuits.closed_to(),
            )
            self._outage.over()
        except StoreUnavailableError as error:
            self._outage.began(error)
        return claimed  # what a probe claimed is sent, even when the store went away right after it

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            try:
                outcome = await self._attempt(delivery)
            except BaseException:
                self._circuits.unjudged(delivery.circuit)  # cancelled: this task may be started again
                raise
            finally:
                self._circuits.ended(delivery.endpoint)
            if outcome.result is Result.ACCEPTED:
                reached("delivery.sent")
            await self._judge_circuit(delivery, outcome)
            step, retry_at_ms = next_step(
                outcome,
                attempts=delivery.attempts,
                attempts_max=self._attempts_max,
                now_ms=self._now_ms(),
                draw=self._draw(),
            )
            if await self._settling.settle(delivery, step, retry_at_ms, outcome.note):
                self._log(delivery, step, retry_at_ms, outcome.note)
        finally:
            self._in_flight -= 1
            if self._limited:
                self._wake.set()

    async def _attempt(self, delivery: Delivery) -> Outcome:
        if delivery.attempts > self._attempts_max:
            return Outcome(Result.REFUSED, "given up: earlier attempts ended without a result")
        now_ms = self._now_ms()
        self._attempted(delivery, now_ms)
        try:
            return await self._send(delivery, now_ms=now_ms, timeout_s=self._timeout_s)
        except StoreUnavailableError:  # of a sender that asks for a budget: nothing was sent
            return Outcome(Result.LATER, "waiting: our database was away")
        except Exception as error:  # noqa: BLE001 - one poisoned delivery must not stop the others; reported
            self._crashes += 1
            self._crashed(error, delivery)
            return Outcome(Result.FAILED, f"internal error: {type(error).__name__}")

    async def _judge_circuit(self, delivery: Delivery, outcome: Outcome) -> None:
        """Leave a receiver alone that failed once too often: what waits for it is moved out of the way."""
        if not outcome.endpoint_failed:
            self._circuits.worked(delivery.circuit)
            return
        until_ms = self._circuits.failed(delivery.circuit, self._now_ms())
        if until_ms is None:
            return
        log.warning("circuit.opened", channel_id=delivery.channel.channel_id, until_ms=until_ms)
        try:
            await self._sending.hold(delivery.circuit, now_ms=self._now_ms(), until_ms=until_ms)
        except StoreUnavailableError as error:
            self._outage.began(error)  # claims leave the circuit out all the same

    def _log(self, delivery: Delivery, step: Step, retry_at_ms: int | None, note: str) -> None:
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
