"""What runs beside every manager: telling systemd that it is there, and keeping its own log short."""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
from pathlib import Path

import trio

from node.drivers.rotation import rotate
from node.manager.manager import Manager

log = logging.getLogger(__name__)
LOG = "manager.log"  # in the data folder: where the output of a manager in the background goes
LOOK_S = 60.0


async def tell_systemd(_manager: Manager) -> None:
    """READY=1: the manager listens, and beats as soon as the server lets it. Silent where nobody asked."""
    target = os.environ.get("NOTIFY_SOCKET", "")
    if not target:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
            opened.connect("\0" + target[1:] if target.startswith("@") else target)
            opened.send(b"READY=1")
    except OSError as error:
        log.warning("systemd cannot be told that the manager is ready: %s", error)


async def keep_log_short(manager: Manager) -> None:
    """Rotate the log when this process writes into it; a service manager's journal is not ours."""
    path, config = manager.config.data_path / LOG, manager.config
    while is_our_output(path):
        rotate(path, bytes_max=config.log_bytes_max, files=config.log_files)
        await trio.sleep(LOOK_S)


def is_our_output(path: Path) -> bool:
    """Whether standard error goes into this very file."""
    try:
        ours, theirs = os.fstat(sys.stderr.fileno()), path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(ours.st_mode) and os.path.samestat(ours, theirs)
