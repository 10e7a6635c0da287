"""Datagrams in batches, by either way of taking them: what was sent is what is taken, and answers go back."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import trio

from engine import mmsg
from engine.listener_udp import UdpListener, drained_ms
from engine.mmsg import PlainSocketBatches, SystemBatches
from tests.engine.shard_world import TrioHost

WAYS = [
    pytest.param(
        SystemBatches, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux's batch calls")
    ),
    PlainSocketBatches,
]
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> tuple[int, str]:
    return request.param


@pytest.fixture
def opened(family: tuple[int, str]) -> Iterator[Callable[[], socket.socket]]:
    """Opens sockets bound to loopback that never wait; they are closed at the end."""
    sockets: list[socket.socket] = []

    def make() -> socket.socket:
        made = socket.socket(family[0], socket.SOCK_DGRAM)
        made.bind((family[1], 0))
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sockets.append(made)
        return made

    yield make
    for each in sockets:
        each.close()


def received(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(100))
        except BlockingIOError:
            return found


@pytest.mark.parametrize("way", WAYS)
def test_what_was_sent_is_taken_in_order_with_its_length(opened: Any, way: Any):
    door, client = opened(), opened()
    batches = way(door, batch_max=8)
    sent = [bytes([number]) * (40 + number) for number in range(5)]
    for data in sent:
        client.sendto(data, door.getsockname())
    raw, lengths, names = batches.take()
    assert lengths.tolist() == [len(data) for data in sent]
    assert [raw[at, : len(data)].tobytes() for at, data in enumerate(sent)] == sent
    assert len(names) == 5
    assert len(batches.take()[0]) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_bounded_and_the_rest_comes_with_the_next(opened: Any, way: Any):
    door, client = opened(), opened()
    batches = way(door, batch_max=4)
    for number in range(10):
        client.sendto(bytes([number]) * 48, door.getsockname())
    taken = []
    for expected in (4, 4, 2, 0):
        raw, _, _ = batches.take()
        assert len(raw) == expected
        taken += raw[:, 0].tolist()
    assert taken == list(range(10))


@pytest.mark.parametrize("way", WAYS)
def test_answers_go_back_to_whoever_sent(opened: Any, way: Any):
    door = opened()
    clients = [opened() for _ in range(5)]
    batches = way(door, batch_max=8)
    for number, client in enumerate(clients):
        client.sendto(bytes([number]) * 48, door.getsockname())
    raw, _, names = batches.take()
    answers = raw[:, :48].copy() + np.uint8(100)
    assert batches.send(answers, names.copy()) == 5
    for number, client in enumerate(clients):
        assert received(client) == [bytes([number + 100]) * 48]


@pytest.mark.parametrize("way", WAYS)
def test_an_address_that_cannot_be_sent_to_costs_only_its_own_answer(opened: Any, way: Any):
    door, client = opened(), opened()
    batches = way(door, batch_max=8)
    for number in range(3):
        client.sendto(bytes([number]) * 48, door.getsockname())
    raw, _, names = batches.take()
    names = names.copy()
    names[1] = 0  # no family, no port; of no known sender
    assert batches.send(raw[:, :48].copy(), names) == 2
    assert [data[0] for data in received(client)] == [0, 2]


@pytest.mark.parametrize("way", WAYS)
def test_empty_and_oversized_datagrams_show_as_what_they_are_not(opened: Any, way: Any):
    """Not 48 bytes: the verifier refuses them by their length."""
    door, client = opened(), opened()
    batches = way(door, batch_max=8)
    for size in (0, 1, 47, 48, 49, 64, 65, 1_400):
        client.sendto(bytes(size), door.getsockname())
    lengths = batches.take()[1].tolist()
    assert [length == 48 for length in lengths] == [False, False, False, True, False, False, False, False]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's batch calls")
def test_one_batch_may_be_several_system_calls(opened: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mmsg, "CALL_MAX", 16)
    door, client = opened(), opened()
    batches = SystemBatches(door, batch_max=100)
    for number in range(50):
        client.sendto(bytes([number]) * 48, door.getsockname())
    raw, _, names = batches.take()
    assert raw[:, 0].tolist() == list(range(50))
    assert batches.send(raw[:, :48].copy(), names.copy()) == 50
    assert [data[0] for data in received(client)] == list(range(50))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's batch calls")
def test_a_system_call_that_fails_is_an_error_and_no_silence(opened: Any):
    door = opened()
    batches = SystemBatches(door, batch_max=8)
    door.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        batches.take()


@pytest.mark.parametrize("way", WAYS)
def test_a_loop_without_traffic_allocates_nothing_that_stays(opened: Any, way: Any):
    door, client = opened(), opened()
    batches = way(door, batch_max=4)
    for _ in range(300):
        client.sendto(bytes(48), door.getsockname())
        raw, _, names = batches.take()
        assert batches.send(raw[:, :48], names) == 1
        assert len(received(client)) == 1
    if way is PlainSocketBatches:
        assert not batches._known


def test_the_system_decides_which_way_is_taken(opened: Any, monkeypatch: pytest.MonkeyPatch):
    door = opened()
    kind = SystemBatches if sys.platform == "linux" else PlainSocketBatches
    assert type(mmsg.batches(door)) is kind
    monkeypatch.setattr(mmsg.sys, "platform", "plan9")
    assert type(mmsg.batches(door)) is PlainSocketBatches


# -- the listener on top of it ------------------------------------------------------------------------


class Taken:
    """Stands for the intake: what it was brought, and when."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def take_datagrams(self, raw: Any, _lengths: Any, _names: Any, t_ms: int, **_: Any) -> None:
        self.batches.append((len(raw), t_ms))


