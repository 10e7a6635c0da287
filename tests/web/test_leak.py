"""The leak of docs (an answer before the body has come, and the connection stays for ever): 2,000 times.

Without the guard quart-trio cancels itself while it closes; whoever has no key can use up the descriptors.
"""

from __future__ import annotations

import os
import resource

import pytest
import trio

from tests.web.serving import Reply, Served, is_closed, receive_reply, serving, until
from web.settings import WebSettings

CONNECTIONS = 2_000
AT_ONCE = 200
BODY = b'{"day":"x"}'
# Answered without the handler ever asking for the body: no key, no such path, no such method, no such route.
REQUESTS = (
    ("POST", "/v1/projects/alpha/points", 401),
    ("POST", "/nowhere", 404),
    ("POST", "/v1/nodes/1", 405),
    ("PUT", "/v1/manager/workloads/1/version", 401),
)
SETTINGS = WebSettings(drain_s=0.0, body_s_max=1.0, address_requests_per_min_max=1_000_000, access_log=False)


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 3 * CONNECTIONS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _ask(served: Served, number: int, *, send_body: bool) -> Reply:
    method, path, _ = REQUESTS[number % len(REQUESTS)]
    stream = await served.connect()
    async with stream:
        length = f"content-length: {len(BODY)}\r\nconnection: close"
        await stream.send_all(f"{method} {path} HTTP/1.1\r\nhost: here\r\n{length}\r\n\r\n".encode())
        await trio.sleep(0.005)  # so that the body is a segment of its own
        if send_body:
            await stream.send_all(BODY)
        reply = await receive_reply(stream, timeout_s=30)
        assert await is_closed(stream), "the server keeps what it said it would close"
        return reply


@pytest.mark.parametrize("send_body", [True, False], ids=["late body", "no body"])
async def test_2000_answers_before_the_body_leave_no_connection_behind(
    many_descriptors: None, send_body: bool
) -> None:
    replies: dict[int, Reply] = {}
    limit = trio.CapacityLimiter(AT_ONCE if send_body else CONNECTIONS)

    async with serving(SETTINGS) as served:
        before = descriptors()

        async def one(number: int) -> None:
            async with limit:
                replies[number] = await _ask(served, number, send_body=send_body)

        async with trio.open_nursery() as nursery:
            for number in range(CONNECTIONS):
                nursery.start_soon(one, number)
        await until(lambda: served.figure("open") == 0)
        await until(lambda: descriptors() <= before)
    expected = {
        number: REQUESTS[number % len(REQUESTS)][2] if send_body else 408 for number in range(CONNECTIONS)
    }
    assert {number: reply.status for number, reply in replies.items()} == expected
