"""Every setting of the web process, with its unit. The cost of moving each stands in config.example.yaml."""

from __future__ import annotations

import msgspec


class WebSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: int = 8080
    body_bytes_max: int = 64 * 1024 * 1024  # one body on a path that takes a long list
    body_s_max: float = 30.0  # from the header's end to the body's last byte
    bodies_bytes_max: int = 256 * 1024 * 1024  # all bodies held at once; above it 503
    spool_bytes_max: int = 512 * 1024 * 1024  # one commit of points; it goes to disk, under TMPDIR
    spools_bytes_max: int = 2 * 1024 * 1024 * 1024  # all of these at once; above it 503
    spool_s_max: float = 300.0  # from the header's end to the last byte of one
    connections_max: int = 4_000  # above it 503 and closed
    keep_alive_s: float = 75.0
    send_s_max: float = 30.0  # a client that takes no byte of its answer for this long is cut off
    backlog: int = 1_024
    drain_s: float = 1.0  # readyz fails this long before the listener closes
    graceful_s: float = 4.0  # after that connections are cut; with drain_s below serve.stop_web_s
    session_life_s: float = 86_400.0  # how long an opened session is valid
    session_rate_per_min: int = 10  # signed requests per node and minute
    read_wait_ms_max: int = 2_000  # how long a read waits for the watermark
    sse_streams_max: int = 1_000
    bulk_streams_max: int = 4  # bulk uptime as NDJSON or CSV; above it 503
    key_requests_per_min_max: int = 60_000  # of one credential, in this process; above it 429
    address_requests_per_min_max: int = 6_000  # of one address that shows no valid credential
    cors_origins: str = ""  # origins whose pages may call the API, separated by spaces; none by default
    access_log: bool = True  # one line per request
    sign_up: str = "open"  # open: whoever signs in first gets an account; closed: admins make accounts
    sign_ins_per_min_max: int = 120  # of one address; above it 429
    login_life_s: float = 30 * 86_400.0  # how long somebody stays signed in
    wallet_chain_id: int = 1  # the chain that wallets must sign for (EIP-155); 0 = any
    ownership_stale_s: float = 900.0  # answers of the inventory older than this are said to be stale
    trusted_proxies: str = ""  # networks whose x-forwarded-for and -proto are believed, separated by spaces
    dispute_days: int = 30  # after its newest seal a day can be disputed for so long
    announcements_per_day_max: int = 10  # of one project, and of the installation; above it 429
    releases_dir: str = ""  # folder with archives of the manager that this API serves; empty: none
    public_url: str = ""  # where people reach this API, for links in mails and wallets; empty: localhost only