class Door:
    """A listener on loopback with a clock that is set by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.now_ms = 1_000
        self.taken = Taken()
        self.stalls: list[tuple[int, int]] = []
        intake: Any = self.taken
        self.listener = UdpListener(
            sock,
            intake,
            host=TrioHost(),
            now_ms=lambda: self.now_ms,
            foreign=lambda _frames, _names, _t_ms: None,
            stalled=lambda from_ms, to_ms: self.stalls.append((from_ms, to_ms)),
            batch_max=4,
        )
        self.listener.begin(self.now_ms)


def test_the_queue_counts_as_empty_only_when_a_reading_left_it_so(opened: Any):
    sock, client = opened(), opened()
    door = Door(sock)
    for number in range(9):
        client.sendto(bytes([number]) * 48, sock.getsockname())
    emptied = []
    for at in (1_010, 1_020, 1_030):
        door.now_ms = at
        emptied.append(door.listener.read())
        assert drained_ms([door.listener]) == (0 if at < 1_030 else 1_030)
    assert emptied == [False, False, True]
    assert door.taken.batches == [(4, 1_010), (4, 1_020), (1, 1_030)]


def test_a_reading_more_than_a_second_after_the_last_is_a_stall(opened: Any):
    door = Door(opened())
    for at in (2_000, 3_000, 4_001, 9_000):
        door.now_ms = at
        door.listener.read()
    assert door.stalls == [(3_000, 4_001), (4_001, 9_000)]


def test_of_several_sockets_the_one_emptied_longest_ago_counts(opened: Any):
    doors = [Door(opened()), Door(opened())]
    for at, door in ((5_000, doors[0]), (5_500, doors[1])):
        door.now_ms = at
        door.listener.begin(at)
        door.listener.read()
    assert drained_ms([door.listener for door in doors]) == 5_000


async def test_what_comes_is_read_at_once_and_an_idle_socket_now_and_then(opened: Any):
    sock, client = opened(), opened()
    door = Door(sock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.listener.run)
        for number in range(3):
            client.sendto(bytes(48), sock.getsockname())
            with trio.fail_after(5):
                while sum(count for count, _ in door.taken.batches) <= number:  # noqa: ASYNC110
                    await trio.sleep(0.001)
        door.now_ms = 5_000
        with trio.fail_after(5):
            while door.listener.read_ms < 5_000:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert door.stalls == [(1_000, 5_000)]


async def test_a_fault_of_ours_in_a_reading_ends_the_listener_and_no_callback_keeps_it_to_itself(opened: Any):
    sock, client = opened(), opened()
    door = Door(sock)

    def broken(*_args: Any, **_options: Any) -> None:
        raise AssertionError("planted")

    door.taken.take_datagrams = broken  # type: ignore[method-assign]
    client.sendto(bytes(48), sock.getsockname())
    with trio.fail_after(5), pytest.raises(AssertionError, match="planted"):
        await door.listener.run()
