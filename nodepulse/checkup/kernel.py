"""Receive buffers, descriptors, memory: what the kernel grants, and what burst that holds."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.sockets import open_beat_sockets
from nodepulse.checkup.finding import Finding, megabytes
from nodepulse.config import Config
from nodepulse.readiness import DATAGRAM_BYTES

STOCK_RMEM_MAX = 212_992  # of a kernel that nobody tuned; SO_RCVBUF up to it, which the kernel doubles
MILLION = "1,000,000 workloads, 10 per node, one report a minute"
MILLION_PER_S = 1_667
FULL_HOUR = 20  # synchronised clients: so many times the average at a full hour
MEMORY_BYTES_MIN = 1024**3
DESCRIPTORS_SPARE = 200


def kernel_findings(config: Config) -> Iterator[Finding]:
    """Findings of the area `kernel`."""
    yield _receive_buffer(config)
    yield _stock_kernel()
    yield _descriptors(config)
    yield _backlog(config)
    yield _memory()


def held(buffer_bytes: int) -> str:
    """What burst a socket's buffer holds while the engine does not read."""
    beats = buffer_bytes // DATAGRAM_BYTES
    seconds = beats / (MILLION_PER_S * FULL_HOUR)
    return (
        f"{megabytes(buffer_bytes)}: {beats:,} beats per socket, {seconds * 1000:,.0f} ms of the worst burst"
    )


def _receive_buffer(config: Config) -> Finding:
    wanted = config.ingest.receive_buffer_bytes
    opened = open_beat_sockets(host="127.0.0.1", port=0, sockets=1, receive_buffer_bytes=wanted)
    granted = opened.buffer_bytes
    opened.close()
    advice = ""
    if granted < wanted:
        advice = (
            f"wanted {megabytes(wanted)}: sysctl -w net.core.rmem_max={wanted // 2}, or more "
            f"ingest.sockets_per_shard"
        )
    return Finding("kernel", "UDP receive buffer", "note" if advice else "ok", held(granted), advice)


def _stock_kernel() -> Finding:
    limit = _sysctl("net/core/rmem_max")
    found = f"rmem_max {limit:,}; the {STOCK_RMEM_MAX:,} of a stock kernel: {held(2 * STOCK_RMEM_MAX)}"
    burst = f"the worst burst: {FULL_HOUR} times {MILLION_PER_S:,}/s, {MILLION}, synchronised"
    return Finding("kernel", "buffer limit", "ok", found, burst)


def _descriptors(config: Config) -> Finding:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the processes take up to the hard limit
    needed = max(config.ingest.http_connections_max, config.web.connections_max) + DESCRIPTORS_SPARE
    low = hard < needed
    return Finding(
        "kernel",
        "open files",
        "note" if low else "ok",
        f"{hard:,}; connections may need {needed:,}",
        f"ulimit -Hn {needed}, or lower ingest.http_connections_max and web.connections_max" if low else "",
    )


def _backlog(config: Config) -> Finding:
    limit = _sysctl("net/core/somaxconn")
    low = limit < config.web.backlog
    advice = f"sysctl -w net.core.somaxconn={config.web.backlog}" if low else ""
    return Finding("kernel", "waiting connections", "note" if low else "ok", f"somaxconn {limit:,}", advice)


def _memory() -> Finding:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    low = pages * size < MEMORY_BYTES_MIN
    advice = "PostgreSQL, Valkey and three processes want about 500 MiB" if low else ""
    found = f"{megabytes(pages * size)}, {os.cpu_count()} processors, {sys.platform} {os.uname().release}"
    return Finding("kernel", "memory", "note" if low else "ok", found, advice)


def _sysctl(name: str) -> int:
    path = Path("/proc/sys") / name
    return int(path.read_text()) if path.exists() else 0
