"""What each key may be set to: ranges, forms, and relations between keys.

A value out of range is refused at the start with the path of its key and what to do, not found out by a
crash at night. Why a range is as it is stands beside it where it is not plain.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from engine.core.apprise_url import schemas_of
from worker.cron import due_times

if TYPE_CHECKING:
    from nodepulse.config import Config

_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3
_DAY_S = 86_400.0
PRESETS = ("openzeppelin", "eip721", "custom")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Problem(NamedTuple):
    """One thing that is wrong: the path of the key, and what to do about it."""

    path: str
    text: str


class ConfigError(Exception):
    """The configuration cannot be used. `problems` says all that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{problem.path}: {problem.text}" for problem in problems))


# Every number, from .. to (both allowed). A test holds this against the settings: none may be missing.
RANGES: dict[str, tuple[float, float]] = {
    "clock_ahead_s": (0, 31 * _DAY_S),
    "engine.shards": (1, 64),
    "ingest.port": (0, 65_535),
    "ingest.sockets_per_shard": (1, 64),
    "ingest.receive_buffer_bytes": (4 * _KIB, 2 * _GIB - 1),
    "ingest.batch_frames_max": (1, 65_536),
    "ingest.pending_frames_max": (1, 16_777_216),
    "ingest.refused_rows_max": (1, 16_777_216),
    "ingest.next_ms_rate_max": (1, 10_000_000),
    "ingest.next_ms_jitter": (0, 1),
    "ingest.busy_retry_ms": (1, 60_000),
    "ingest.http_connections_max": (1, 1_000_000),
    "ingest.http_body_bytes_max": (48 * 1_024, 16 * _MIB),  # 1,024 frames must fit
    "ingest.http_idle_s_max": (1, 3_600),
    "journal.segment_bytes_max": (_MIB, 4 * _GIB),
    "journal.reserve_bytes": (0, 1_024 * _GIB),
    "journal.snapshot_interval_s": (0.1, _DAY_S),
    "journal.keep_s": (0, 30 * _DAY_S),
    "journal.retry_s": (0.01, 60),
    "liveness.judge_interval_ms": (1, 1_000),
    "liveness.wake_slice": (1, 1_000_000),
    "liveness.mailbox_max": (1, 65_536),
    "liveness.restart_intensity": (1, 1_000),
    "liveness.restart_period_s": (0.1, _DAY_S),
    "liveness.quarantine_s": (1, 7 * _DAY_S),
    "liveness.degraded_rows_min": (1, 1_000_000_000),
    "liveness.degraded_share": (0.01, 1),
    "flush.live_interval_ms": (10, 1_000),  # web is ready while watermarks are under 2 s old
    "flush.history_rows_max": (1, 10_000_000),
    "flush.registry_poll_ms": (10, 500),  # a revocation must be everywhere within 1 s
    "flush.retry_ms_max": (10, 60_000),
    "web.port": (0, 65_535),
    "web.body_bytes_max": (_KIB, 4 * _GIB),
    "web.body_s_max": (0.1, 3_600),
    "web.bodies_bytes_max": (_KIB, 64 * _GIB),
    "web.connections_max": (1, 1_000_000),
    "web.keep_alive_s": (0, 3_600),
    "web.send_s_max": (0.1, 3_600),
    "web.backlog": (1, 65_535),
    "web.drain_s": (0, 14),
    "web.graceful_s": (0, 14),
    "web.session_life_s": (60, 365 * _DAY_S),
    "web.session_rate_per_min": (1, 100_000),
    "web.read_wait_ms_max": (0, 60_000),
    "web.sse_streams_max": (0, 1_000_000),
    "web.bulk_streams_max": (0, 1_000),
    "web.spool_bytes_max": (_KIB, 4 * _GIB),
    "web.spools_bytes_max": (_KIB, 64 * _GIB),
    "web.spool_s_max": (0.1, 3_600),
    "web.key_requests_per_min_max": (1, 1_000_000_000),
    "web.address_requests_per_min_max": (1, 1_000_000_000),
    "web.ownership_stale_s": (60, 365 * _DAY_S),
    "web.sign_ins_per_min_max": (1, 1_000_000),
    "web.announcements_per_day_max": (0, 10_000),
    "web.login_life_s": (60, 365 * _DAY_S),
    "web.wallet_chain_id": (0, 2**53),
    "web.dispute_days": (1, 3_650),
    "worker.notifier_batch_max": (1, 100_000),
    "worker.notifier_project_delay_s": (0, _DAY_S),
    "worker.notifier_gather_s": (0, _DAY_S),
    "worker.notifier_area_nodes_min": (1, 1_000_000_000),
    "worker.notifier_area_percent_min": (0, 100),
    "worker.poll_ms": (10, 60_000),
    "worker.delivery_concurrency_max": (1, 10_000),
    "worker.delivery_endpoint_max": (1, 10_000),
    "worker.delivery_lease_margin_s": (1, 600),
    "worker.delivery_timeout_s": (0.1, 600),
    "worker.delivery_attempts_max": (1, 100),
    "worker.seal_after_s": (0, _DAY_S),
    "engine.metrics_port": (0, 65_535),
    "worker.dead_man_s": (1, _DAY_S),
    "worker.metrics_port": (0, 65_535),
    "worker.mail.port": (1, 65_535),
    "worker.mail.timeout_s": (0.1, 600),
    "worker.mail.address_per_hour_max": (1, 10_000),
    "worker.publish.timeout_s": (0.1, 600),
    "worker.publish.evm.chain_id": (1, 2**53),
    "worker.publish.evm.gas": (21_000, 30_000_000),
    "worker.ownership.poll_s": (5, _DAY_S),
    "worker.ownership.nightly_hour_utc": (0, 23),
    "worker.ownership.depth_blocks": (0, 1_000_000),
    "worker.ownership.block_age_s_max": (1, 30 * _DAY_S),
    "worker.ownership.timeout_s": (0.1, 600),
    "worker.ownership.tokens_max": (1, 100_000_000),
    "worker.ownership.concurrency_max": (1, 100),
    "worker.reports.seal_wait_s": (0, 7 * _DAY_S),
    "worker.retention.deliveries_days": (1, 36_500),
    "worker.retention.letters_days": (1, 36_500),
    "worker.retention.idempotency_days": (1, 365),  # clients may count on 24 hours
    "database.pool_connections_max": (1, 1_000),
    "database.command_timeout_s": (0.1, 3_600),
    "database.connect_timeout_s": (0.1, 600),
    "redis.timeout_s": (0.1, 600),
    "redis.event_stream_max": (1, 100_000_000),
    "datagram.requests_per_s_max": (1, 10_000),
    "datagram.concurrency_max": (1, 1_000),
    "datagram.timeout_s": (0.1, 600),
    "datagram.cache_entries_max": (0, 100_000_000),
    "canary.count": (0, 1_000),
    "canary.interval_ms": (1_000, 3_600_000),  # WIRE.md: the smallest interval is 1 s
    "serve.restart_intensity": (1, 10_000),
    "serve.restart_period_s": (0.1, _DAY_S),
    "serve.start_attempts_max": (1, 1_000),
    "serve.ready_s_max": (1, 3_600),
    "serve.stop_web_s": (0.1, 15),
    "serve.stop_engine_s": (0.1, 15),
    "serve.stop_stores_s": (1, 15),
    "serve.metrics_port": (0, 65_535),
}
STOP_S_MAX = 15.0  # the contract: SIGTERM stops in order within this


