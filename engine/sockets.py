"""The sockets that beats come in by: UDP with kernel steering and a filter, TCP on the same port.

`serve` opens them once, keeps them for its whole life and hands descriptors to the shards (WIRE.md,
Steering): when a socket of a reuseport group is closed the kernel renumbers the rest, and every row would
land in another shard's queue. What is read from them is the listeners' affair. Linux only where it says so;
elsewhere one plain socket per shard group serves, unsteered and unfiltered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from np1.codec import BEAT_BYTE, FRAME_BYTES

HTTP_BACKLOG = 4_096
PORT_ATTEMPTS_MAX = 50  # free UDP ports tried until the same TCP port is free too

# <asm/socket.h>; not all are in Python's socket module.
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_MEMINFO = 55
_MEMINFO_WORDS = 9
_MEMINFO_DROPS = 8

# Classic BPF opcodes (linux/bpf_common.h): (code, jump if true, jump if false, operand).
_LD_W_ABS, _LD_W_LEN, _LD_B_ABS = 0x20, 0x80, 0x30
_ALU_MOD_K, _JEQ_K, _RET_A, _RET_K = 0x94, 0x15, 0x16, 0x06
_UDP_HEADER_BYTES = 8
_ROW_OFFSET = 4
Program = list[tuple[int, int, int, int]]

# A socket's filter sees the UDP header in front of the payload.
BEATS_ONLY: Program = [
    (_LD_W_LEN, 0, 0, 0),
    (_JEQ_K, 0, 3, _UDP_HEADER_BYTES + FRAME_BYTES),
    (_LD_B_ABS, 0, 0, _UDP_HEADER_BYTES),
    (_JEQ_K, 0, 1, BEAT_BYTE),
    (_RET_K, 0, 0, 0xFFFFFFFF),
    (_RET_K, 0, 0, 0),
]


class PortTakenError(Exception):
    """The UDP or the TCP port is somebody else's."""


@dataclass(frozen=True, slots=True)
class BeatSockets:
    """Open sockets in steering order: ``udp[i]`` gets the rows with ``row mod len(udp) == i``.

    `buffer_bytes` is what the kernel granted to each UDP socket, as it counts it: a 48-byte datagram takes
    about 832 of them.
    """

    host: str
    port: int
    udp: tuple[socket.socket, ...]
    http: socket.socket
    buffer_bytes: int

    def udp_of_shard(self, shard: int, *, shards: int) -> list[socket.socket]:
        """The sockets of one shard: their number is a multiple of `shards`, so rows mod shards agree."""
        assert len(self.udp) % shards == 0, "sockets are opened per shard"
        return [opened for i, opened in enumerate(self.udp) if i % shards == shard]

    def close(self) -> None:
        for opened in (*self.udp, self.http):
            opened.close()


def open_beat_sockets(
    *, host: str, port: int, sockets: int, receive_buffer_bytes: int, filtered: bool = True
) -> BeatSockets:
    """Open `sockets` UDP sockets and one TCP listener on one port; port 0 picks one that is free for both.

    PortTakenError when the port is taken, OSError when the host cannot be bound.
    """
    assert sockets >= 1, "at least one socket"
    family, address = _resolve(host)
    attempts = PORT_ATTEMPTS_MAX if port == 0 else 1
    while True:
        attempts -= 1
        try:
            free = _prove_free(family, address, port)
            http = _listen(family, address, free)
            break
        except PortTakenError:
            if attempts == 0:
                raise
    udp: list[socket.socket] = []
    try:
        for _ in range(sockets):
            udp.append(_open_udp(family, address, free, shared=sockets > 1, filtered=filtered))
            _set_buffer(udp[-1], receive_buffer_bytes)
        if sockets > 1:
            _attach(udp[0], _SO_ATTACH_REUSEPORT_CBPF, steering(sockets))
    except BaseException:
        for opened in (*udp, http):
            opened.close()
        raise
    granted = min(opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for opened in udp)
    return BeatSockets(host=host, port=free, udp=tuple(udp), http=http, buffer_bytes=granted)


