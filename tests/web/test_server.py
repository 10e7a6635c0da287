"""The server over real sockets: its cap, slow readers, streams, and an end in order."""

from __future__ import annotations

import socket
from random import Random

import msgspec
import pytest
import trio

from tests.web.fakes import PROJECT_KEY
from tests.web.serving import Served, is_closed, receive_reply, serving, until
from web.settings import WebSettings

LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
STREAM = f"GET /v1/events/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROJECT_KEY}\r\n\r\n".encode()


async def read_until(stream: trio.SocketStream, wanted: bytes) -> bytes:
    raw = b""
    with trio.fail_after(5):
        while wanted not in raw:
            chunk = await stream.receive_some()
            assert chunk, raw
            raw += chunk
    return raw


async def test_connections_beyond_the_cap_are_told_and_closed_and_room_is_made() -> None:
    async with serving(WebSettings(connections_max=2, drain_s=0.0)) as served:
        first, second = await served.connect(), await served.connect()
        for stream in (first, second):
            await stream.send_all(LIVEZ)
            assert (await receive_reply(stream)).status == 200
        async with await served.connect() as third:
            assert (await receive_reply(third)).status == 503
            assert await is_closed(third)
        assert served.figure("turned_away_total") == 1
        await first.aclose()
        await until(lambda: served.figure("open") == 1)
        async with await served.connect() as fourth:
            await fourth.send_all(LIVEZ)
            assert (await receive_reply(fourth)).status == 200
        await second.aclose()


async def test_connections_that_the_client_closed_are_let_go_at_once() -> None:
    """Hypercorn by itself holds each of them until its idle timer ends."""
    async with serving() as served:
        for _ in range(20):
            async with await served.connect() as stream:
                await stream.send_all(LIVEZ)
                await receive_reply(stream)
        await until(lambda: served.figure("open") == 0)


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with (
        serving(WebSettings(keep_alive_s=0.2, drain_s=0.0)) as served,
        await served.connect() as stream,
    ):
        assert await is_closed(stream, timeout_s=2)


async def test_a_header_that_never_ends_is_cut_off() -> None:
    async with (
        serving(WebSettings(keep_alive_s=0.3, drain_s=0.0)) as served,
        await served.connect() as stream,
    ):
        await stream.send_all(b"GET /livez HTTP/1.1\r\n")
        closed = trio.Event()

        async def watch() -> None:
            if await is_closed(stream, timeout_s=3):
                closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for number in range(20):
                if closed.is_set():
                    break
                try:
                    await stream.send_all(b"x-%d: y\r\n" % number)
                except trio.BrokenResourceError:
                    break
                await trio.sleep(0.1)
            with trio.fail_after(3):
                await closed.wait()


async def test_a_stream_over_the_wire_resumes_and_is_not_cut_while_it_is_quiet() -> None:
    async with serving(WebSettings(keep_alive_s=0.2, body_s_max=0.2, drain_s=0.0)) as served:
        served.world.happen("node.down")
        async with await served.connect() as stream:
            await stream.send_all(STREAM)
            raw = await read_until(stream, b"id: 1\n")
            assert b"content-type: text/event-stream" in raw.lower()
            await trio.sleep(0.6)
            served.world.happen("node.up")
            served.world.live.announced.set()
            raw = await read_until(stream, b"id: 2\n")
            data = raw.split(b"data: ")[1].split(b"\n")[0]
            assert msgspec.json.decode(data)["kind"] == "node.up"


async def test_a_client_that_goes_away_from_a_stream_is_noticed() -> None:
    async with serving() as served:
        async with await served.connect() as stream:
            await stream.send_all(STREAM)
            await read_until(stream, b"retry:")
            assert served.world.app.backend.tails.statistics()["open"] == 1
        tails = served.world.app.backend.tails
        await until(lambda: tails.statistics()["open"] == 0 and served.figure("open") == 0)


