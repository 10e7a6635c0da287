"""The embedded PostgreSQL and Valkey, for the time of a block in a plain (not async) bench."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import redis
import trio

from storage.bridge import run_on_uvloop
from storage.embedded import EmbeddedServer, PostgresServer, ValkeyServer
from storage.migrate import migrate


class Running(NamedTuple):
    """A server: its address and its process."""

    url: str
    pid: int

    @property
    def socket_path(self) -> str:
        """Of a server on a unix socket."""
        return unquote(urlsplit(self.url).path)


@contextmanager
def valkey() -> Iterator[Running]:
    """An empty Valkey."""
    with _folder() as folder, _running(ValkeyServer(folder)) as server:
        yield server


def tcp_port(store: Running) -> int:
    """Let a Valkey listen on loopback, too; where. Again: the same port."""
    with redis.Redis(unix_socket_path=store.socket_path, decode_responses=True) as client:
        port = int(client.config_get("port")["port"])
        if not port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            client.config_set("port", port)
    return port


@contextmanager
def postgres() -> Iterator[Running]:
    """A PostgreSQL with our schema and nothing in it, as durable as in production."""
    with _folder() as folder, _running(PostgresServer(folder)) as server:

        async def migrated() -> int:
            await migrate(server.url)
            return 0

        run_on_uvloop(migrated)
        yield server


@contextmanager
def _running(server: EmbeddedServer) -> Iterator[Running]:
    trio.run(server.start)
    try:
        assert server.process is not None
        # A bench makes its rows itself, so it needs the owner; rights cost a statement nothing.
        url = server.owner_url if isinstance(server, PostgresServer) else server.url
        yield Running(url, server.process.pid)
    finally:
        trio.run(server.stop)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="nodepulse-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
