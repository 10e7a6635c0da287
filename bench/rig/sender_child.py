"""Sends beats by UDP from a process of its own, and takes the ACKs.

One plain `send` per datagram reaches about 300,000/s on one core: too slow for what is to be measured. So
frames are made beforehand, and leave up to 64 at a time through UDP_SEGMENT (the kernel cuts them apart);
all frames of one such send are of rows of one shard, because the kernel steers them together.

Orders: `make` frames, `fill` a queue with them at once, `flow` (keep the receiver's queue half full until
all are sent, so that it is always busy and nothing is dropped), `acks` (count those that came).
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from typing import Any

import numpy as np

from bench.rig.child import say, serve_orders
from bench.rig.frames import Beats
from engine.mmsg import batches
from np1.codec import FRAME_BYTES

SEGMENTS = 64
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_UDP_SEGMENT = 103
_ACK_BUFFER_BYTES = 512 * 1024 * 1024
_RETRY_S = 0.000_5


class Sender:
    """One sending socket. `queue_fds` are the receiver's sockets, one per shard, to see how full they are."""

    def __init__(self, address: tuple[str, int], *, queue_fds: list[int], rows: int, workloads: int) -> None:
        self._socket = open_sender(address)
        self._socket.setblocking(False)
        self._queues = [socket.socket(fileno=fd) for fd in queue_fds]
        self._beats = Beats(np.arange(rows), workloads=workloads)
        self._frames: list[bytes] = []
        self._acks = batches(self._socket)

    def make(self, *, count: int, no_ack: bool) -> dict[str, Any]:
        """Make the next frames, ordered by shard within each send."""
        frames, rows = self._beats.make(count, now_ms=time.time_ns() // 1_000_000, no_ack=no_ack)
        shards = len(self._queues)
        self._frames, per_shard = [], []
        for shard in range(shards):
            mine = frames[rows % shards == shard] if shards > 1 else frames
            per_shard.append(len(mine))
            self._frames.append(mine.tobytes())
        return {"per_shard": per_shard}

    def fill(self) -> dict[str, Any]:
        """Send everything at once: the queues must have room for it."""
        for frames in self._frames:
            view = memoryview(frames)
            for start in range(0, len(view), SEGMENTS * FRAME_BYTES):
                self._send(view[start : start + SEGMENTS * FRAME_BYTES])
        return {"queued": [used(queue) for queue in self._queues]}

    def flow(self, *, high_water_bytes: int) -> dict[str, Any]:
        """Send everything, never more than a queue takes. Answers at the first full queue, and at the end."""
        views = [memoryview(frames) for frames in self._frames]
        at = [0] * len(views)
        step, told = 16 * SEGMENTS * FRAME_BYTES, False
        while any(start < len(view) for start, view in zip(at, views, strict=True)):
            waited = True
            for number, view in enumerate(views):
                if at[number] >= len(view) or used(self._queues[number]) > high_water_bytes:
                    continue
                waited = False
                end = min(at[number] + step, len(view))
                for start in range(at[number], end, SEGMENTS * FRAME_BYTES):
                    self._send(view[start : min(start + SEGMENTS * FRAME_BYTES, end)])
                at[number] = end
            if waited:
                if not told:
                    told = True
                    say(full=True)
                time.sleep(_RETRY_S)
        if not told:
            say(full=True)
        return {"sent": True}

    def acks(self) -> dict[str, Any]:
        """Take and count what came back."""
        taken = 0
        while True:
            raw, _, _ = self._acks.take()
            taken += len(raw)
            if not len(raw):
                return {"acks": taken, "dropped": drops(self._socket)}

    def _send(self, piece: memoryview) -> None:
        while True:
            try:
                self._socket.send(piece)
                return
            except BlockingIOError:
                time.sleep(_RETRY_S)


def open_sender(address: tuple[str, int]) -> socket.socket:
    """A socket that cuts what is sent into frames, with room for all ACKs."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, FRAME_BYTES)
    _enlarge(opened, _ACK_BUFFER_BYTES)
    opened.connect(address)
    return opened


def used(queue: socket.socket) -> int:
    """Bytes that wait in a socket's receive queue, as the kernel counts them."""
    return _meminfo(queue)[0]


def drops(queue: socket.socket) -> int:
    return _meminfo(queue)[8]


def _meminfo(queue: socket.socket) -> tuple[int, ...]:
    return struct.unpack("9I", queue.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))


def _enlarge(opened: socket.socket, size: int) -> None:
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size // 2)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size // 2)  # up to rmem_max: ACKs may be lost


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    sender = Sender(
        ("127.0.0.1", asked["port"]),
        queue_fds=asked["queue_fds"],
        rows=asked["rows"],
        workloads=asked["workloads"],
    )
    say(ready=True)
    serve_orders({"make": sender.make, "fill": sender.fill, "flow": sender.flow, "acks": sender.acks})
