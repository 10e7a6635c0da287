"""Telling systemd (Type=notify, WatchdogSec): sd_notify in a few lines. Silent where nobody asked."""

from __future__ import annotations

import os
import socket

import trio

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"


def notify(state: str) -> None:
    """Send a state such as ``READY=1`` when systemd asked for it."""
    target = os.environ.get(SOCKET_VARIABLE, "")
    if not target:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
        opened.connect("\0" + target[1:] if target.startswith("@") else target)
        opened.send(state.encode())


def watchdog_period_s() -> float:
    """How often to say ``WATCHDOG=1``: twice per period that systemd set; 0 when it set none."""
    return int(os.environ.get(WATCHDOG_VARIABLE, "0")) / 2e6


async def feed_watchdog() -> None:
    """Say that our loop turns, as often as systemd wants it; returns at once where it wants nothing."""
    period_s = watchdog_period_s()
    while period_s > 0:
        notify("WATCHDOG=1")
        await trio.sleep(period_s)


def environment_of_children() -> dict[str, str]:
    """Ours without what is meant for us alone: only serve speaks for the unit, and only it migrates."""
    ours = (SOCKET_VARIABLE, WATCHDOG_VARIABLE, "WATCHDOG_PID", "NODEPULSE_DATABASE__OWNER_URL")
    return {name: value for name, value in os.environ.items() if name not in ours}
