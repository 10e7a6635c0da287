"""The blocking shell against a real backend on loopback, in real time (the shortest interval is a second)."""

from __future__ import annotations

import random
import threading

import pytest

from node import BlockingNodeClient
from np1.codec import FLAG_STOPPING, Code
from np1.effects import Credited, Path, SessionOpened, Stopped
from tests.node.backend import NODE_ID, SEED, Backend


@pytest.fixture
def backend():
    with Backend() as running:
        yield running


def client_of(url, events=None, **options):
    return BlockingNodeClient(
        url,
        node_id=NODE_ID,
        private_key=SEED.hex(),
        first_within_ms=0,
        on_event=None if events is None else events.append,
        rng=random.Random(1),
        **options,
    )


def credited(count):
    return lambda statistics: statistics.codes.get(Code.OK, 0) >= count


def test_a_node_opens_a_session_beats_and_says_that_it_stops(backend):
    events = []
    with client_of(backend.url, events) as client:
        client.set_states({"a": "healthy", "b": "updating"})
        assert client.run_until(credited(2), timeout_s=5)
        assert client.stop()
    assert [type(event) for event in events] == [SessionOpened, Credited, Credited, Credited, Stopped]
    *beats, last = backend.recorded
    assert {(one.beat.plane0, one.beat.plane1, one.beat.flags) for one in beats} == {(3, 2, 0)}
    assert last.beat.flags == FLAG_STOPPING


def test_where_udp_is_not_answered_the_beats_go_over_http(backend):
    backend.answers_udp = False
    with client_of(backend.url) as client:
        assert client.run_until(credited(1), timeout_s=8)
        assert client.statistics().path is Path.HTTP
        assert client.stop()


def test_run_ends_when_another_thread_asks_for_it(backend):
    with client_of(backend.url) as client:
        runner = threading.Thread(target=client.run)
        runner.start()
        while not backend.recorded:
            runner.join(0.005)
        client.stop_soon()
        runner.join(5)
        assert not runner.is_alive()
    assert backend.recorded[-1].beat.flags == FLAG_STOPPING


def test_a_wait_that_is_not_fulfilled_says_so_and_can_be_taken_up_again(backend):
    backend.answers_udp = False
    with client_of(backend.url) as client:
        assert not client.run_until(credited(1), timeout_s=0.05)
        backend.answers_udp = True
        assert client.run_until(credited(1), timeout_s=5)


def test_a_closed_udp_port_and_an_unknown_host_are_survived(backend):
    good = backend.udp_endpoint
    backend.udp_endpoint = "no-such-host.invalid:7900"
    with client_of(backend.url) as client:
        assert client.run_until(lambda statistics: statistics.frames_sent >= 2, timeout_s=5)
        assert client.udp_failures >= 2
    backend.udp_endpoint = "127.0.0.1:9"
    with client_of(backend.url) as client:
        assert client.run_until(lambda statistics: statistics.frames_sent >= 2, timeout_s=5)
    backend.udp_endpoint = good
    with client_of(backend.url) as client:
        assert client.run_until(credited(1), timeout_s=5)


def test_a_backend_that_is_away_is_asked_again():
    with Backend() as gone:
        port = gone.port
    with client_of(f"http://127.0.0.1:{port}") as client:
        assert client.run_until(lambda statistics: statistics.session_refusals == 1, timeout_s=5)
        with Backend(port=port):
            assert client.run_until(credited(1), timeout_s=8)


def test_a_stopped_client_does_nothing_more(backend):
    with client_of(backend.url) as client:
        assert client.run_until(credited(1), timeout_s=5)
        assert client.stop()
        sent = len(backend.recorded)
        assert client.stop()
        assert not client.run_until(credited(99), timeout_s=1)
        client.stop_soon()
    assert len(backend.recorded) == sent
