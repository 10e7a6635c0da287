"""The system's clock: whether something keeps it right, and the clocks that the engine needs."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nodepulse.checkup.finding import Finding

_TIMEX_BYTES = 208  # struct timex of Linux, with room
_STATUS_OFFSET = 40  # modes (int, padded), offset, freq, maxerror, esterror (longs), then status (int)
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
BUILT_S = 1_767_225_600  # 2026-01-01: a clock before it was never set


def clock_findings() -> Iterator[Finding]:
    """Findings of the area `clock`."""
    yield _set()
    if sys.platform == "linux":
        yield _synchronised()
        yield _boottime()


def _set() -> Finding:
    now = time.time()
    wrong = now < BUILT_S
    return Finding(
        "clock",
        "date",
        "problem" if wrong else "ok",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "set the clock: all that is paid carries its time" if wrong else "",
    )


def _synchronised() -> Finding:
    libc = ctypes.CDLL(None, use_errno=True)
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only asks
    state = libc.adjtimex(timex)
    status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)
    unsynced = state in (-1, _TIME_ERROR) or bool(status & _STA_UNSYNC)
    return Finding(
        "clock",
        "synchronised",
        "note" if unsynced else "ok",
        "the kernel knows of nothing that keeps the clock right" if unsynced else "yes",
        "run chrony or systemd-timesyncd (a container has its host's clock)" if unsynced else "",
    )


def _boottime() -> Finding:
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    boot = Path("/proc/sys/kernel/random/boot_id")
    found = f"boot {boot.read_text().strip()}" if boot.exists() else "no boot id"
    if slept_s > 1:
        advice = "a machine that sleeps does not listen: switch suspending off"
        return Finding("clock", "boot time", "note", f"{found}; suspended for {slept_s:,.0f} s", advice)
    return Finding("clock", "boot time", "ok" if boot.exists() else "note", f"{found}; never suspended")
