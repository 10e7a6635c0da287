"""Real PostgreSQL and Valkey for tests, started once per session and only when a test asks for them.

A test that needs the adapters (`stores`, or `on_uvloop` itself) runs under `run_on_uvloop` by itself; all
others run under plain trio, with `memory_stores`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis
import trio
from xdist.scheduler import LoadScopeScheduling

from storage import roles
from storage.bridge import run_on_uvloop
from storage.embedded import EmbeddedServer, PostgresServer, ValkeyServer
from storage.memory import MemoryWorld, memory_stores_of
from storage.migrate import migrate
from storage.open import Stores, open_stores
from storage.settings import DatabaseSettings, RedisSettings

TEMPLATE = "np_template"
# Folders whose tests start whole systems and mostly wait for them: one after the other within each line.
WHOLE_SYSTEMS = {
    "systems that serve": ("tests/browser/", "tests/e2e/", "tests/front/"),
    "systems in trouble": ("tests/bench/", "tests/faults/"),
}


class FastPostgresServer(PostgresServer):
    """Tests do not pull the plug: without fsync a new database costs a tenth."""

    options = (*PostgresServer.options, "fsync=off", "full_page_writes=off")


def guest_run(async_fn: Callable[[], Any], *, clock: object = None, instruments: object = ()) -> None:
    """What pytest-trio runs a test with instead of `trio.run`."""
    assert clock is None, "an autojump clock does not see pending calls of the host"

    async def main() -> int:
        await async_fn()
        return 0

    if run_on_uvloop(main):
        raise KeyboardInterrupt


class SystemsInLine(LoadScopeScheduling):
    """Of the three processes of `./test` two run whole systems; the others go by their files."""

    def _split_scope(self, nodeid: str) -> str:
        for line, folders in WHOLE_SYSTEMS.items():
            if nodeid.startswith(folders):
                return line
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SystemsInLine:
    return SystemsInLine(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "on_uvloop" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=guest_run), append=False)


@pytest.fixture
def on_uvloop() -> None:
    """An async test that asks for this (or for what needs it) runs under `run_on_uvloop`."""


def _in_memory() -> Path | None:
    """Where files cost no disk, if there is such a place with room: each test's database is many files."""
    shared = Path("/dev/shm")
    roomy = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 4 << 30
    return shared if roomy else None


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="np-test-", dir=_in_memory()))
    yield folder
    shutil.rmtree(folder)


def running(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    trio.run(server.start)
    try:
        yield server
    finally:
        trio.run(server.stop)


@pytest.fixture(scope="session")
def postgres_server(servers_dir: Path) -> Iterator[EmbeddedServer]:
    yield from running(FastPostgresServer(servers_dir))


@pytest.fixture(scope="session")
def valkey_server(servers_dir: Path) -> Iterator[EmbeddedServer]:
    yield from running(ValkeyServer(servers_dir))


def url_of(server: EmbeddedServer, database: str) -> str:
    """Of the application's role, as in production: what a test may not do, the product may not either."""
    return urlsplit(server.url)._replace(path=f"/{database}").geturl()


def as_owner(url: str) -> str:
    """The same database for its owner: for a test that makes what the application cannot."""
    return urlsplit(url)._replace(netloc=f"{roles.OWNER}@").geturl()


def owner_url_of(server: EmbeddedServer, database: str) -> str:
    return as_owner(url_of(server, database))


def administer(server: EmbeddedServer, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(owner_url_of(server, "postgres"))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedServer) -> str:
    administer(postgres_server, f"create database {TEMPLATE}")

    async def main() -> int:
        owner_url = owner_url_of(postgres_server, TEMPLATE)
        await roles.make_application_role(owner_url)
        await migrate(owner_url, application_url=url_of(postgres_server, TEMPLATE))
        return 0

    run_on_uvloop(main)
    return TEMPLATE


@pytest.fixture
def postgres_url(postgres_server: EmbeddedServer, migrated_template: str) -> Iterator[str]:
    """A migrated, empty database of its own."""
    name = f"t_{next(_numbers)}"
    administer(postgres_server, f"create database {name} template {migrated_template} strategy file_copy")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"drop database {name} with (force)")


@pytest.fixture
def valkey_url(valkey_server: EmbeddedServer) -> str:
    """An empty Valkey."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture
async def stores(on_uvloop: None, postgres_url: str, valkey_url: str) -> AsyncIterator[Stores]:
    """All ports on the real stores, empty."""
    settings = DatabaseSettings(url=postgres_url), RedisSettings(url=valkey_url)
    async with open_stores(*settings) as opened:
        yield opened


@pytest.fixture
def memory_world() -> MemoryWorld:
    """What is in `memory_stores`: to be looked into, or to be put out of reach."""
    return MemoryWorld()


@pytest.fixture
def memory_stores(memory_world: MemoryWorld) -> Stores:
    """All ports in memory, empty; for plain trio and autojump clocks."""
    return memory_stores_of(memory_world)


_numbers = iter(range(1, 1_000_000))
