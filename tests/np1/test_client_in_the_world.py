"""The client on a bad network, from seeds: what must hold always, and how much uptime survives what."""

from __future__ import annotations

import random

import pytest

from np1.codec import FLAG_STOPPING, Code
from np1.effects import Path
from tests.np1.rig import SERVER_MS
from tests.np1.world import FakeServer, World

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def between(low_ms, high_ms, what):
    """A fault of the server between two moments of the world."""
    return lambda t_ms: what if low_ms <= t_ms - SERVER_MS < high_ms else ""


def test_a_quiet_network_costs_one_frame_per_beat():
    world = World(1)
    world.run(6 * HOUR_MS)
    world.check()
    statistics = world.client.statistics()
    assert statistics.frames_sent == statistics.beats_begun
    assert statistics.codes == {Code.OK: statistics.frames_sent}
    assert world.covered(SERVER_MS + MINUTE_MS + 1_000, SERVER_MS + 6 * HOUR_MS) == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_a_tenth_of_all_datagrams_lost_costs_next_to_no_uptime(seed):
    world = World(seed, loss=0.1, duplicate=0.1, delay_ms_max=400)
    world.run(6 * HOUR_MS)
    world.check()
    # All three tries of a beat are lost once in a thousand, which costs at most half an interval.
    assert world.covered(SERVER_MS + MINUTE_MS + 1_000, SERVER_MS + 6 * HOUR_MS) > 0.995
    assert world.client.statistics().path is Path.UDP


@pytest.mark.parametrize("seed", range(8))
def test_half_of_all_datagrams_lost_costs_little_uptime(seed):
    world = World(seed, loss=0.5, duplicate=0.2, delay_ms_max=2_500)
    world.run(6 * HOUR_MS)
    world.check()
    assert world.covered(SERVER_MS + MINUTE_MS + 1_000, SERVER_MS + 6 * HOUR_MS) > 0.97


@pytest.mark.parametrize("seed", range(4))
def test_where_udp_is_blocked_http_carries_the_beats(seed):
    world = World(seed, udp_open=lambda t_ms: False)
    world.run(6 * HOUR_MS)
    world.check()
    assert set(world.credited.values()) == {Path.HTTP}
    assert world.covered(SERVER_MS + 6 * MINUTE_MS, SERVER_MS + 6 * HOUR_MS) == 1.0
    assert world.client.statistics().unacknowledged <= 3


def test_when_udp_opens_again_the_client_returns_to_it_within_about_an_hour():
    world = World(3, udp_open=lambda t_ms: t_ms > HOUR_MS)
    world.run(3 * HOUR_MS)
    world.check()
    assert world.client.statistics().path is Path.UDP
    assert world.covered(SERVER_MS + 6 * MINUTE_MS, SERVER_MS + 3 * HOUR_MS) == 1.0


def test_a_server_that_is_away_for_hours_is_found_again_and_the_beats_are_kept():
    server = FakeServer(fault=between(HOUR_MS, 3 * HOUR_MS, "away"))
    world = World(4, server=server)
    world.run(5 * HOUR_MS)
    world.check()
    kept = world.client.unacknowledged()
    assert 115 <= len(kept) <= 125  # one a minute for two hours
    assert all(HOUR_MS - MINUTE_MS <= beat.at_ms - SERVER_MS <= 3 * HOUR_MS + MINUTE_MS for beat in kept)
    assert world.covered(SERVER_MS + 3 * HOUR_MS + 2 * MINUTE_MS, SERVER_MS + 5 * HOUR_MS) == 1.0


def test_a_busy_server_is_asked_again_and_nothing_is_lost():
    server = FakeServer(fault=between(HOUR_MS, HOUR_MS + 10 * MINUTE_MS, "busy"))
    world = World(5, server=server)
    world.run(2 * HOUR_MS)
    world.check()
    assert world.client.statistics().codes[Code.BUSY] > 500
    assert 8 <= len(world.client.unacknowledged()) <= 11
    assert world.covered(SERVER_MS + HOUR_MS + 10 * MINUTE_MS + 2_000, SERVER_MS + 2 * HOUR_MS) == 1.0


