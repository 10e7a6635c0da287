"""HTTP itself: order, bounds, patience, and an orderly end. What beats mean: test_http_listener.py."""

from __future__ import annotations

import asyncio
import socket

import pytest

import engine.ingest_http
from engine.http_connection import PIPELINE_MAX
from engine.http_reader import HEAD_BYTES_MAX
from engine.ingest_http import serve_http
from engine.settings import IngestSettings
from tests.engine.http_world import (
    SECRETS,
    Client,
    FakeDoor,
    capability,
    frame,
    frames_request,
    json_request,
    on_loop,
    request,
    serving,
    until,
)

PING = request("GET", f"/ping/{capability()}")
FAIL = request("GET", f"/ping/{capability()}/fail")
LOG = request("GET", f"/ping/{capability()}/log")
BEAT = json_request(b'{"workloads": {"w-one": "healthy"}}')


@on_loop
async def test_pipelined_requests_are_answered_in_their_order_however_they_are_decided():
    async with serving() as world:
        world.door.hold = True
        client = await world.client()
        client.writer.write(PING + BEAT + LOG + frames_request(frame(1)) + request("GET", "/nowhere") + PING)
        await until(lambda: len(world.door.plain) == 3)
        world.door.release(backwards=True)
        answers = [await client.response() for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 200]
    kinds = [answer.headers["content-type"].split(";")[0] for answer in answers]
    assert kinds == [
        "text/plain",
        "application/json",
        "text/plain",
        "application/octet-stream",
        "application/problem+json",
        "text/plain",
    ]


@on_loop
async def test_a_connection_with_too_many_unanswered_requests_is_not_read_until_they_are_answered():
    async with serving() as world:
        world.door.hold = True
        client = await world.client()
        for _ in range(PIPELINE_MAX):
            client.writer.write(PING)
            await client.writer.drain()
        await until(lambda: len(world.door.plain) == PIPELINE_MAX)
        client.writer.write(FAIL)
        await client.writer.drain()
        other = await world.client()
        for _ in range(3):
            assert (await other.ask(LOG)).status == 200
        assert len(world.door.plain) == PIPELINE_MAX
        world.door.hold = False
        world.door.release()
        for _ in range(PIPELINE_MAX + 1):
            assert (await client.response()).status == 200
        assert len(world.door.plain) == PIPELINE_MAX + 1
        assert (await client.ask(PING)).status == 200


@on_loop
async def test_a_head_that_repeats_may_carry_another_body_and_another_head_its_own_meaning():
    async with serving() as world:
        client = await world.client()
        for body in (b'{"workloads":{"w-one":"updating"}}', b'{"workloads":{"w-one":"no-state"}}') * 2:
            await client.ask(json_request(body))
        await client.ask(json_request(b'{"workloads":{"w-one":"healthy"}}'))
        await client.ask(PING)
        await client.ask(FAIL)
    said = [(beat.plane0, beat.plane1) for beat in world.door.plain]
    assert said == [(2, 2), (2, 2), (2, 0), (1, 0), (0, 1)]
    assert world.listener.statistics().requests["json", 400] == 2


