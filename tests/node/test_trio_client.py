"""The trio shell against a real backend on loopback. Its clock runs 20 times as fast as the wall's.

Intervals are chosen so that what must be heard has a second of real time for it on a busy machine.
"""

from __future__ import annotations

import random
import socket

import pytest
from trio.testing import MockClock

from node import NodeClient, SessionRefused
from np1.codec import FLAG_STOPPING, Code
from np1.effects import Credited, Path, PathChanged, SessionOpened, Stopped
from tests.node.backend import NODE_ID, SEED, Backend

PATIENT_MS = 20_000
FALLBACK_MS = 4_000  # three of these are over in 0.6 s of real time


@pytest.fixture
def fast_clock():
    return MockClock(rate=20)


@pytest.fixture
def backend():
    with Backend(interval_ms=PATIENT_MS) as running:
        yield running


def client_of(url, events=None, **options):
    return NodeClient(
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


async def test_a_node_opens_a_session_beats_and_says_that_it_stops(fast_clock, backend, nursery):
    events = []
    client = client_of(backend.url, events, manager_version="nodepulse/9.9")
    client.set_states({"a": "healthy", "b": "updating"})
    await nursery.start(client.run)
    await client.wait_until(credited(3))
    assert await client.stop(timeout_s=100)
    assert backend.versions == ["nodepulse/9.9"]
    assert [type(event) for event in events][:2] == [SessionOpened, Credited]
    assert events[-1] == Stopped(credited=True)
    *beats, last = backend.recorded
    assert {(one.beat.plane0, one.beat.plane1, one.beat.flags) for one in beats} == {(3, 2, 0)}
    assert last.beat.flags == FLAG_STOPPING
    assert client.unacknowledged() == []


async def test_a_change_of_state_goes_with_the_next_beat(fast_clock, backend, nursery):
    client = client_of(backend.url)
    client.set_states({"a": "healthy"})
    await nursery.start(client.run)
    await client.wait_until(credited(1))
    client.set_states({"a": "unhealthy"})
    await client.wait_until(credited(2))
    nursery.cancel_scope.cancel()
    assert [(one.beat.plane0, one.beat.plane1) for one in backend.recorded][:2] == [(1, 0), (0, 1)]


async def test_where_udp_is_not_answered_the_beats_go_over_http(fast_clock, nursery):
    events = []
    with Backend(interval_ms=FALLBACK_MS, answers_udp=False) as backend:
        client = client_of(backend.url, events)
        await nursery.start(client.run)
        await client.wait_until(credited(2))
        assert client.statistics().path is Path.HTTP
        assert PathChanged(Path.HTTP) in events
        nursery.cancel_scope.cancel()


async def test_a_closed_udp_port_is_survived(fast_clock, nursery):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    with Backend(interval_ms=FALLBACK_MS) as backend:
        backend.udp_endpoint = f"127.0.0.1:{closed}"
        client = client_of(backend.url)
        await nursery.start(client.run)
        await client.wait_until(credited(1))
        assert client.statistics().path is Path.HTTP
        nursery.cancel_scope.cancel()


async def test_a_host_that_no_name_server_knows_is_survived(fast_clock, nursery):
    with Backend(interval_ms=FALLBACK_MS) as backend:
        backend.udp_endpoint = "no-such-host.invalid:7900"
        client = client_of(backend.url)
        await nursery.start(client.run)
        await client.wait_until(credited(1))
        assert client.udp_failures > 0
        nursery.cancel_scope.cancel()


async def test_host_names_are_resolved(fast_clock, nursery):
    with Backend(udp_host="localhost", interval_ms=PATIENT_MS) as backend:
        client = client_of(backend.url)
        await nursery.start(client.run)
        await client.wait_until(lambda statistics: bool(statistics.codes))
        assert client.statistics().path is Path.UDP or "::1" in str(socket.getaddrinfo("localhost", 1))
        assert await client.stop(timeout_s=100)


async def test_a_backend_that_comes_later_is_found(fast_clock, nursery):
    with Backend() as gone:
        port = gone.port
    events = []
    client = client_of(f"http://127.0.0.1:{port}", events)
    nursery.start_soon(client.run)
    await client.wait_until(lambda statistics: statistics.session_refusals >= 2)
    assert isinstance(events[0], SessionRefused)
    assert events[0].refusal.status == 0
    with Backend(port=port, interval_ms=PATIENT_MS):
        await client.wait_until(credited(1))
        assert await client.stop(timeout_s=100)


async def test_a_node_with_another_key_is_told_so(fast_clock, backend, nursery):
    events = []
    client = NodeClient(backend.url, node_id=NODE_ID, private_key=bytes(32).hex(), on_event=events.append)
    nursery.start_soon(client.run)
    await client.wait_until(lambda statistics: statistics.session_refusals >= 1)
    assert (events[0].refusal.status, events[0].refusal.code) == (401, "unauthorized")
    assert not await client.stop()


async def test_an_answer_that_is_no_session_is_a_refusal(fast_clock, backend, nursery):
    backend.session_reply = b'{"sessions": [], "server_ms": 1}'
    events = []
    client = client_of(backend.url, events)
    nursery.start_soon(client.run)
    await client.wait_until(lambda statistics: statistics.session_refusals >= 1)
    assert events == [SessionRefused(events[0].refusal, "sessions: not exactly one")]
    backend.session_reply = None
    await client.wait_until(credited(1))
    assert await client.stop(timeout_s=100)


async def test_a_stop_that_nobody_hears_ends_after_its_time(fast_clock, backend, nursery):
    client = client_of(backend.url)
    await nursery.start(client.run)
    await client.wait_until(credited(1))
    backend.answers_udp = False
    assert not await client.stop(timeout_s=0.5)
    assert not await client.stop()


async def test_a_client_runs_once(fast_clock, backend, nursery):
    client = client_of(backend.url)
    with pytest.raises(RuntimeError, match="not running"):
        await client.stop()
    await nursery.start(client.run)
    with pytest.raises(RuntimeError, match="once"):
        await client.run()
    await client.stop()


async def test_fifty_nodes_share_one_process(fast_clock, nursery):
    with Backend(interval_ms=PATIENT_MS) as backend:
        clients = [client_of(backend.url) for _ in range(50)]
        # They are one node to this backend: only the last session of all stays current for long.
        for client in clients:
            await nursery.start(client.run)
        for client in clients:
            await client.wait_until(lambda statistics: statistics.frames_sent > 0)
        nursery.cancel_scope.cancel()


def test_words_that_are_no_state_and_keys_that_are_none_are_refused():
    client = client_of("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="dead"):
        client.set_states({"a": "dead"})
    with pytest.raises(ValueError, match="32 bytes"):
        NodeClient("http://127.0.0.1:1", node_id=NODE_ID, private_key="00")
    with pytest.raises(ValueError, match="neither http nor https"):
        client_of("127.0.0.1:1")
