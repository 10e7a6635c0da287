"""Ports that are picked ahead of those who will listen on them."""

from __future__ import annotations

import random
import socket

import pytest

from nodepulse.freeports import HIGHEST, LOWEST, FreePorts, NoFreePortError


def test_no_port_is_given_twice_and_all_lie_below_those_of_outgoing_connections():
    ports = FreePorts()
    given = [ports.pick("127.0.0.1") for _ in range(50)]
    assert len(set(given)) == 50
    assert all(LOWEST <= port < HIGHEST < 32_768 for port in given)


def test_a_port_that_somebody_holds_is_passed_over():
    first = FreePorts(random.Random(7)).pick("127.0.0.1")
    with socket.create_server(("127.0.0.1", first)):
        assert FreePorts(random.Random(7)).pick("127.0.0.1") != first


def test_successive_ports_are_all_free():
    first = FreePorts(random.Random(7)).pick("127.0.0.1", count=4)
    with socket.create_server(("127.0.0.1", first + 3)):
        other = FreePorts(random.Random(7)).pick("127.0.0.1", count=4)
        assert first + 3 not in range(other, other + 4)


def test_a_host_that_is_not_ours_has_no_free_port():
    with pytest.raises(NoFreePortError, match=r"192\.0\.2\.1"):
        FreePorts().pick("192.0.2.1")
