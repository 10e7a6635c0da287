"""Where the stores are and how they are used."""

from __future__ import annotations

from typing import Literal

import msgspec


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PostgreSQL. An empty url means the embedded server under the data folder."""

    url: str = ""  # of the application's role
    owner_url: str = ""  # of the role that migrates; empty: the same
    binaries: str = ""  # folder with initdb and postgres for the embedded server; empty = found by itself
    pool_connections_max: int = 8
    command_timeout_s: float = 30.0
    connect_timeout_s: float = 5.0

    @property
    def migration_url(self) -> str:
        """The URL of the role that owns the tables."""
        return self.owner_url or self.url


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Redis or Valkey. An empty url means the embedded server under the data folder."""

    url: str = ""
    binaries: str = ""  # folder with valkey-server for the embedded server; empty = found by itself
    prefix: str = "np"
    timeout_s: float = 5.0
    event_stream_max: int = 100_000  # events kept in the event stream (100 of them share an entry)


class DatagramSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Datagram as a source of uptime. An empty token: it is not used."""

    url: str = "https://stats.api.datagram.network/api/v1"
    license_url: str = "https://license.api.datagram.network/api/v1"  # where nodes are registered
    token: str = ""
    token_form: Literal["bare", "bearer"] = "bearer"
    secret: str = ""  # the partner's
    requests_per_s_max: int = 60
    concurrency_max: int = 8  # questions under way at one time
    timeout_s: float = 10.0  # of one question
    cache_entries_max: int = 100_000  # answers of the past that are remembered
