"""Every setting of the beat engine, with its unit. The cost of moving each stands in config.example.yaml."""

from __future__ import annotations

import msgspec


class IngestSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How beats come in."""

    host: str = "127.0.0.1"
    port: int = 7900  # UDP and the HTTP listener share it
    public_udp: str = ""  # host:port told to clients; empty = host name of the request, this port
    public_http: str = ""  # http(s)://host:port told to clients
    sockets_per_shard: int = 1
    receive_buffer_bytes: int = 64 * 1024 * 1024
    batch_frames_max: int = 8192  # datagrams taken in one reading
    pending_frames_max: int = 262_144  # verified and waiting for the journal; above it BUSY
    next_ms_rate_max: float = 50_000.0  # beats/s a shard asks for; next_ms is scaled up to keep it
    next_ms_jitter: float = 0.1  # next_ms is drawn from [1 - jitter, 1] of the scaled interval
    busy_retry_ms: int = 1_000
    refused_rows_max: int = 100_000  # rows of a shard whose refused beats are counted, per day and reason
    http_connections_max: int = 10_000
    http_body_bytes_max: int = 65_536
    http_idle_s_max: float = 75.0
    allow_plaintext: bool = False


class JournalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The local journal: what an ACK rests on."""

    segment_bytes_max: int = 64 * 1024 * 1024
    reserve_bytes: int = 64 * 1024 * 1024  # free disk below this: BUSY and not ready
    snapshot_interval_s: float = 60.0
    keep_s: float = 0.0  # segments that nobody needs any more are kept this long, for a restored Postgres
    retry_s: float = 1.0  # after a failed write or sync: how long until the next try


class LivenessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Judging. The rules themselves (LIVENESS.md) are not settings."""

    judge_interval_ms: int = 50
    wake_slice: int = 2_000  # actors woken per tick of the loop
    mailbox_max: int = 256  # changes waiting in one actor's mailbox; above it the oldest are folded
    restart_intensity: int = 5  # crashes of one actor ...
    restart_period_s: float = 60.0  # ... in this time set it aside
    quarantine_s: float = 3_600.0
    passivate: bool = True
    degraded_rows_min: int = 20
    degraded_share: float = 0.15


class FlushSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Batches to the stores."""

    live_interval_ms: int = 100
    history_rows_max: int = 50_000  # interval rows in one transaction
    registry_poll_ms: int = 250
    retry_ms_max: int = 5_000


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of the engine."""

    shards: int = 1
    clock_ahead_ms: int = 0  # of the system's clock
    ingest: IngestSettings = msgspec.field(default_factory=IngestSettings)
    journal: JournalSettings = msgspec.field(default_factory=JournalSettings)
    liveness: LivenessSettings = msgspec.field(default_factory=LivenessSettings)
    flush: FlushSettings = msgspec.field(default_factory=FlushSettings)
