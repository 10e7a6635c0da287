"""What runs beside the manager when this program started it: telling systemd, and keeping the log short."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from node.drivers.rotation import rotate
from node.manager.manager import Manager

log = logging.getLogger(__name__)
LOOK_S = 60.0


async def tell_systemd(_manager: Manager) -> None:
    """READY=1: the manager listens, and beats as soon as the server lets it. Silent where nobody asked."""
    target = os.environ.get("NOTIFY_SOCKET", "")
    if not target:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
            opened.connect("\0" + target[1:] if target.startswith("@") else target)
            opened.send(f"READY=1\nMAINPID={os.getpid()}".encode())
    except OSError as error:
        log.warning("systemd cannot be told that the manager is ready: %s", error)


def keep_short(path: Path, *, bytes_max: int, files: int) -> Callable[[Manager], Awaitable[None]]:
    """A task that rotates the log which this process appends to."""

    async def keep(_manager: Manager) -> None:
        while True:
            rotate(path, bytes_max=bytes_max, files=files)
            await trio.sleep(LOOK_S)

    return keep
