"""Picks TCP ports for port 0, ahead of the processes that will listen on them.

They are taken from below the range that the kernel gives to outgoing connections: there, nobody comes by one
by chance between our choice and the child's bind, nor while a child that died is away.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

LOWEST, HIGHEST = 20_000, 32_000  # Linux's ephemeral ports begin at 32,768
ATTEMPTS_MAX = 1_000


class NoFreePortError(Exception):
    """No port of the range could be bound on this host."""


class FreePorts:
    """Hands out ports, each once."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.SystemRandom()
        self._given: set[int] = set()

    def pick(self, host: str, *, count: int = 1) -> int:
        """The first of `count` successive ports that are free on this host now. NoFreePortError."""
        for _ in range(ATTEMPTS_MAX):
            first = self._rng.randrange(LOWEST, HIGHEST - count)
            wanted = range(first, first + count)
            if self._given.isdisjoint(wanted) and all(_is_free(host, port) for port in wanted):
                self._given.update(wanted)
                return first
        raise NoFreePortError(f"no {count} free TCP ports on {host} between {LOWEST} and {HIGHEST}")


def _is_free(host: str, port: int) -> bool:
    return all(_can_bind(*found) for found in _addresses(host, port))


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise NoFreePortError(f"host {host!r} is not known: {error.strerror}") from error
    yield from ((family, address) for family, _, _, _, address in found)


def _can_bind(family: socket.AddressFamily, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
