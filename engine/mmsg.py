"""Datagrams by the thousand: `recvmmsg` and `sendmmsg` through ctypes, buffers and headers as numpy views.

Linux only; elsewhere `PlainSocketBatches` does the same with a system call per datagram. Reading never
waits, neither does sending: what the socket does not take at once is counted and dropped (UDP).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.core.clones import source_of

Array = npt.NDArray[Any]

CALL_MAX = 1024  # messages per system call (UIO_MAXIOV)
DATAGRAM_BYTES = 48  # kept of each; what is longer shows by its length and is refused
_LONGER_BYTES = 64  # room per datagram where the system does not tell the length of what it cut
_NAME_BYTES = 28  # struct sockaddr_in6
_IPV4_NAME_BYTES = 16

_IPV6_ADDRESS = slice(8, 24)  # of struct sockaddr_in6
_IPV4_MAPPED = np.uint64(0xFFFF << 32)

_MSG_DTYPE = np.dtype(
    {
        "names": ["name", "name_len", "iov", "iov_len", "control", "control_len", "flags", "length"],
        "formats": ["<u8", "<u4", "<u8", "<u8", "<u8", "<u8", "<i4", "<u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
_IOV_DTYPE = np.dtype([("base", "<u8"), ("len", "<u8")])
_MSG_DONTWAIT = 0x40
_MSG_TRUNC = 0x20  # tell the true length, also of what is cut


class DatagramBatches(Protocol):
    """Takes and sends batches on one socket. Results are views that the next call overwrites."""

    def take(self) -> tuple[Array, Array, Array]:
        """(bytes (n, 48 or more), true lengths (n,), addresses (n, m)) of what was queued, n up to the batch.

        Fewer than a batch: the queue was left empty.
        """
        ...

    def send(self, frames: Array, names: Array) -> int:
        """Send frames (n, 48) to addresses (n, m); how many the socket took."""
        ...

    def sources(self, names: Array) -> Array:
        """Addresses (n, m) as numbers to compare, as clones.source_of makes them, shape (n,)."""
        ...


class _Headers:
    """Message headers, their iovecs, data and addresses, laid out once."""

    def __init__(self, count: int, slot_bytes: int, name_len: int) -> None:
        self.data = np.zeros((count, slot_bytes), np.uint8)
        self.names = np.zeros((count, name_len), np.uint8)
        self.iovs = np.zeros(count, _IOV_DTYPE)
        self.messages = np.zeros(count, _MSG_DTYPE)
        number = np.arange(count, dtype=np.uint64)
        self.iovs["base"] = self.data.ctypes.data + number * slot_bytes
        self.iovs["len"] = slot_bytes
        self.messages["name"] = self.names.ctypes.data + number * name_len
        self.messages["name_len"] = name_len
        self.messages["iov"] = self.iovs.ctypes.data + number * 16
        self.messages["iov_len"] = 1


class SystemBatches:
    """`recvmmsg` and `sendmmsg`."""

    def __init__(self, sock: socket.socket, *, batch_max: int, frame_bytes: int = 48) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        self._fd = sock.fileno()
        name_len = _NAME_BYTES if sock.family == socket.AF_INET6 else _IPV4_NAME_BYTES
        self._batch_max = batch_max
        self._in = _Headers(batch_max, DATAGRAM_BYTES, name_len)
        self._out = _Headers(CALL_MAX, frame_bytes, name_len)
        self._in_at = self._in.messages.ctypes.data
        self._out_at = self._out.messages.ctypes.data
        self._lengths = self._in.messages["length"]

    def take(self) -> tuple[Array, Array, Array]:
        # Several calls make one batch: what is done per batch costs half as much for 4,096 as for 1,024.
        count = 0
        while count < self._batch_max:
            asked = min(CALL_MAX, self._batch_max - count)
            taken = self._take_part(count, asked)
            count += taken
            if taken < asked:
                break
        return self._in.data[:count], self._lengths[:count], self._in.names[:count]

    def _take_part(self, at: int, asked: int) -> int:
        first = ctypes.c_void_p(self._in_at + at * _MSG_DTYPE.itemsize)
        taken: int = self._recvmmsg(self._fd, first, asked, _MSG_DONTWAIT | _MSG_TRUNC, ctypes.c_void_p(None))
        if taken < 0:
            number = ctypes.get_errno()
            if number not in (errno.EAGAIN, errno.EINTR):
                raise OSError(number, os.strerror(number))
            return 0
        return taken

    def send(self, frames: Array, names: Array) -> int:
        sent = 0
        for start in range(0, len(frames), CALL_MAX):
            part = frames[start : start + CALL_MAX]
            self._out.data[: len(part)] = part
            self._out.names[: len(part)] = names[start : start + CALL_MAX]
            sent += self._send_part(len(part))
        return sent

    def sources(self, names: Array) -> Array:
        if names.shape[1] == _IPV4_NAME_BYTES:  # struct sockaddr_in: the address is the second word
            address = np.ascontiguousarray(names).view(">u4")[:, 1]
            return address.astype(np.uint64) | _IPV4_MAPPED
        halves = np.ascontiguousarray(names[:, _IPV6_ADDRESS]).view(">u8")
        network = halves[:, 0].astype(np.uint64)
        if network.all():
            return network
        return np.where(network != 0, network, halves[:, 1])

    def _send_part(self, count: int) -> int:
        at = sent = 0
        while at < count:
            done = self._sendmmsg(
                self._fd,
                ctypes.c_void_p(self._out_at + at * _MSG_DTYPE.itemsize),
                count - at,
                _MSG_DONTWAIT,
            )
            if done > 0:
                at, sent = at + done, sent + done
                continue
            if ctypes.get_errno() == errno.EAGAIN:
                return sent  # the send buffer is full: these ACKs are lost, as on any network
            at += 1  # this one address cannot be sent to; the others can
        return sent


class PlainSocketBatches:
    """The same with one system call per datagram, for systems without the batch calls."""

    def __init__(self, sock: socket.socket, *, batch_max: int) -> None:
        self._socket = sock
        self._batch_max = batch_max
        self._data = np.zeros((batch_max, _LONGER_BYTES), np.uint8)
        self._lengths = np.zeros(batch_max, np.uint32)
        self._names = np.zeros((batch_max, _NAME_BYTES), np.uint8)
        self._known: dict[int, Any] = {}
        self._next_name = 0

    def take(self) -> tuple[Array, Array, Array]:
        count = 0
        while count < self._batch_max:
            try:
                length, address = self._socket.recvfrom_into(self._data[count].data, _LONGER_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            self._next_name = (self._next_name + 1) % (1 << 20)
            self._known[self._next_name] = address
            self._names[count, :4] = np.frombuffer(self._next_name.to_bytes(4, "little"), np.uint8)
            self._lengths[count] = length
            count += 1
        return self._data[:count], self._lengths[:count], self._names[:count]

    def send(self, frames: Array, names: Array) -> int:
        sent = 0
        for frame, name in zip(frames, names, strict=True):
            address = self._known.pop(int.from_bytes(name[:4].tobytes(), "little"), None)
            try:
                sent += address is not None and self._socket.sendto(frame.tobytes(), address) > 0
            except OSError:
                continue  # lost, as on any network; `sent` tells
        return sent

    def sources(self, names: Array) -> Array:
        known = [self._known.get(int.from_bytes(name[:4].tobytes(), "little")) for name in names]
        return np.array([0 if address is None else source_of(address[0]) for address in known], np.uint64)


def batches(sock: socket.socket, *, batch_max: int = CALL_MAX) -> DatagramBatches:
    """What this system can do best. batch_max: datagrams that one `take` returns."""
    kind = SystemBatches if sys.platform == "linux" else PlainSocketBatches
    return kind(sock, batch_max=batch_max)
