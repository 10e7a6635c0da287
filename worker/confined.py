"""Confinement of a thread that runs other people's code on a stranger's URL (apprise): what it may reach.

CPython tells an audit hook of every connection, file and process before it is made (PEP 578), and the hook
can refuse. So whatever library connects, and to whatever a name resolves at that moment or a redirect leads
to, the address itself is judged, as for webhooks (addresses.py). Other threads notice nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from worker.addresses import is_public

_PROCESSES = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"}
)
_WRITES = frozenset("wax+")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# What code reads to run at all: itself, certificates, types of files, time zones.
_READABLE = tuple(
    os.path.realpath(folder)
    for folder in (
        sys.prefix,
        sys.base_prefix,
        str(Path(contextlib.__file__).parent),
        "/etc/ssl/certs",  # and not /etc/ssl: private keys lie beside them
        "/etc/ssl/cert.pem",
        "/etc/ssl/openssl.cnf",
        "/etc/mime.types",
        "/usr/share",
        "/usr/lib",
    )
)
_confined = threading.local()
_installing = threading.Lock()
_installed: list[bool] = []


class ConfinedError(PermissionError):
    """What the code wanted is not allowed to it."""


class Confinement:
    """Of one piece of work. Enter it in the thread that works; `cut` it from any other at any moment."""

    def __init__(self, *, allow_private: bool) -> None:
        self.refused: list[str] = []  # why, for a note
        self._allow_private = allow_private
        self._lock = threading.Lock()
        self._is_cut = False
        self._handles: list[socket.socket] = []  # duplicates: TLS takes the sockets themselves over

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Confine the present thread for the time of the block."""
        _install()
        _confined.by = self
        try:
            yield
        finally:
            _confined.by = None
            with self._lock:
                handles, self._handles = self._handles, []
            for handle in handles:
                handle.close()

    def cut(self) -> None:
        """End its connections, and let it make no more."""
        with self._lock:
            self._is_cut = True
            for handle in self._handles:
                with contextlib.suppress(OSError):  # not connected yet
                    handle.shutdown(socket.SHUT_RDWR)

    def check(self, event: str, args: tuple[Any, ...]) -> None:
        """ConfinedError for what may not be."""
        if event == "socket.connect":
            self._check_address(args[1])
            self._keep(args[0])
        elif event == "open":
            self._check_file(*args)
        elif event in ("socket.bind", "socket.sendto", "socket.sendmsg"):
            if event == "socket.bind" or args[1] is not None:
                raise self._refusal("it may only connect")
        elif event in _PROCESSES:
            raise self._refusal("it may start no process")

    def _check_address(self, address: Any) -> None:
        try:
            found = ip_address(address[0].partition("%")[0]) if isinstance(address, tuple) else None
        except ValueError:
            found = None  # a name, which would be resolved where we cannot see to what
        if found is None:
            raise self._refusal("it may only connect to addresses")
        if not self._allow_private and not is_public(found):
            raise self._refusal("the service's address is not public")

    def _keep(self, connecting: socket.socket) -> None:
        with self._lock:
            if self._is_cut:
                raise ConfinedError("cut")
            self._handles.append(connecting.dup())

    def _check_file(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        writes = bool(_WRITES & set(mode or "")) or bool(isinstance(flags, int) and flags & _WRITE_FLAGS)
        # Not realpath: it would be asked for what is not there, and a link out of these folders is ours.
        place = os.path.abspath(os.fsdecode(path))
        readable = any(place == each or place.startswith(each + os.sep) for each in _READABLE)
        if writes or not readable:
            raise self._refusal("it may not use files")

    def _refusal(self, why: str) -> ConfinedError:
        self.refused.append(why)
        return ConfinedError(why)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    confinement: Confinement | None = getattr(_confined, "by", None)
    if confinement is not None:
        confinement.check(event, args)


def _install() -> None:
    """Once for the life of the process: a hook cannot be taken away."""
    with _installing:
        if not _installed:
            _installed.append(True)
            sys.addaudithook(_hook)
