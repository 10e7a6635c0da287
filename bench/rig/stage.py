"""Sets up what `ingest` measures: a shard (or several) and a C receiver on sockets of their own, each with a
sender, all in separate processes; and runs one measurement on either.

A measurement is a `drain` (the receiver waits until the whole load lies in its queue: processor time per
frame, with the sender out of the way) or a `flow` (the queue is kept half full: the highest rate).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig.child import Child, python_child
from engine.sockets import BeatSockets, open_beat_sockets

QUEUE_BYTES = 384 * 1024 * 1024
DATAGRAM_BYTES = 832  # what the kernel counts for a 48-byte datagram in a queue
FLOW_HIGH_WATER_BYTES = 16_384 * DATAGRAM_BYTES


class Taken(NamedTuple):
    """One measurement: `frames` fully processed by `shards` processes."""

    frames: int
    wall_s: float
    cpu_s: float  # of the receiving processes together
    acks: int  # that reached the sender
    said: dict[str, Any]  # what the last receiver counted

    @property
    def cpu_us_per_frame(self) -> float:
        return self.cpu_s / self.frames * 1e6

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.wall_s


class Line:
    """A sender and its receivers, joined by one port."""

    def __init__(self, sockets: BeatSockets, sender: Child, receivers: list[Child], *, held: bool) -> None:
        self._sockets = sockets
        self._sender = sender
        self.receivers = receivers
        self._held = held  # the receivers must be told to wait (a C receiver waits by itself)

    def drain(self, frames: int, *, no_ack: bool) -> Taken:
        """Fill the queues, then let them be taken."""
        per_shard = self._sender.ask("make", count=frames, no_ack=no_ack)["per_shard"]
        self._hold()
        self._sender.ask("fill")
        return self._take(per_shard)

    def flow(self, frames: int, *, no_ack: bool) -> Taken:
        """Send as fast as they are taken."""
        per_shard = self._sender.ask("make", count=frames, no_ack=no_ack)["per_shard"]
        self._hold()
        self._sender.ask("flow", high_water_bytes=FLOW_HIGH_WATER_BYTES)
        return self._take(per_shard, flowing=True)

    def _hold(self) -> None:
        if self._held:
            for receiver in self.receivers:
                receiver.ask("hold")

    def _take(self, per_shard: list[int], *, flowing: bool = False) -> Taken:
        for receiver, frames in zip(self.receivers, per_shard, strict=True):
            receiver.tell("go", frames=frames)
        if flowing:
            self._sender.answer()
        said = [receiver.answer() for receiver in self.receivers]
        acks = self._sender.ask("acks")
        return Taken(
            sum(per_shard),
            max(each["wall_s"] for each in said),
            sum(each["cpu_s"] for each in said),
            acks["acks"],
            said[-1],
        )


def open_sockets(*, shards: int, queue_bytes: int = QUEUE_BYTES) -> BeatSockets:
    return open_beat_sockets(host="127.0.0.1", port=0, sockets=shards, receive_buffer_bytes=queue_bytes)


def engine_line(
    stack: ExitStack,
    folder: Path,
    *,
    rows: int,
    workloads: int,
    shards: int,
    interval_ms: int,
    settings: dict[str, Any] | None = None,
) -> Line:
    """Shards with their tables filled, listening."""
    sockets = open_sockets(shards=shards)
    stack.callback(sockets.close)
    engines = []
    for shard in range(shards):
        fds = [each.fileno() for each in sockets.udp_of_shard(shard, shards=shards)]
        options = {
            "directory": str(folder),
            "rows": rows,
            "workloads": workloads,
            "interval_ms": interval_ms,
            "shard": shard,
            "udp_fds": fds,
            "settings": {"shards": shards, **(settings or {})},
        }
        engines.append(stack.enter_context(python_child("bench.rig.engine_child", options, fds=fds)))
    for engine in engines:
        engine.answer()
    return Line(sockets, _sender(stack, sockets, rows, workloads), engines, held=True)


def c_line(stack: ExitStack, program: Path, *, answers: bool, rows: int) -> Line:
    """A C receiver under the same socket settings."""
    sockets = open_sockets(shards=1)
    stack.callback(sockets.close)
    fd = sockets.udp[0].fileno()
    receiver = stack.enter_context(Child([str(program), str(fd), "answer" if answers else "count"], fds=[fd]))
    return Line(sockets, _sender(stack, sockets, rows, 1), [receiver], held=False)


def _sender(stack: ExitStack, sockets: BeatSockets, rows: int, workloads: int) -> Child:
    fds = [each.fileno() for each in sockets.udp]
    options = {"port": sockets.port, "queue_fds": fds, "rows": rows, "workloads": workloads}
    sender = stack.enter_context(python_child("bench.rig.sender_child", options, fds=fds))
    sender.answer()
    return sender
