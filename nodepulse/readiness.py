"""When the system is serving, and who is told: the terminal, and systemd.

Serving means that `GET /readyz` on the web port answers 200. The text tells where to look and what to type
next.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

import structlog
import trio

from engine.core.version import VERSION
from nodepulse.config import Config, default_data_dir
from nodepulse.systemd import feed_watchdog, notify

log = structlog.get_logger()
POLL_S = 0.1
ANSWER_S = 5.0
DATAGRAM_BYTES = 832  # what the kernel charges a receive buffer for one 48-byte datagram
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def announce(config: Config, buffer_bytes: int, say: Callable[[str], None]) -> None:
    """Wait until the web API is ready and say so; then feed systemd's watchdog, if there is one."""
    began = trio.current_time()
    warned = False
    while not await is_ready(config.web.host, config.web.port):
        if not warned and trio.current_time() - began > config.serve.ready_s_max:
            warned = True
            log.error("serve.not_ready", after_s=config.serve.ready_s_max, advice="see GET /readyz?verbose")
        await trio.sleep(POLL_S)
    log.info("serve.ready", after_ms=round((trio.current_time() - began) * 1000))
    try:
        say(welcome(config, buffer_bytes))
    except OSError as error:
        log.warning("serve.nobody_reads", why=str(error))  # a closed terminal or pipe: no reason to end
    notify(f"READY=1\nSTATUS=serving on {address(config.web.host, config.web.port)}")
    await feed_watchdog()


async def is_ready(host: str, port: int) -> bool:
    """Whether `GET /readyz` answers 200 now."""
    return (await get(host, port, "/readyz"))[0] == 200


async def get(host: str, port: int, path: str) -> tuple[int, str]:
    """A plain GET of one of our own health endpoints: (status, body); status 0 when nobody answers."""
    request = f"GET {path} HTTP/1.1\r\nhost: {address(host, port)}\r\nconnection: close\r\n\r\n"
    answer = b""
    with trio.move_on_after(ANSWER_S):
        try:
            async with await trio.open_tcp_stream(_UNSPECIFIED.get(host, host), port) as stream:
                await stream.send_all(request.encode())
                async for chunk in stream:
                    answer += chunk
        except (OSError, trio.BrokenResourceError):
            return 0, ""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 2 and words[1].isdigit() else 0), body.decode(errors="replace")


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reached_at(host: str, port: int) -> str:
    """The address by which this machine itself reaches a listener; one on all addresses by loopback."""
    return address(_UNSPECIFIED.get(host, host), port)


def welcome(config: Config, buffer_bytes: int) -> str:
    """What a person reads when the system is up."""
    where = config.data_dir
    option = "" if where == str(default_data_dir(os.environ)) else f" --data-dir {shlex.quote(where)}"
    web = reached_at(config.web.host, config.web.port)
    held = buffer_bytes // DATAGRAM_BYTES
    return "\n".join(
        (
            f"NodePulse {VERSION} is serving.",
            f"  web    http://{web}    (/readyz?verbose, /metrics, /openapi.json)",
            f"  beats  {address(config.ingest.host, config.ingest.port)}, UDP and HTTP"
            f"    (a socket holds {held:,} beats while the engine is busy)",
            f"  data   {where}",
            "Next, in a second terminal:",
            f"  ./run admin provision{option} --project demo --nodes 1 --workloads 2 --json",
            f"  ./run demo{option}",
            "Ctrl-C stops everything in order.",
        )
    )
