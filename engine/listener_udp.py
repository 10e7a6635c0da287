"""The UDP side of a shard: read in batches, hand on, know when the queue was empty and when we stalled.

t of a batch is the clock read once right after `recvmmsg` returns (LIVENESS.md 1); calls that follow each
other without anything in between are one batch. A reading that comes more than a second after the one before
it is a gap; until the queue has been emptied nobody is judged.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple

import trio

from engine import mmsg
from engine.core.timing import STALL_MS
from engine.host import Host
from engine.intake import Foreign, Intake
from engine.mmsg import DatagramBatches
from engine.pulse import Pulse

_READ_EVERY_S = 0.2  # an idle socket is read this often, so that a stall is told from silence


class UdpStatistics(NamedTuple):
    datagrams: int
    batches: int
    largest_batch: int
    acks_sent: int
    acks_lost: int
    drained_ms: int


class UdpListener:
    """One socket of a shard."""

    def __init__(
        self,
        sock: socket.socket,
        intake: Intake,
        *,
        host: Host,
        now_ms: Callable[[], int],
        foreign: Foreign,
        stalled: Callable[[int, int], None],
        batch_max: int,
    ) -> None:
        self._socket = sock
        self._host = host
        self._batches: DatagramBatches = mmsg.batches(sock, batch_max=batch_max)
        self._intake = intake
        self._now_ms = now_ms
        self._foreign = foreign
        self._stalled = stalled
        self._batch_max = batch_max
        self.read_ms = 0  # the last reading
        self.drained_ms = 0  # the last reading that left the queue empty
        self._crash: BaseException | None = None  # ends the shard
        self._trouble = Pulse()
        self._datagrams = self._readings = self._largest = self._sent = self._lost = 0

    def begin(self, now_ms: int) -> None:
        """The shard listens from now on: readings are counted from here."""
        self.read_ms = now_ms

    async def run(self) -> None:
        """Read until cancelled: on the host loop whenever something came, and now and then all the same."""
        forget = self._host.when_readable(self._socket, self._readable)
        try:
            while self._crash is None:
                with trio.move_on_after(_READ_EVERY_S):
                    await self._trouble.wait()
                self._readable()
            raise self._crash
        finally:
            forget()

    def _readable(self) -> None:
        if self._crash is None:
            try:
                self.read()  # what it leaves brings us here again in the next turn
            except BaseException as error:  # noqa: BLE001 - raised by `run`: here it would end a callback only
                self._crash = error
                self._trouble.give()

    def read(self) -> bool:
        """Take what is queued, up to one batch; whether that emptied the queue."""
        raw, lengths, names = self._batches.take()
        t_ms = self._now_ms()
        if t_ms - self.read_ms > STALL_MS:
            self._stalled(self.read_ms, t_ms)
        self.read_ms = t_ms
        count = len(raw)
        if count:
            self._datagrams += count
            self._readings += 1
            self._largest = max(self._largest, count)
            self._intake.take_datagrams(
                raw,
                lengths,
                names,
                t_ms,
                send=self.send,
                foreign=self._foreign,
                sources=self._batches.sources,
            )
        if count == self._batch_max:
            return False
        self.drained_ms = t_ms
        return True

    def send(self, frames: mmsg.Array, names: mmsg.Array) -> int:
        """Send ACKs from this socket; how many were taken."""
        sent = self._batches.send(frames, names)
        self._sent += sent
        self._lost += len(frames) - sent
        return sent

    def statistics(self) -> UdpStatistics:
        return UdpStatistics(
            self._datagrams, self._readings, self._largest, self._sent, self._lost, self.drained_ms
        )


def drained_ms(listeners: list[UdpListener]) -> int:
    """Everything queued before this was taken, on every socket."""
    return min((listener.drained_ms for listener in listeners), default=2**62)