async def fill(served: Served, stream: trio.SocketStream) -> None:
    """Ask for a stream, read none of it, and let so much happen that the kernel's buffers are full."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    for _ in range(8_000):
        served.world.happen("node.up")
    await stream.send_all(STREAM)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving(WebSettings(send_s_max=0.3, drain_s=0.0)) as served, await served.connect() as stream:
        await fill(served, stream)
        await until(lambda: served.world.app.backend.tails.statistics()["open"] == 1)
        await until(lambda: served.figure("open") == 0)


async def test_the_end_does_not_wait_for_a_client_that_does_not_read() -> None:
    settings = WebSettings(send_s_max=60, graceful_s=0.3, drain_s=0.0)
    async with serving(settings) as served, await served.connect() as stream:
        await fill(served, stream)
        await trio.sleep(0.5)
        served.stop.set()
        with trio.fail_after(3):
            await served.ended.wait()


async def test_the_end_comes_in_order() -> None:
    """Not ready first but serving; then streams end, idle connections close, and work is finished."""
    async with serving(WebSettings(drain_s=0.5, graceful_s=5)) as served:
        stream, idle, busy, probe = [await served.connect() for _ in range(4)]
        await stream.send_all(STREAM)
        await read_until(stream, b"retry:")
        await idle.send_all(LIVEZ)
        await receive_reply(idle)
        began = trio.current_time()
        served.stop.set()
        await trio.sleep(0.2)
        await probe.send_all(b"GET /readyz?verbose HTTP/1.1\r\nhost: x\r\n\r\n")
        reply = await receive_reply(probe)
        assert (reply.status, b"[-]serving ending" in reply.body) == (503, True)
        await idle.send_all(LIVEZ)
        assert (await receive_reply(idle)).status == 200, "still serving"
        # Its shard is far behind, so this read is in work when the listener closes.
        served.world.live.lag_ms = 10_000
        path = f"/v1/workloads/{served.world.workload.workload_id}"
        await busy.send_all(
            f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROJECT_KEY}\r\n\r\n".encode()
        )
        assert await is_closed(stream, timeout_s=2)
        assert await is_closed(idle, timeout_s=2)
        assert trio.current_time() - began >= 0.5
        assert (await receive_reply(busy)).status == 200
        with trio.fail_after(2):
            await served.ended.wait()
        for each in (stream, idle, busy, probe):
            await each.aclose()


async def test_the_address_told_is_the_one_that_serves() -> None:
    async with serving() as served:
        assert served.url == f"http://127.0.0.1:{served.port}"
        async with await served.connect() as stream:
            await stream.send_all(LIVEZ)
            reply = await receive_reply(stream)
            assert (reply.status, reply.body) == (200, b"ok\n")
            assert "server" not in reply.headers


def rude_bytes(random: Random) -> bytes:
    """Something that begins like HTTP, of one version or another, and goes on like nothing."""
    noise = random.randbytes(random.randrange(1, 400))
    return random.choice(
        [
            noise,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000") + noise,
            b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
            b"http2-settings: " + noise.hex().encode() + b"\r\n\r\n" + noise,
            b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + noise,
            b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"
            + noise,
            b"GET /" + noise.replace(b"\n", b"") + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET /v1/nodes?after=%ff%00%zz HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\xfe\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\nhost: [\r\n\r\n",
            b"HEAD /v1/events HTTP/1.0\r\n\r\n" + noise,
        ]
    )


async def test_no_bytes_from_outside_end_the_server_or_keep_a_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    random = Random(7)
    async with serving(WebSettings(keep_alive_s=0.5, body_s_max=0.5, drain_s=0.0)) as served:

        async def rude(raw: bytes) -> None:
            async with await served.connect() as stream:
                try:
                    await stream.send_all(raw)
                except trio.BrokenResourceError:
                    return
                assert await is_closed(stream, timeout_s=10), raw

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(rude, rude_bytes(random))
        await until(lambda: served.figure("open") == 0)
        async with await served.connect() as stream:
            await stream.send_all(LIVEZ)
            assert (await receive_reply(stream)).status == 200
        assert served.figure("crashed_total") == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_cleartext_http2_is_not_spoken() -> None:
    """Hypercorn would: without an idle timer, and with a header that ends the whole server."""
    async with serving() as served:
        for _ in range(20):  # what follows the first line raced with the answer, and won half the time
            async with await served.connect() as stream:
                await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                assert (await receive_reply(stream)).status == 400
                assert await is_closed(stream)
        async with await served.connect() as stream:
            await stream.send_all(
                b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
                b"http2-settings: abc\r\n\r\n"
            )
            assert (await receive_reply(stream)).status == 200


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 200),
        (b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n", 400),  # refused, and its answer says close
    ],
)
async def test_what_follows_a_last_request_does_not_cost_it_its_answer(asked: bytes, status: int) -> None:
    async with serving() as served:
        for _ in range(20):
            async with await served.connect() as stream:
                await stream.send_all(asked + LIVEZ)
                assert (await receive_reply(stream)).status == status
                assert await is_closed(stream)
        await until(lambda: served.figure("open") == 0)
        assert served.figure("crashed_total") == 0


async def test_the_absolute_form_of_a_target_is_taken() -> None:
    async with serving() as served, await served.connect() as stream:
        await stream.send_all(b"GET http://x/livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await receive_reply(stream)).status == 200
