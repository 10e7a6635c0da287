"""A fleet that beats by UDP at its own pace, in a process of its own: every row once per period, in a fixed
random order, until it stops. It logs when its beats left and their ACKs came.

Orders: `run` (answers when the time is over, see `Fleet.run`), `save`. It ends when stdin closes.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from bench.rig.child import say, serve_orders
from bench.rig.frames import Array, make_frames
from bench.rig.sender_child import SEGMENTS, open_sender
from engine.mmsg import batches
from np1.codec import FRAME_BYTES

TICK_S = 0.005
NEVER_S = 1e9


class _Acks(NamedTuple):
    """What was taken at one moment."""

    at_s: float
    latency_ms: Array


class Fleet:
    """`rows` rows of `workloads` slots."""

    def __init__(self, *, port: int, rows: int, workloads: int, period_s: float, seed: int) -> None:
        self._socket = open_sender(("127.0.0.1", port))
        self._acks = batches(self._socket)
        self._workloads = workloads
        self._period_s = period_s
        self._random = np.random.default_rng(seed)
        self._order = self._random.permutation(rows)
        self._stops_s = np.full(rows, NEVER_S)
        self._sent_s = np.zeros(rows)
        self._server_ms = np.zeros(rows, np.int64)  # of the last ACK
        self._ttl_ms = np.zeros(rows, np.int64)
        self._log: list[_Acks] = []
        self._codes = np.zeros(16, np.int64)
        self._sent = 0
        self._late_s = 0.0

    def run(
        self,
        *,
        seconds: float,
        stopping: int = 0,
        stop_from_s: float = 0.0,
        stop_until_s: float = 0.0,
        together_at_s: float | None = None,
        until: str = "",
    ) -> dict[str, Any]:
        """Beat for so long, or until the file `until` is there.

        `stopping` random rows fall silent for ever at random moments between the two times, each after at
        least one beat; with `together_at_s` they all beat once more at that time and are silent then.
        Answers when the last ACK of each of them was given (`stopped`: row, server ms, ttl ms).
        """
        stopped = self._random.choice(len(self._order), stopping, replace=False)
        self._stops_s[stopped] = self._random.uniform(stop_from_s, stop_until_s, stopping)
        began, done, together = time.perf_counter(), 0, together_at_s
        now_s = 0.0
        while now_s < seconds:
            now_s = time.perf_counter() - began
            due = int(now_s / self._period_s * len(self._order))
            if due > done:
                self._late_s = max(self._late_s, (due - done) * self._period_s / len(self._order))
                rows = self._order[np.arange(done, due) % len(self._order)]
                self._send(rows[self._stops_s[rows] > now_s], began)
                done = due
            if together is not None and now_s >= together:
                self._send(stopped, began)
                together = None
            if until and os.path.exists(until):
                break
            left = TICK_S - (time.perf_counter() - began - now_s)
            if select.select([self._socket], [], [], max(0.0, left))[0]:
                self._take(began)
        return self._answer(began, stopped)

    def _send(self, rows: Array, began: float) -> None:
        if not len(rows):
            return
        seq = np.full(len(rows), (time.time_ns() // 1_000_000) << 16, np.uint64)
        frames = make_frames(rows, seq=seq, workloads=self._workloads, no_ack=False).tobytes()
        self._sent_s[rows] = time.perf_counter() - began
        for start in range(0, len(frames), SEGMENTS * FRAME_BYTES):
            self._socket.send(frames[start : start + SEGMENTS * FRAME_BYTES])
        self._sent += len(rows)

    def _take(self, began: float) -> None:
        while True:
            raw, _, _ = self._acks.take()
            now_s = time.perf_counter() - began
            if not len(raw):
                return
            acks = np.ascontiguousarray(raw[:, :FRAME_BYTES])
            row = acks[:, 4:8].copy().view(">u4")[:, 0].astype(np.int64)
            self._server_ms[row] = acks[:, 16:24].copy().view(">u8")[:, 0]
            self._ttl_ms[row] = acks[:, 28:32].copy().view(">u4")[:, 0]
            self._codes += np.bincount(acks[:, 1], minlength=16)[:16]
            self._log.append(_Acks(now_s, (now_s - self._sent_s[row]) * 1_000))

    def _answer(self, began: float, stopped: Array) -> dict[str, Any]:
        time.sleep(0.2)
        self._take(began)
        latencies = np.concatenate([each.latency_ms for each in self._log] or [np.zeros(0)])
        acked = stopped[self._server_ms[stopped] > 0]
        return {
            "sent": self._sent,
            "acks": len(latencies),
            "codes": {str(code): int(number) for code, number in enumerate(self._codes) if number},
            "late_ms_max": self._late_s * 1_000,
            "ack_ms": percentiles(latencies),
            "ack_ms_by_second": self._by_second(),
            **self._longest_silence(began),
            "stopped": np.stack([acked, self._server_ms[acked], self._ttl_ms[acked]], 1).tolist(),
            "stopped_unheard": len(stopped) - len(acked),
            "began_unix_ms": time.time() * 1_000 - (time.perf_counter() - began) * 1_000,
        }

    def _longest_silence(self, began: float) -> dict[str, float]:
        """The longest time in which no ACK came, and the unix second in which it ended."""
        came = np.array([each.at_s for each in self._log])
        if len(came) < 2:
            return {}
        longest = int(np.diff(came).argmax())
        unix_s = time.time() - (time.perf_counter() - began)
        return {
            "silence_s": float(came[longest + 1] - came[longest]),
            "silence_until_unix_s": unix_s + float(came[longest + 1]),
        }

    def save(self, *, path: str) -> dict[str, Any]:
        """The time of each row's last ACK, into a .npy file."""
        np.save(path, self._server_ms)
        return {"saved": path}

    def _by_second(self) -> list[dict[str, float]]:
        seconds: dict[int, list[Array]] = {}
        for each in self._log:
            seconds.setdefault(int(each.at_s), []).append(each.latency_ms)
        return [
            {"second": second, "acks": sum(map(len, parts)), **percentiles(np.concatenate(parts))}
            for second, parts in sorted(seconds.items())
        ]


def percentiles(values: Array) -> dict[str, float]:
    """p50, p99, p99.9 and the largest; empty for nothing."""
    if not len(values):
        return {}
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9))
    return {"p50": float(p50), "p99": float(p99), "p999": float(p999), "max": float(values.max())}


if __name__ == "__main__":
    fleet = Fleet(**json.loads(sys.argv[1]))
    say(ready=True)
    serve_orders({"run": fleet.run, "save": fleet.save})
