"""The manager's own HTTP server on real sockets: who may ask what, and what bad requests do."""

from __future__ import annotations

import socket

import pytest
import trio

from node.manager import local_http
from node.manager.local_http import LocalRefusalError, LocalServer
from tests.e2e.machine import free_port


class Asked:
    def __init__(self):
        self.requests = []

    async def __call__(self, request):
        self.requests.append(request)
        if request.path == "/refused":
            raise LocalRefusalError(409, "no")
        return {"path": request.path, "text": "\ud800é"}


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
async def server(tmp_path, asked, nursery):
    made = LocalServer(asked, host="127.0.0.1", port=free_port(), socket_path=tmp_path / "m.sock")
    made.tcp = ("127.0.0.1", made._port)
    made.unix = tmp_path / "m.sock"
    await nursery.start(made.run)
    return made


async def say(where, data, *, end=True):
    """Everything that comes back."""
    if isinstance(where, tuple):
        stream = await trio.open_tcp_stream(*where)
    else:
        stream = await trio.open_unix_socket(str(where))
    async with stream:
        if data:
            await stream.send_all(data)
        if end:
            await stream.send_eof()
        whole = b""
        while more := await stream.receive_some(4_096):
            whole += more
        return whole


def post(path, body=b"", *headers):
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


async def test_a_request_is_answered_and_known_to_be_private_or_not(server, asked):
    for where, private in ((server.tcp, False), (server.unix, True)):
        answer = await say(where, post("/health/a?x=1", b"{}"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert asked.requests[-1] == ("POST", "/health/a", b"{}", private)
    assert server.unix.stat().st_mode & 0o777 == 0o600
    assert (await say(server.tcp, post("/refused"))).startswith(b"HTTP/1.1 409 Conflict\r\n")


async def test_an_answer_may_take_longer_than_asking_for_it(tmp_path, nursery, monkeypatch):
    """A restart waits for the workload's end: cut off halfway, nobody would begin it again."""
    monkeypatch.setattr(local_http, "REQUEST_S", 0.2)

    async def slow(request):
        await trio.sleep(0.5)
        return {"restarted": True}

    made = LocalServer(slow, host="127.0.0.1", port=0, socket_path=tmp_path / "m.sock")
    await nursery.start(made.run)
    assert b"restarted" in await say(tmp_path / "m.sock", post("/workloads/a/restart"))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2_000 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (post("/health/a", b"{}", "Origin: https://evil.example"), 403),
    ],
)
async def test_a_bad_request_is_refused_and_reaches_nobody(server, asked, data, status):
    answer = await say(server.tcp, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert asked.requests == []


async def test_who_says_nothing_is_let_go_and_who_comes_when_it_is_full_is_closed_on(
    server, asked, monkeypatch
):
    monkeypatch.setattr(local_http, "REQUEST_S", 0.2)
    monkeypatch.setattr(local_http, "CONNECTIONS_MAX", 1)
    answers = []

    async def hold():
        answers.append(await say(server.tcp, b"GET", end=False))

    async with trio.open_nursery() as inner:
        inner.start_soon(hold)
        while not server._connections:  # noqa: ASYNC110 - the server tells nobody
            await trio.sleep(0.005)
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            assert await say(server.tcp, post("/health/a"))
    assert answers == [b""]
    assert server.refused_connections == 1
    assert (await say(server.tcp, post("/health/a"))).startswith(b"HTTP/1.1 200")


async def test_the_socket_of_a_killed_manager_is_in_nobodys_way(tmp_path, asked, nursery):
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    await nursery.start(LocalServer(asked, host="127.0.0.1", port=0, socket_path=path).run)
    assert (await say(path, post("/x"))).startswith(b"HTTP/1.1 200")
