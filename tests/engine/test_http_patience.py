"""How long a connection may take, and what it may hold open, judged on a clock that the test turns."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.http_connection import (
    ANSWER_S_MAX,
    LINGER_S_MAX,
    PIPELINE_MAX,
    REQUEST_S_MAX,
    Connection,
)
from engine.http_credentials import HalvesCache
from engine.http_requests import PlainRequests
from engine.http_routes import Routes
from tests.engine.http_world import NOW_MS, SECRETS, FakeDoor, capability, json_request, request

IDLE_S = 75.0
PING = request("GET", f"/ping/{capability()}")
BEAT = json_request(b'{"workloads": {"w-one": "healthy"}}')
BAD = b"nonsense\r\n\r\n"


class FakeHome:
    def __init__(self):
        self.answered = Counter()
        self.draining = False
        self.clock_s = 1_000.0

    def now_ms(self):
        return NOW_MS

    def time_s(self):
        return self.clock_s

    def accept(self, connection):
        return True

    def lost(self, connection):
        pass


class FakeTransport:
    def __init__(self):
        self.written = b""
        self.reading = True
        self.ended = ""

    def get_extra_info(self, name):
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high):
        pass

    def is_closing(self):
        return self.ended in ("closed", "aborted")

    def write(self, data):
        assert not self.ended
        self.written += data

    def write_eof(self):
        self.ended = "half"

    def close(self):
        self.ended = "closed"

    def abort(self):
        self.ended = "aborted"

    def pause_reading(self):
        assert self.reading
        self.reading = False

    def resume_reading(self):
        assert not self.reading
        self.reading = True


class Bench:
    """A connection without a socket."""

    def __init__(self):
        self.door = FakeDoor()
        self.door.hold = True
        self.home = FakeHome()
        routes = Routes(
            door=self.door,
            plain=PlainRequests(door=self.door, secrets=SECRETS),
            forwarder=None,
            busy_retry_ms=1_000,
        )
        self.connection = Connection(
            self.home, routes, body_max=65_536, idle_s_max=IDLE_S, allow_plaintext=False
        )
        self.transport = FakeTransport()
        self.connection.connection_made(self.transport)

    def read(self, data):
        assert self.transport.reading
        self.connection.data_received(data)

    def after(self, seconds):
        self.home.clock_s += seconds
        self.connection.sweep(self.home.clock_s)
        return self.transport.ended


@pytest.fixture
def bench():
    return Bench()


def test_an_idle_connection_is_closed_when_its_time_is_over_and_each_answer_starts_it_anew(bench):
    assert bench.after(IDLE_S - 1) == ""
    bench.read(PING)
    bench.door.release()
    assert bench.after(IDLE_S) == ""
    assert bench.after(1) == "closed"


def test_empty_lines_do_not_keep_a_connection_alive(bench):
    for _ in range(int(IDLE_S)):
        bench.read(b"\r\n")
        assert bench.after(1) == ""
    assert bench.after(1) == "closed"


def test_a_request_that_trickles_in_is_told_that_it_took_too_long(bench):
    bench.read(PING[:5])
    assert bench.after(REQUEST_S_MAX - 1) == ""
    bench.read(PING[5:9])
    assert bench.after(1) == ""
    assert bench.after(1) == "half"
    assert bench.transport.written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert bench.after(LINGER_S_MAX) == "half"
    assert bench.after(1) == "aborted"


def test_what_comes_after_a_refusal_is_thrown_away(bench):
    bench.read(BAD)
    written = bench.transport.written
    assert written.startswith(b"HTTP/1.1 400 ")
    bench.read(PING)
    bench.connection.eof_received()
    assert bench.transport.written == written
    assert bench.door.plain == []


def test_an_answer_that_the_door_never_gives_ends_the_connection(bench):
    bench.read(PING)
    assert bench.after(ANSWER_S_MAX) == ""
    assert bench.after(1) == "aborted"
    bench.door.release()
    assert bench.transport.written == b""


def test_a_client_that_does_not_read_is_not_read_and_in_the_end_cut(bench):
    bench.connection.pause_writing()
    assert not bench.transport.reading
    assert bench.after(ANSWER_S_MAX) == ""
    bench.connection.resume_writing()
    assert bench.transport.reading
    bench.connection.pause_writing()
    assert bench.after(ANSWER_S_MAX + 1) == "aborted"


def test_reading_goes_on_only_when_answers_are_taken_and_few_are_due(bench):
    bench.read(PING * PIPELINE_MAX)
    assert not bench.transport.reading
    bench.connection.pause_writing()
    bench.door.release()
    assert not bench.transport.reading
    bench.connection.resume_writing()
    assert bench.transport.reading


def test_a_refusal_waits_for_the_answers_due_before_it(bench):
    bench.read(PING + BEAT + BAD)
    assert bench.transport.written == b""
    bench.door.release(backwards=True)
    assert bench.transport.written.count(b"HTTP/1.1 200 OK") == 2
    assert bench.transport.written.index(b"HTTP/1.1 400 ") > bench.transport.written.rindex(b"200 OK")
    assert bench.transport.ended == "half"


def test_a_client_that_does_not_read_cannot_put_off_its_end(bench):
    assert bench.after(IDLE_S + 1) == "closed"
    assert bench.after(LINGER_S_MAX) == "closed"
    assert bench.after(1) == "aborted"


def test_an_answer_after_the_connection_is_gone_goes_nowhere(bench):
    bench.read(PING)
    bench.connection.connection_lost(None)
    bench.door.release()
    assert bench.transport.written == b""


def test_an_exception_of_ours_is_not_taken_for_bad_input(bench):
    def crash(beat, reply):
        raise ZeroDivisionError

    bench.door.submit_plain = crash
    with pytest.raises(ZeroDivisionError):
        bench.read(PING)
    assert bench.transport.written == b""


def test_the_cache_of_credentials_forgets_the_half_used_longest_ago():
    cache = HalvesCache(4)
    for key in (b"a", b"b", b"c", b"d"):
        cache.put(key, key.decode())
    assert len(cache) == 4
    assert cache.get(b"a") == "a"  # young again: it pushes c and d into the older half
    assert cache.get(b"b") is None
    cache.put(b"e", "e")
    assert [cache.get(key) for key in (b"e", b"a", b"c")] == ["e", "a", "c"]
    cache.forget(b"c")
    assert cache.get(b"c") is None
    for number in range(100):
        cache.put(b"%d" % number, "")
        assert len(cache) <= 4