def test_a_row_that_moves_is_followed_without_a_gap():
    server = FakeServer()
    server.fault = lambda t_ms: "moved" if server.current == 1 and t_ms - SERVER_MS > HOUR_MS else ""
    world = World(6, server=server)
    world.run(2 * HOUR_MS)
    world.check()
    assert server.sessions == 2
    assert world.covered(SERVER_MS + MINUTE_MS + 1_000, SERVER_MS + 2 * HOUR_MS) == 1.0


def test_sessions_are_renewed_in_time_for_days():
    server = FakeServer(life_ms=2 * HOUR_MS)
    world = World(7, server=server, loss=0.05)
    world.run(24 * HOUR_MS)
    world.check()
    assert 12 <= server.sessions <= 15
    assert world.covered(SERVER_MS + MINUTE_MS + 1_000, SERVER_MS + 24 * HOUR_MS) == 1.0


@pytest.mark.parametrize("step_ms", [-HOUR_MS, -100_000, -80_000, 80_000, 100_000, HOUR_MS])
def test_a_step_of_the_servers_clock_is_followed(step_ms):
    world = World(8)
    world.run(HOUR_MS)
    world.server.step_ms = step_ms
    world.run(5 * MINUTE_MS)
    before = len(world.credited)
    world.run(HOUR_MS)
    world.check()
    assert len(world.credited) - before >= 60
    beat = world.sent[-1][2]
    assert abs((beat.seq >> 16) - (SERVER_MS + step_ms + world.sent[-1][0])) < 90_000


def test_a_client_whose_own_clock_slept_is_corrected_by_its_first_beat():
    world = World(9)
    world.run(HOUR_MS)
    world.server.step_ms = 8 * HOUR_MS  # the monotonic clock stood still while the machine slept
    world.run(2 * MINUTE_MS)
    world.check()
    assert world.client.statistics().codes[Code.CLOCK] == 1
    assert world.clocked


def test_a_clone_that_beats_ahead_ends_in_a_new_session():
    world = World(10)
    for _ in range(10):
        world.run(MINUTE_MS)
        if world.now_ms > 5 * MINUTE_MS:  # another machine has the same key and session
            world.server.last_seq[1] = world.server_ms + 85_000 << 16
    world.check()
    assert world.server.sessions == 2
    assert world.client.statistics().codes[Code.STALE] == 3


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_the_rules_hold(seed):
    """Everything at once, drawn from the seed: loss, faults, blocked UDP, clock steps, a stop at the end."""
    rng = random.Random(1_000 + seed)
    faults = [(rng.randrange(6 * HOUR_MS), rng.randrange(HOUR_MS), rng.choice(["busy", "away", "moved"]))
              for _ in range(6)]  # fmt: skip

    def fault(t_ms):
        at_ms = t_ms - SERVER_MS
        return next((what for start, length, what in faults if start <= at_ms < start + length), "")

    blocked_ms = rng.randrange(3 * HOUR_MS)
    server = FakeServer(interval_ms=rng.choice([1_000, 10_000, 60_000]), life_ms=3 * HOUR_MS, fault=fault)
    world = World(
        seed,
        server=server,
        loss=rng.choice([0.0, 0.1, 0.4]),
        duplicate=0.1,
        delay_ms_max=rng.choice([20, 500, 3_000]),
        udp_open=lambda t_ms: not blocked_ms <= t_ms < blocked_ms + HOUR_MS,
        quiet=rng.random() < 0.5,
    )
    hours = {1_000: 1, 10_000: 4, 60_000: 9}[server.interval_ms]
    for _ in range(6):
        world.run(hours * HOUR_MS // 6)
        world.check()
        if rng.random() < 0.2:
            server.step_ms += rng.choice([-95_000, -5_000, 5_000, 95_000])
    world.carry_out(world.client.stop(world.now_ms))
    world.run(10 * MINUTE_MS)
    sent = len(world.sent)
    assert world.sent[-1][2].flags & FLAG_STOPPING
    world.run(HOUR_MS)
    assert len(world.sent) == sent, "a stopped client sent something"


def test_the_same_seed_is_the_same_world():
    def trace(seed):
        world = World(seed, loss=0.3, duplicate=0.1, delay_ms_max=900)
        world.run(2 * HOUR_MS)
        return world.sent

    assert trace(11) == trace(11)
    assert trace(11) != trace(12)
