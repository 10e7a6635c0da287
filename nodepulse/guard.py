"""Stops the embedded stores when `serve` was killed. A script of its own, with the standard library only.

Serve writes lines to its standard input: ``wait PID`` for a child that stops by itself when serve is gone,
``stop PID SIGNAL:SECONDS ...`` for a server that does not. When the input ends, serve is dead: the guard
waits for the former (their last flush wants the stores), then stops the latter. A SIGTERM means that serve
stops in order and needs no guard. Processes are held by pidfds from when they are told: no later one is hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

FLUSH_S = 12.0  # how long the children get for their last flush

Steps = list[tuple[signal.Signals, float]]


def main() -> None:
    """Read until the end of the input, then act."""
    waited: dict[int, int] = {}  # pid: pidfd
    stores: dict[int, tuple[int, Steps]] = {}
    for line in sys.stdin:
        kind, pid, *steps = line.split()
        _forget_ended(waited, stores)
        pidfd = _open(int(pid))
        if pidfd is None:
            continue
        if kind == "wait":
            waited[int(pid)] = pidfd
        else:
            stores[int(pid)] = (pidfd, [_step(text) for text in steps])
    deadline = time.monotonic() + FLUSH_S
    for pidfd in waited.values():
        _wait(pidfd, deadline - time.monotonic())
    for pidfd, order in stores.values():
        for number, patience_s in order:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
            if _wait(pidfd, patience_s):
                break


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _step(text: str) -> tuple[signal.Signals, float]:
    name, _, seconds = text.partition(":")
    return signal.Signals[name], float(seconds)


def _wait(pidfd: int, patience_s: float) -> bool:
    """Whether the process has ended, at the latest after the patience."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, patience_s) * 1000))


def _forget_ended(waited: dict[int, int], stores: dict[int, tuple[int, Steps]]) -> None:
    for pid, pidfd in [*waited.items(), *((pid, held[0]) for pid, held in stores.items())]:
        if _wait(pidfd, 0):
            os.close(pidfd)
            waited.pop(pid, None)
            stores.pop(pid, None)


if __name__ == "__main__":
    main()
