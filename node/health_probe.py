"""Making one probe: an HTTP GET, a TCP connection or a command, each bounded in time.

How often, and what the outcomes mean, is not decided here (manager/watching.py, health.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import trio

from node.health_spec import HealthSpec
from node.post import PostFailedError, exchange

REPLY_BYTES_MAX = 65_536


async def probe(spec: HealthSpec, *, environment: Mapping[str, str], directory: Path) -> str | None:
    """None when it succeeded, else why not, for people. A command runs in `directory` with `environment`."""
    with trio.move_on_after(spec.timeout_s):
        if spec.http is not None:
            return await _get(spec.http, spec.timeout_s)
        if spec.tcp is not None:
            return await _connect(*spec.tcp)
        assert spec.command is not None
        return await _run(spec.command, environment, directory)
    return f"no answer within {spec.timeout_s} s"


async def _get(url: str, timeout_s: int) -> str | None:
    def call() -> str | None:
        headers = {"User-Agent": "nodepulse-manager"}
        try:
            reply = exchange(
                "GET", url, None, headers=headers, timeout_s=timeout_s, reply_bytes_max=REPLY_BYTES_MAX
            )
        except PostFailedError as error:
            return str(error)
        return None if 200 <= reply.status < 400 else f"HTTP {reply.status}"

    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


async def _connect(host: str, port: int) -> str | None:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        return str(error)
    await trio.aclose_forcefully(stream)
    return None


async def _run(command: tuple[str, ...], environment: Mapping[str, str], directory: Path) -> str | None:
    try:
        done = await trio.run_process(
            list(command),
            check=False,
            stdin=b"",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            cwd=directory,
        )
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else f"exit code {done.returncode}"
