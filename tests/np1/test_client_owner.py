"""What the client tells its owner beside effects: what is in flight, the server's time, its session."""

from __future__ import annotations

import random

from np1.client import BeatClient
from np1.codec import State
from np1.effects import SendUdp
from tests.np1.world import FakeServer


def begun():
    """A client whose first beat has just left, the server, and that frame."""
    server = FakeServer(interval_ms=1_000)
    client = BeatClient(rng=random.Random(1), first_within_ms=0)
    assert client.server_ms(0) is None
    assert client.grant is None
    client.start(0, 5_000)
    client.on_session(server.open_session(5_000, 5_000), sent_ms=0, now_ms=0)
    client.set_states({name: State.HEALTHY for _, name in client.grant.slots})
    (sent, _) = client.wake(0, 5_000)
    assert isinstance(sent, SendUdp)
    return client, server, sent


def test_a_beat_is_in_flight_until_it_is_acknowledged():
    client, server, sent = begun()
    assert client.server_ms(40) == 5_040
    (flying,) = client.in_flight()
    assert (flying.at_ms, flying.generation) == (5_000, client.grant.generation)
    assert client.unacknowledged() == []
    client.on_datagram(server.take(sent.frame, 5_010, http=False, next_ms=1_000), 10)
    assert client.in_flight() == []


def test_a_beat_whose_time_is_over_is_in_flight_no_longer():
    client, _, _ = begun()
    (flying,) = client.in_flight()
    for now_ms in range(100, 1_400, 100):
        client.wake(now_ms, 5_000 + now_ms)
    assert client.unacknowledged() == [flying]
    assert flying not in client.in_flight()
    client.handed_in([flying])
    assert client.unacknowledged() == []
