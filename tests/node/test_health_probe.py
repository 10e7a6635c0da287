"""Probes against real servers and commands, and what the manager makes of their outcomes over time."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from node.drivers.port import Origin, Phase, Running
from node.health_probe import probe
from node.health_spec import HealthSpec
from node.manager.watching import Watching


@contextmanager
def web(status):
    """A server that answers each request with what `status` holds; None: with silence."""
    said = {"status": status}

    async def serve(stream):
        async with stream:
            await stream.receive_some(4_096)
            if said["status"] is None:
                await trio.sleep_forever()
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % said["status"])

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield said, f"http://127.0.0.1:{listener.getsockname()[1]}/healthz", listener, serve


async def outcome(spec):
    return await probe(spec, environment=dict(os.environ), directory=Path("/"))


def listening(nursery, listener, serve):
    made = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
    nursery.start_soon(trio.serve_listeners, serve, [made])


@pytest.mark.parametrize(
    ("status", "failure"), [(200, None), (204, None), (302, None), (404, "HTTP 404"), (500, "HTTP 500")]
)
async def test_an_http_probe_succeeds_below_400(nursery, status, failure):
    with web(status) as (_, url, listener, serve):
        listening(nursery, listener, serve)
        assert await outcome(HealthSpec(http=url)) == failure
        nursery.cancel_scope.cancel()


async def test_silence_is_a_failure_when_its_time_is_over(nursery):
    with web(None) as (_, url, listener, serve):
        listening(nursery, listener, serve)
        assert await outcome(HealthSpec(http=url, timeout_s=1)) in ("no answer within 1 s", "timed out")
        assert await outcome(HealthSpec(command=("sleep", "60"), timeout_s=1)) == "no answer within 1 s"
        nursery.cancel_scope.cancel()


async def test_a_port_takes_a_connection_or_does_not():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert await outcome(HealthSpec(tcp=("127.0.0.1", port))) is None
    assert await outcome(HealthSpec(tcp=("127.0.0.1", port)))
    assert await outcome(HealthSpec(http=f"http://127.0.0.1:{port}/"))


async def test_a_command_ends_with_0_or_does_not():
    for code, failure in ((0, None), (3, "exit code 3")):
        command = (sys.executable, "-c", f"print('x'); raise SystemExit({code})")
        assert await outcome(HealthSpec(command=command, timeout_s=20)) == failure
    assert "No such file" in await outcome(HealthSpec(command=("no-such-program",)))


class OneWorkload:
    """What a driver says of one workload."""

    def __init__(self, health):
        self.health, self.run, self.since_s = health, "first", trio.current_time()

    def running(self):
        return {
            "a": Running(
                workload_id="a",
                name="a",
                version="1.0.0",
                digest="d",
                restarts=0,
                phase=Phase.RUNNING,
                origin=Origin.ORDERED,
                since_s=self.since_s,
                run=self.run,
                health=self.health,
            )
        }


async def becomes(watching, state):
    with trio.fail_after(10):
        while watching.verdict("a").state != state:  # noqa: ASYNC110 - health tells nobody
            await trio.sleep(0.01)


async def test_each_run_is_probed_anew(tmp_path, nursery):
    with web(200) as (said, url, listener, serve):
        listening(nursery, listener, serve)
        driver = OneWorkload(HealthSpec(http=url, interval_s=1, unhealthy_after=1))
        watching = Watching(driver, tmp_path / "reports", ttl_s=30, environment={})
        assert watching.verdict("a").state == "updating"
        nursery.start_soon(watching.run)
        await becomes(watching, "healthy")
        said["status"] = 500
        await becomes(watching, "unhealthy")
        assert watching.verdict("a").why == "its probe fails: HTTP 500"
        driver.run, driver.since_s = "second", trio.current_time()
        assert watching.verdict("a").state == "updating"
        said["status"] = 200
        await becomes(watching, "healthy")
        with watching.updating("a"):
            assert watching.verdict("a").state == "updating"
            assert watching.verdict("a", updating=False).state == "healthy"
        nursery.cancel_scope.cancel()


async def test_reports_outlive_a_kill_as_long_as_they_hold(tmp_path):
    class Nothing:
        def running(self):
            return {}

    path = tmp_path / "reports"
    first = Watching(Nothing(), path, ttl_s=30, environment={})
    first.report("a", "healthy", "fine")
    first.save()
    assert Watching(Nothing(), path, ttl_s=30, environment={}).verdict("a").why == "fine"
    await trio.sleep(0.02)
    assert Watching(Nothing(), path, ttl_s=0.01, environment={}).verdict("a").state == "absent"
    for spoiled in ("{", "[]", '{"a": 1}', '{"a": ["x", 1, ""]}', '{"a": ["healthy", "x", ""]}'):
        path.write_text(spoiled)
        assert Watching(Nothing(), path, ttl_s=30, environment={}).verdict("a").state == "absent"
