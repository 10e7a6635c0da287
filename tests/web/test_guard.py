"""Bodies over real sockets: late, slow, too long, cut off. Nothing may keep a connection that is done with.

The first test is the regression test of FACTS.md, "Leak and hang".
"""

from __future__ import annotations

import pytest
import trio

from tests.web.fakes import BASE_MS, PROJECT_KEY, World
from tests.web.serving import Served, is_closed, receive_reply, serving, until
from web.app import create_app
from web.server import Server
from web.settings import WebSettings

CONNECTIONS = 200


def request_head(path: str = "/v1/nothing", *, length: int, method: str = "POST", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{more}\r\n".encode()


async def late_body(served: Served, number: int, failures: list[str]) -> None:
    """Head now, body in a later segment, on a path that is refused without looking at it."""
    path, status = [
        ("/v1/nothing", 404),
        ("/v1/events", 405),
        ("/v1/projects/alpha/points", 401),
        ("/v1/sessions", 400),
    ][number % 4]
    stream = await served.connect()
    async with stream:
        await stream.send_all(request_head(path, length=10))
        await trio.sleep(0.3)
        await stream.send_all(b"x" * 10)
        reply = await receive_reply(stream)
        if reply.status != status:
            failures.append(f"{path}: {reply}")
        # The connection is whole: a second request works on it.
        await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        reply = await receive_reply(stream)
        if reply.status != 200 or not await is_closed(stream):
            failures.append(f"{path}, second request: {reply}")


async def test_bodies_that_come_after_an_early_answer_leak_no_connection() -> None:
    failures: list[str] = []
    async with serving() as served:
        async with trio.open_nursery() as clients:
            for number in range(CONNECTIONS):
                clients.start_soon(late_body, served, number, failures)
        assert failures == []
        await none_open(served)
        assert served.figure("accepted_total") == CONNECTIONS
        assert served.world.app.backend.statistics()["web_bodies"]()["bodies_bytes"] == 0


async def none_open(served: Served) -> None:
    await until(lambda: served.figure("open") == 0)


async def test_without_the_guard_the_fault_is_there() -> None:
    """The regression test would be worth nothing if the libraries had cured the fault themselves."""
    from quart_trio import QuartTrio

    settings = WebSettings(graceful_s=0.1)
    server = Server(QuartTrio("bare"), settings=settings)
    stop, listening = trio.Event(), trio.Event()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def nothing() -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await server.serve(listeners, stop=stop, listening=listening.set, before_close=nothing)

        nursery.start_soon(run)
        await listening.wait()
        hung = 0
        for _ in range(5):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(request_head(length=10))
                await receive_reply(stream)
                await stream.send_all(b"x" * 10)
                hung += not await is_closed(stream, timeout_s=0.3)
        assert hung == 5 or server.statistics()["open"] > 0
        stop.set()


async def test_an_announced_body_that_is_too_long_is_refused_and_the_connection_closed() -> None:
    async with serving() as served, await served.connect() as stream:
        await stream.send_all(request_head("/v1/sessions", length=10_000_000))
        reply = await receive_reply(stream)
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert reply.headers["content-type"] == "application/problem+json"
        assert await is_closed(stream)
        await none_open(served)


async def test_an_unannounced_body_that_grows_too_long_is_refused() -> None:
    async with serving() as served, await served.connect() as stream:
        await stream.send_all(b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(5):
            await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await stream.send_all(b"0\r\n\r\n")
        assert (await receive_reply(stream)).status == 413
        assert await is_closed(stream)
        await none_open(served)


async def test_a_body_that_does_not_come_in_time_is_refused() -> None:
    async with serving(WebSettings(body_s_max=0.2, drain_s=0.0)) as served, await served.connect() as stream:
        await stream.send_all(request_head(length=10) + b"half")
        reply = await receive_reply(stream)
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert await is_closed(stream)
        await none_open(served)


async def test_a_client_that_goes_away_in_the_middle_of_its_body_leaves_nothing() -> None:
    async with serving() as served:
        for _ in range(20):
            async with await served.connect() as stream:
                await stream.send_all(request_head(length=10) + b"half")
        await none_open(served)
        assert served.world.app.backend.statistics()["web_bodies"]()["bodies_bytes"] == 0


async def test_bodies_are_bounded_in_their_sum() -> None:
    settings = WebSettings(bodies_bytes_max=100_000, drain_s=0.0)
    async with serving(settings) as served, await served.connect() as first:
        path = "/v1/beats/backfill"
        await first.send_all(request_head(path, length=90_001) + b"x" * 90_000)
        await trio.sleep(0.2)
        async with await served.connect() as second:
            await second.send_all(request_head(path, length=50_000) + b"x" * 50_000)
            reply = await receive_reply(second)
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        await first.send_all(b"x")
        assert (await receive_reply(first)).status == 400


async def test_long_bodies_of_whoever_may_not_commit_are_not_read(jumping: None) -> None:
    async with serving() as served, await served.connect() as stream:
        path = "/v1/projects/alpha/points"
        await stream.send_all(request_head(path, length=200_000) + b"x" * 100_000)
        reply = await receive_reply(stream)
        assert (reply.status, reply.headers["connection"]) == (401, "close")


async def test_spooled_bodies_are_bounded_in_size_sum_and_time(jumping: None) -> None:
    settings = WebSettings(spool_bytes_max=300_000, spools_bytes_max=400_000, spool_s_max=5.0, drain_s=0.0)
    path, key = "/v1/projects/alpha/points", f"authorization: Bearer {PROJECT_KEY}\r\n"
    async with serving(settings) as served, await served.connect() as first:
        await first.send_all(request_head(path, length=200_001, more=key) + b"x" * 200_000)
        await trio.sleep(0.2)
        assert served.world.app.backend.statistics()["web_bodies"]()["spooled_bytes"] == 200_000
        for length, status in ((300_001, 413), (250_000, 503)):
            async with await served.connect() as second:
                await second.send_all(request_head(path, length=length, more=key) + b"x" * length)
                assert (await receive_reply(second)).status == status
        assert (await receive_reply(first)).status == 408
        await none_open(served)
        assert served.world.app.backend.statistics()["web_bodies"]()["spooled_bytes"] == 0


async def test_a_websocket_is_refused() -> None:
    async with serving() as served, await served.connect() as stream:
        await stream.send_all(
            b"GET /v1/events/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await receive_reply(stream)).status == 403


async def test_the_app_refuses_to_be_made_over_nothing() -> None:
    """Each call makes an app of its own: two may be served in one process."""
    first, second = World(), World()
    assert first.app is not second.app
    assert first.app.requests.registry is not second.app.requests.registry
    assert first.now_ms() >= BASE_MS
    with pytest.raises(TypeError):
        create_app()  # type: ignore[call-arg]