def steering(sockets: int) -> Program:
    """Load the row, take it modulo the number of sockets, return it as the index of the socket."""
    return [(_LD_W_ABS, 0, 0, _ROW_OFFSET), (_ALU_MOD_K, 0, 0, sockets), (_RET_A, 0, 0, 0)]


class DropCounter:
    """Counts datagrams lost because a receive buffer was full, and only those.

    Seen on Linux 6.18: a datagram that the socket filter refuses raises the socket's drop counter just like
    one that finds the buffer full, but only the latter raises RcvbufErrors of the network namespace. So per
    reading the smaller of the two rises is counted: noise alone counts nothing, and other programs'
    overflows count nothing unless noise comes at the same moment (we then err towards forgiving nodes).
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._total = 0
        self._dropped = [_socket_drops(opened) for opened in sockets]
        self._overflowed = _namespace_overflows()

    def read(self) -> int:
        """Overflows since this counter was made. To be called about once a second."""
        dropped = [_socket_drops(opened) for opened in self._sockets]
        overflowed = _namespace_overflows()
        rise = sum((now - before) % 2**32 for now, before in zip(dropped, self._dropped, strict=True))
        self._total += min(rise, max(0, overflowed - self._overflowed))
        self._dropped, self._overflowed = dropped, overflowed
        return self._total


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"host {host!r} is not known: {error.strerror}") from error
    family, _type, _protocol, _name, address = found[0]
    return family, str(address[0])


def _prove_free(family: socket.AddressFamily, address: str, port: int) -> int:
    """The port, shown free by a bind that shares with nobody (two serves would else split the rows)."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        _bind(probe, address, port, "UDP")
        return int(probe.getsockname()[1])


def _open_udp(
    family: socket.AddressFamily, address: str, port: int, *, shared: bool, filtered: bool
) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if filtered and sys.platform == "linux":
            _attach(opened, _SO_ATTACH_FILTER, BEATS_ONLY)  # before the bind: nothing else ever gets in
        _bind(opened, address, port, "UDP")
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(listener, address, port, "TCP")
        listener.listen(HTTP_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(opened: socket.socket, address: str, port: int, name: str) -> None:
    try:
        opened.bind((address, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise OSError(
                error.errno, f"cannot bind {name} {address} port {port}: {error.strerror}"
            ) from error
        raise PortTakenError(f"{name} port {port} on {address} is taken by another process") from error


def _set_buffer(opened: socket.socket, wanted_bytes: int) -> None:
    """As root past rmem_max; otherwise up to it. The kernel doubles the number for its own bookkeeping."""
    half = wanted_bytes // 2
    try:
        if sys.platform == "linux" and os.geteuid() == 0:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, half)
            return
    except PermissionError:
        pass  # root in a container without CAP_NET_ADMIN: take what everybody gets
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, half)


def _attach(opened: socket.socket, option: int, program: Program) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    opened.setsockopt(socket.SOL_SOCKET, option, struct.pack("HL", len(program), ctypes.addressof(code)))


def _socket_drops(opened: socket.socket) -> int:
    if sys.platform != "linux":
        return 0
    words = opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMINFO_WORDS)
    return int(struct.unpack(f"{_MEMINFO_WORDS}I", words)[_MEMINFO_DROPS])


def _namespace_overflows() -> int:
    """RcvbufErrors of UDP over IPv4 and IPv6 in this network namespace."""
    if sys.platform != "linux":
        return 0
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    )
    total = int(values[names.index("RcvbufErrors")])
    six = Path("/proc/net/snmp6")
    if six.exists():
        pairs = (line.split() for line in six.read_text().splitlines())
        total += sum(int(value) for name, value in pairs if name == "Udp6RcvbufErrors")
    return total
