"""Every setting of the web process, with its unit."""

from __future__ import annotations

import msgspec


class WebSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: int = 8080
    body_bytes_max: int = 64 * 1024 * 1024
    body_s_max: float = 30.0
    connections_max: int = 4_000
    keep_alive_s: float = 75.0
    backlog: int = 1_024
    graceful_s: float = 10.0
    session_life_s: float = 86_400.0  # how long an opened session is valid
    session_rate_per_min: int = 10  # signed requests per node and minute
    read_wait_ms_max: int = 2_000  # how long a read waits for the watermark
    sse_streams_max: int = 1_000