def value_at(config: Any, path: str) -> Any:
    """The value of a key by its path."""
    for part in path.split("."):
        config = getattr(config, part)
    return config


def parse_address(text: str) -> tuple[str, int]:
    """``host:port``, ``[v6]:port`` or ``:port`` (this host only). ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 host in brackets, [{host}]:{port}")
    if any(character.isspace() or character in "/@[]" for character in host):
        raise ValueError(f"{text!r} has no usable host")
    return host or "127.0.0.1", int(port)


def broken_limits(config: Config) -> Iterator[Problem]:
    """Everything that is out of range or contradicts another key."""
    for path, (low, high) in RANGES.items():
        value = value_at(config, path)
        if not low <= value <= high:  # NaN is refused by this form, too
            yield Problem(path, f"is {value:g}; must be from {low:g} to {high:g}")
    for path, form in _FORMS.items():
        text = value_at(config, path)
        advice = form(text) if text else None
        if advice is not None:
            yield Problem(path, f"is {text!r}; {advice}")
    yield from _relations(config)


def _relations(config: Config) -> Iterator[Problem]:
    if config.log_level not in LOG_LEVELS:
        yield Problem("log_level", f"is {config.log_level!r}; must be one of {', '.join(LOG_LEVELS)}")
    for path in (
        "ingest.host",
        "web.host",
        "web.sign_up",
        "worker.metrics_host",
        "serve.metrics_host",
        "redis.prefix",
        "datagram.url",
        "datagram.license_url",
        "worker.mail.sender",
    ):
        if not value_at(config, path):
            yield Problem(path, "is empty; leave it out to get the default")
    if config.ingest.batch_frames_max > config.ingest.pending_frames_max:
        yield Problem(
            "ingest.batch_frames_max", "is above ingest.pending_frames_max: a full reading would be BUSY"
        )
    if config.web.port and config.web.port == config.ingest.port and config.web.host == config.ingest.host:
        yield Problem("web.port", "is also ingest.port, whose HTTP listener needs it; choose another")
    ownership = config.worker.ownership
    if ownership.preset not in PRESETS:
        yield Problem("worker.ownership.preset", f"must be one of {', '.join(PRESETS)}")
    if ownership.preset == "custom" and not ownership.custom.query:
        yield Problem("worker.ownership.custom.query", "is empty, but worker.ownership.preset is custom")
    try:
        ownership.keys_by_origin  # noqa: B018 - raises ValueError; its value is a secret and is not told
    except ValueError as error:
        yield Problem("worker.ownership.keys", str(error))
    for key, text in config.worker.publish.problems():
        yield Problem(f"worker.publish.{key}", text)
    total = config.serve.stop_web_s + config.serve.stop_engine_s + config.serve.stop_stores_s
    if total > STOP_S_MAX:
        yield Problem(
            "serve.stop_web_s", f"and its two sisters sum to {total:g} s; at most {STOP_S_MAX:g} s together"
        )
    if config.web.drain_s + config.web.graceful_s >= config.serve.stop_web_s:
        yield Problem("web.graceful_s", "and web.drain_s must sum to less than serve.stop_web_s")


def _host_port(text: str) -> str | None:
    try:
        host, port = parse_address(text)
    except ValueError as error:
        return str(error)
    if port == 0 or text.startswith(":"):
        return "clients need a host and a port above 0"
    if host in ("0.0.0.0", "::"):
        return "clients cannot send to the unspecified address; name the public one"
    return None


def _url_of(*schemes: str) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        expected = " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018 - raises ValueError when it is not a port number
        except ValueError as error:
            return f"must be a URL with {expected}: {error}"
        return None if parts.scheme in schemes else f"must begin with {expected}"

    return check


def _sign_up(text: str) -> str | None:
    return None if text in ("open", "closed") else "must be open or closed"


def _networks(text: str) -> str | None:
    for network in text.split():
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return f"{error}; write addresses or networks such as 10.0.0.0/8, separated by spaces"
    return None


def _origins(text: str) -> str | None:
    for origin in text.split():
        parts = urlsplit(origin)
        if (
            parts.scheme not in ("http", "https")
            or not parts.netloc
            or origin != f"{parts.scheme}://{parts.netloc}"
        ):
            return f"{origin!r} is no origin; write https://host or https://host:port, separated by spaces"
    return None


def _services(text: str) -> str | None:
    try:
        schemas_of(text)
    except ValueError as error:
        return str(error)
    return None


def _cron(text: str) -> str | None:
    try:
        due_times(text)
    except ValueError as error:
        return str(error)
    return None


_FORMS: dict[str, Callable[[str], str | None]] = {
    "worker.dead_man_url": _url_of("http", "https"),
    "worker.reports.daily_cron": _cron,
    "worker.reports.weekly_cron": _cron,
    "ingest.public_udp": _host_port,
    "ingest.public_http": _url_of("http", "https"),
    "canary.url": _url_of("http", "https"),
    "datagram.url": _url_of("http", "https"),
    "datagram.license_url": _url_of("http", "https"),
    "web.public_url": _url_of("http", "https"),
    "web.cors_origins": _origins,
    "web.trusted_proxies": _networks,
    "worker.ownership.url": _url_of("http", "https"),
    "worker.publish.webhook.url": _url_of("http", "https"),
    "worker.publish.s3.url": _url_of("http", "https"),
    "web.sign_up": _sign_up,
    "worker.apprise_schemas": _services,
    "sentry.dsn": _url_of("http", "https"),
    "database.url": _url_of("postgresql", "postgres"),
    "database.owner_url": _url_of("postgresql", "postgres"),
    "redis.url": _url_of("redis", "rediss", "unix"),
}