@pytest.mark.parametrize("pieces", [1, 2, 7])
@on_loop
async def test_a_request_may_come_in_any_pieces(pieces):
    async with serving() as world:
        client = await world.client()
        for _ in range(3):
            for at in range(0, len(BEAT), -(-len(BEAT) // pieces)):
                client.writer.write(BEAT[at : at - (-len(BEAT) // pieces)])
                await asyncio.sleep(0)
            assert (await client.response()).status == 200
    assert [beat.plane0 for beat in world.door.plain] == [2, 2, 2]


def chunked(body, size, *, trailer=""):
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x;note=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = BEAT.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + coded + b"0\r\n" + trailer.encode() + b"\r\n"


@pytest.mark.parametrize("size", [1, 5, 1000])
@on_loop
async def test_a_chunked_body_is_a_body(size):
    body = b'{"workloads": {"w-one": "healthy", "w-last": "unhealthy"}}'
    async with serving() as world:
        client = await world.client()
        for _ in range(2):
            assert (await client.ask(chunked(body, size))).status == 200
    assert [(beat.plane0, beat.plane1) for beat in world.door.plain] == [(2, 1 << 63)] * 2


@on_loop
async def test_a_trailer_changes_nothing_about_a_request():
    async with serving() as world:
        trailer = "Authorization: Bearer x\r\nContent-Type: text/plain\r\n"
        assert (await world.ask(chunked(b'{"workloads": {}}', 9, trailer=trailer))).status == 200


@on_loop
async def test_100_continue_is_said_when_the_client_waits_for_it_and_in_its_turn():
    head, body = BEAT.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n").split(b"\r\n\r\n")
    async with serving() as world:
        world.door.hold = True
        client = await world.client()
        client.writer.write(PING + head + b"\r\n\r\n")
        await until(lambda: len(world.door.plain) == 1)
        world.door.hold = False
        world.door.release()
        assert (await client.response()).body == b"OK"
        assert (await client.response()).status == 100
        assert (await client.ask(body)).status == 200
        assert (await client.ask(head + b"\r\n\r\n" + body)).status == 200


@on_loop
async def test_another_expectation_is_a_417():
    head = BEAT.replace(b"\r\n\r\n", b"\r\nExpect: miracles\r\n\r\n").partition(b"\r\n\r\n")[0]
    async with serving() as world:
        assert (await world.ask(head + b"\r\n\r\n")).status == 417


@on_loop
async def test_connection_close_and_http_1_0_close_after_the_answer():
    async with serving() as world:
        for sent in (
            PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            PING.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ):
            client = await world.client()
            response = await client.ask(sent)
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert await client.closed()


@on_loop
async def test_a_client_that_has_said_all_and_half_closed_gets_its_answers():
    async with serving() as world:
        world.door.hold = True
        client = await world.client()
        client.writer.write(PING + BEAT)
        client.writer.write_eof()
        await until(lambda: len(world.door.plain) == 2)
        await world.ask(LOG)  # the end of the stream has been seen by now
        world.door.release()
        assert (await client.response()).body == b"OK"
        assert (await client.response()).status == 200
        assert await client.closed()


@pytest.mark.parametrize("body", [b"", b'{"workloads": {"w-one": "healthy"}}'])
@on_loop
async def test_an_upgrade_that_is_asked_for_is_not_made_and_the_request_answered(body):
    headers = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n"
    sent = (json_request(body) if body else PING).replace(b"\r\n\r\n", headers, 1)
    async with serving() as world:
        client = await world.client()
        for _ in range(2):
            for part in (sent[:-7], sent[-7:]):
                client.writer.write(part)
                await asyncio.sleep(0.001)
            assert (await client.response()).status == 200
            assert (await client.ask(sent + FAIL)).status == 200
            assert (await client.response()).status == 200
    assert len(world.door.plain) == 6


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"GET /ping\xff HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/beats HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/beats HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"POST /v1/beats HTTP/1.1\r\nContent-Length: " + b"0" * 9_000 + b"\r\n\r\n",
        b"POST /v1/beats HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/beats HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/beats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
@on_loop
async def test_what_is_not_http_is_a_400_and_the_end_after_the_answers_due_before_it(sent):
    async with serving() as world:
        client = await world.client()
        client.writer.write(PING + sent)
        assert (await client.response()).status == 200
        response = await client.response()
        assert (response.status, response.headers["connection"]) == (400, "close")
        assert await client.closed()
        assert (await world.ask(PING)).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * HEAD_BYTES_MAX + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"a" * 200_000,
        chunked(b"{}", 1)[:-2] + b"A: b\r\n" * HEAD_BYTES_MAX + b"\r\n",
        chunked(b"{}", 1)[:-2] + b"A: " + b"b" * 200_000,
    ],
)
@on_loop
async def test_a_head_or_trailer_beyond_its_bound_is_a_431_and_the_end(sent):
    async with serving() as world:
        client = await world.client()
        response = await client.ask(sent)
        assert (response.status, response.headers["connection"]) == (431, "close")
    assert world.door.plain == []


@pytest.mark.parametrize("size", [None, 1, 10_000])
@on_loop
async def test_a_body_beyond_its_bound_is_a_413_and_the_client_gets_to_read_it(size):
    body = b'{"workloads": {}}' + b" " * 1_000_000
    sent = json_request(body) if size is None else chunked(body, size)
    async with serving() as world:
        client = await world.client()
        response = await client.ask(sent)
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert await client.closed()
    assert world.door.plain == []


@on_loop
async def test_a_body_as_long_as_allowed_is_taken():
    body = b'{"workloads": {"w-one": "healthy"}}'.ljust(65_536)
    async with serving() as world:
        assert (await world.ask(json_request(body))).status == 200


@on_loop
async def test_a_connection_too_many_is_told_to_come_back_and_closed():
    async with serving(http_connections_max=2) as world:
        clients = [await world.client() for _ in range(2)]
        for client in clients:
            assert (await client.ask(PING)).status == 200
        extra = await world.client()
        response = await extra.response()
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert await extra.closed()
        assert world.listener.statistics().connections_rejected == 1
        clients[0].close()
        await until(lambda: world.listener.statistics().connections_open == 1)
        assert (await world.ask(PING)).status == 200


@on_loop
async def test_close_answers_what_was_accepted_lets_idle_ones_go_and_takes_nothing_new():
    async with serving() as world:
        world.door.hold = True
        waiting, idle, partly = [await world.client() for _ in range(3)]
        waiting.writer.write(PING)
        partly.writer.write(BEAT[:-3])
        assert (await idle.ask(LOG)).status == 200
        await until(lambda: len(world.door.plain) == 1)
        closing = asyncio.ensure_future(world.listener.close())
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await world.client()
        partly.writer.write(BEAT[-3:])
        await until(lambda: len(world.door.plain) == 2)
        assert not closing.done()
        world.door.release()
        assert (await waiting.response()).body == b"OK"
        response = await partly.response()
        assert (response.status, response.headers["connection"]) == (200, "close")
        await closing
        assert world.listener.statistics().connections_open == 0


@on_loop
async def test_close_cuts_what_is_not_answered_in_time(monkeypatch):
    monkeypatch.setattr(engine.ingest_http, "DRAIN_S_MAX", 0.01)
    async with serving() as world:
        world.door.hold = True
        client = await world.client()
        client.writer.write(PING)
        await until(lambda: len(world.door.plain) == 1)
        await world.listener.close()
        assert await client.closed()
        world.door.release()  # an answer nobody waits for any more


@on_loop
async def test_a_listener_that_ends_leaves_the_shared_socket_to_the_others():
    with socket.create_server(("127.0.0.1", 0)) as shared:
        for _ in range(2):
            listener = await serve_http(
                shared.dup(), door=FakeDoor(), secrets=SECRETS, settings=IngestSettings()
            )
            reader, writer = await asyncio.open_connection(*shared.getsockname())
            assert (await Client(reader, writer).ask(LOG)).status == 200
            writer.close()
            await listener.close()
