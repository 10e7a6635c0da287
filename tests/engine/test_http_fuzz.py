"""Every byte sequence is survived: no exception leaves a connection, nothing is taken that was not said."""

from __future__ import annotations

import random

import pytest

from tests.engine.http_world import capability, frame, frames_request, json_request, request
from tests.engine.test_http_patience import Bench

GOOD = [
    request("GET", f"/ping/{capability()}/fail"),
    request("POST", f"/api/push/{capability()}?status=down", b"x" * 50),
    json_request(b'{"workloads": {"w-one": "healthy", "w-last": "updating"}, "stopping": false}'),
    frames_request(frame(1) * 3),
    request("GET", f"/ping/{capability()}", headers=[("Connection", "Upgrade"), ("Upgrade", "h2c")]),
    json_request(b"{}").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
    b"POST /v1/beats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: b\r\n\r\n",
]
SPICE = [b"\r\n", b"\r\n\r\n", b"\x00", b"\xff", b":", b" ", b"0", b"Content-Length: 9\r\n", b"HTTP/1.1"]


def mutated(rng):
    data = bytearray(b"".join(rng.choices(GOOD, k=rng.randint(1, 4))))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 30)]
            case 2:
                data[at:at] = rng.choice(SPICE)
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 20))
            case 4:
                end = at + rng.randint(1, 60)
                data[at:at] = data[at:end]
        data = data or bytearray(b"\n")
    return bytes(data)


def pour(rng, bench, data):
    """Feed in random pieces as a socket would, answering now and then."""
    at = 0
    while at < len(data):
        if not bench.transport.reading:
            bench.door.release()
            assert bench.transport.reading
        size = rng.choice([1, 3, 17, 200, len(data)])
        bench.read(data[at : at + size])
        at += size
        if rng.random() < 0.3:
            bench.door.release(backwards=rng.random() < 0.5)
        if bench.transport.is_closing():
            return
    bench.door.release()
    if not bench.transport.is_closing():
        bench.connection.eof_received()
        bench.connection.connection_lost(None)


@pytest.mark.parametrize("seed", range(10))
def test_mutated_requests_never_raise_and_every_answer_is_an_answer(seed):
    rng = random.Random(seed)
    for _ in range(200):
        bench = Bench()
        pour(rng, bench, mutated(rng))
        written = bench.transport.written
        assert written == b"" or written.startswith(b"HTTP/1.1 ")
        assert all(status >= 200 for _, status in bench.home.answered)
        assert all(status != 500 for _, status in bench.home.answered)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_never_raise_and_say_nothing_to_the_door(seed):
    rng = random.Random(seed)
    for _ in range(300):
        bench = Bench()
        pour(rng, bench, rng.randbytes(rng.randint(1, 2_000)))
        assert bench.door.plain == bench.door.frames == []


@pytest.mark.parametrize("seed", range(10))
def test_good_requests_mean_the_same_however_they_are_cut(seed):
    rng = random.Random(seed)
    stream = rng.choices(GOOD, k=40)
    whole, cut = Bench(), Bench()
    for sent in stream:
        whole.read(sent)
        whole.door.release()
    pour(rng, cut, b"".join(stream))
    assert cut.door.plain == whole.door.plain
    assert cut.door.frames == whole.door.frames
    assert cut.transport.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") == whole.transport.written
