"""PostgreSQL and Valkey of a test's own, to be stopped and started under a running system."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import trio

from storage.embedded import PostgresServer, ValkeyServer


class OwnStores:
    """Both servers and what a `System` must be told to use them."""

    def __init__(self, folder: Path) -> None:
        self.postgres = PostgresServer(folder)
        self.valkey = ValkeyServer(folder)

    @property
    def sets(self) -> dict[str, Any]:
        return {"database.url": self.postgres.url, "redis.url": self.valkey.url}

    def stop_postgres(self) -> None:
        trio.run(self.postgres.stop)

    def kill_postgres(self) -> None:
        """kill -9 of the postmaster and all of its backends; it is started again."""
        assert self.postgres.process is not None
        pid = self.postgres.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with suppress(ProcessLookupError):  # it went by itself
                os.kill(each, signal.SIGKILL)
        self.stop_postgres()
        self.start_postgres()

    def start_postgres(self) -> None:
        trio.run(self.postgres.start)

    def stop_valkey(self) -> None:
        trio.run(self.valkey.stop)

    def start_valkey(self) -> None:
        trio.run(self.valkey.start)

    def flush_valkey(self) -> None:
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()


@contextmanager
def own_stores(folder: Path) -> Iterator[OwnStores]:
    """Running, on a folder whose database is migrated already."""
    stores = OwnStores(folder)
    try:
        stores.start_postgres()
        stores.start_valkey()
        yield stores
    finally:
        stores.stop_postgres()
        stores.stop_valkey()
