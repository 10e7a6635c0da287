"""The door's sockets: steering by row, the filter, the drop counter, who holds the port."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from engine.sockets import BeatSockets, DropCounter, PortTakenError, open_beat_sockets
from np1.codec import FRAME_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="steering and filters are Linux's")
STOCK_BUFFER = 212_992


def frame(row: int) -> bytes:
    return b"\x11\0\0\1" + row.to_bytes(4, "big") + bytes(40)


def take(opened: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(opened.recv(2048))
        except BlockingIOError:
            return found


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request) -> str:
    return request.param


@pytest.fixture
def sockets(host) -> Iterator[BeatSockets]:
    opened = open_beat_sockets(host=host, port=0, sockets=6, receive_buffer_bytes=STOCK_BUFFER)
    yield opened
    opened.close()


@pytest.fixture
def sender(sockets) -> Iterator[socket.socket]:
    with socket.socket(sockets.udp[0].family, socket.SOCK_DGRAM) as opened:
        opened.connect((sockets.host, sockets.port))
        yield opened


def test_each_row_reaches_the_socket_of_its_number(sockets, sender):
    for row in range(60):
        sender.send(frame(row))
    for i, opened in enumerate(sockets.udp):
        rows = [int.from_bytes(got[4:8], "big") for got in take(opened)]
        assert rows == [row for row in range(60) if row % 6 == i]


def test_the_sockets_of_a_shard_get_the_rows_of_that_shard_and_no_others(sockets, sender):
    for row in range(60):
        sender.send(frame(row))
    for shard in range(3):
        mine = sockets.udp_of_shard(shard, shards=3)
        rows = {int.from_bytes(got[4:8], "big") for opened in mine for got in take(opened)}
        assert rows == {row for row in range(60) if row % 3 == shard}


def test_only_datagrams_of_48_bytes_beginning_0x11_enter_the_queue(sockets, sender):
    good = frame(7)
    for noise in (b"", b"\x11", good[:-1], good + b"\0", b"\x12" + good[1:], b"\x21" + good[1:], bytes(1400)):
        sender.send(noise)
    sender.send(good)
    assert [got for opened in sockets.udp for got in take(opened)] == [good]


def test_noise_is_not_counted_as_a_loss(sockets, sender):
    counter = DropCounter(sockets.udp)
    for _ in range(500):
        sender.send(b"\x12" + bytes(FRAME_BYTES - 1))
    assert counter.read() == 0


def test_every_datagram_that_found_the_buffer_full_is_counted_once(sockets, sender):
    counter = DropCounter(sockets.udp)
    for _ in range(2_000):
        sender.send(frame(3))
    kept = len(take(sockets.udp[3]))
    assert 0 < kept < 2_000
    assert counter.read() == 2_000 - kept
    assert counter.read() == 2_000 - kept  # the same losses are not counted again


def test_noise_beside_an_overflow_adds_nothing(sockets, sender):
    counter = DropCounter(sockets.udp)
    for _ in range(1_000):
        sender.send(frame(3))
        sender.send(b"\x12" + bytes(FRAME_BYTES - 1))
    assert counter.read() == 1_000 - len(take(sockets.udp[3]))


def test_the_listener_shares_the_port_number(sockets):
    with socket.create_connection((sockets.host, sockets.port), timeout=2):
        accepted, peer = sockets.http.accept()
        with accepted:
            assert peer[0] == sockets.host


def test_a_port_that_is_served_already_is_refused(sockets):
    with pytest.raises(PortTakenError, match=f"port {sockets.port}"):
        open_beat_sockets(host=sockets.host, port=sockets.port, sockets=2, receive_buffer_bytes=STOCK_BUFFER)


def test_a_tcp_port_of_somebody_else_is_refused_and_nothing_stays_open(host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match="TCP"):
            open_beat_sockets(host=host, port=port, sockets=1, receive_buffer_bytes=STOCK_BUFFER)
        with socket.socket(other.family, socket.SOCK_DGRAM) as udp:
            udp.bind((host, port))  # free: the failed attempt left nothing behind


def test_the_granted_buffer_is_what_the_kernel_says():
    opened = open_beat_sockets(host="127.0.0.1", port=0, sockets=2, receive_buffer_bytes=100_000)
    try:
        assert opened.buffer_bytes == 100_000
    finally:
        opened.close()


def test_a_host_that_is_not_ours_is_refused_with_its_name():
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        open_beat_sockets(host="192.0.2.1", port=0, sockets=1, receive_buffer_bytes=STOCK_BUFFER)
