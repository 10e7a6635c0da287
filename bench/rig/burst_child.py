"""Sends a burst by UDP from a process of its own: every row beats once, all within a short time, at an even
rate. It logs when each beat left, when its ACK came, and how full the receiver's queue was meanwhile.

Orders: `make` the frames beforehand, `run` (see `Burst.run`). It ends when stdin closes.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

import numpy as np

from bench.rig.beater_child import percentiles
from bench.rig.child import say, serve_orders
from bench.rig.frames import Array, make_frames
from bench.rig.sender_child import SEGMENTS, drops, open_sender, used
from engine.mmsg import batches
from np1.codec import FRAME_BYTES

_WAIT_S = 0.000_5
_FRAMES_PER_TURN = 16 * SEGMENTS  # then ACKs are taken, however late the sending is
_SLICE_S = 0.05  # of the curves


class Burst:
    """One burst of `rows` beats into the queue whose socket is `queue_fd`."""

    def __init__(self, *, port: int, queue_fd: int, rows: int) -> None:
        self._socket = open_sender(("127.0.0.1", port))
        self._queue = socket.socket(fileno=queue_fd)
        self._acks = batches(self._socket)
        self._order = np.random.default_rng(3).permutation(rows)
        self._frames = b""
        self._came: list[tuple[float, Array]] = []
        self._depths: list[tuple[float, int]] = []

    def make(self) -> dict[str, Any]:
        """Make all frames."""
        seq = np.full(len(self._order), (time.time_ns() // 1_000_000) << 16, np.uint64)
        self._frames = make_frames(self._order, seq=seq, workloads=1, no_ack=False).tobytes()
        return {"made": len(self._order)}

    def run(self, *, rate: float, quiet_s: float) -> dict[str, Any]:
        """Send them at this rate (frames/s), then until no ACK came for `quiet_s`; what happened."""
        total, done, sent_s = len(self._order), 0, np.zeros(len(self._order))
        late_s, ended_s, acked_s = 0.0, 0.0, 0.0
        dropped = drops(self._queue)
        began = time.perf_counter()
        while True:
            now_s = time.perf_counter() - began
            due = min(total, int(now_s * rate))
            if due > done:
                late_s = max(late_s, now_s - done / rate)
                until = min(due, done + _FRAMES_PER_TURN)
                self._send(done, until)
                sent_s[done:until], done, ended_s = now_s, until, now_s
            self._depths.append((now_s, used(self._queue)))
            if self._take(began):
                acked_s = now_s
            elif done == total and now_s > max(ended_s, acked_s) + quiet_s:
                break
            elif done == due:
                select.select([self._socket], [], [], _WAIT_S)
        return {
            "sent": total,
            "seconds": ended_s,
            "frames_per_s": total / ended_s,
            "late_ms_max": late_s * 1_000,
            "last_ack_s": acked_s,
            "queue_bytes_max": max(depth for _, depth in self._depths),
            "dropped": (drops(self._queue) - dropped) % 2**32,
            **self._answered(sent_s),
        }

    def _send(self, start: int, end: int) -> None:
        for at in range(start, end, SEGMENTS):
            self._socket.send(self._frames[at * FRAME_BYTES : min(at + SEGMENTS, end) * FRAME_BYTES])

    def _take(self, began: float) -> bool:
        raw, _, _ = self._acks.take()
        if not len(raw):
            return False
        rows = np.ascontiguousarray(raw[:, 4:8]).view(">u4")[:, 0].astype(np.int64)
        self._came.append((time.perf_counter() - began, rows))
        return True

    def _answered(self, sent_s: Array) -> dict[str, Any]:
        """Latencies, and the curves: by slice of time how many datagrams waited, how late ACKs were."""
        place = np.empty(len(self._order), np.int64)
        place[self._order] = np.arange(len(self._order))
        rows = np.concatenate([each for _, each in self._came] or [np.empty(0, np.int64)])
        came_s = np.repeat([at for at, _ in self._came], [len(each) for _, each in self._came])
        latency_ms = (came_s - sent_s[place[rows]]) * 1_000
        slices: dict[int, int] = {}
        for at, depth in self._depths:
            slices[int(at / _SLICE_S)] = max(depth, slices.get(int(at / _SLICE_S), 0))
        return {
            "acks": len(rows),
            "ack_ms": percentiles(latency_ms),
            "queue_bytes_by_s": [(number * _SLICE_S, depth) for number, depth in sorted(slices.items())],
        }


if __name__ == "__main__":
    burst = Burst(**json.loads(sys.argv[1]))
    say(ready=True)
    serve_orders({"make": burst.make, "run": burst.run})
