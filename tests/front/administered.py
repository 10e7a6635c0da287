"""`nodepulse admin ...` in this process, on a database of its own: what it prints, and what it leaves behind.

No serve runs: the stores' URLs are configured, as on a machine that has them elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asyncpg
from click.testing import CliRunner

from nodepulse.cli import nodepulse
from nodepulse.stores import ensure_secrets
from storage.bridge import run_on_uvloop
from storage.embedded import EmbeddedServer
from storage.open import AllStores, open_stores
from storage.settings import DatabaseSettings, RedisSettings
from tests.conftest import administer, as_owner, url_of

T = TypeVar("T")
NOWHERE = "01980000-0000-7000-8000-000000000000"  # an id of nothing


class Printed(NamedTuple):
    code: int
    out: str
    err: str


class Administered:
    """One database and the commands on it."""

    def __init__(self, folder: Path, postgres_url: str, valkey_url: str) -> None:
        self.folder = folder
        self._urls = postgres_url, valkey_url
        self._where = ["--data-dir", str(folder)]
        self._environ = {"NODEPULSE_DATABASE__URL": postgres_url, "NODEPULSE_REDIS__URL": valkey_url}
        ensure_secrets(folder / "secrets.json")

    def type(self, *words: object, stdin: str | bytes = "", **environ: str) -> Printed:
        """What `nodepulse WORDS` prints."""
        line = [*map(str, words), *self._where]
        done = CliRunner().invoke(nodepulse, line, input=stdin, env={**self._environ, **environ})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Printed(done.exit_code, done.stdout, done.stderr)

    def admin(self, *words: object, **options: Any) -> Any:
        """The object that `nodepulse admin WORDS --json` prints."""
        done = self.type("admin", *words, "--json", **options)
        assert done.code == 0, done.err
        assert done.out.count("\n") == 1, "one object, on one line"
        return json.loads(done.out)

    def refused(self, *words: object, **options: Any) -> str:
        """The one line by which `nodepulse admin WORDS` refuses, with exit code 1."""
        done = self.type("admin", *words, **options)
        assert done.code == 1, (done.out, done.err)
        assert "Traceback" not in done.err
        assert done.err.count("\n") == 1, done.err
        return done.err.strip()

    def misused(self, *words: object, **options: Any) -> str:
        """What is said of a wrong usage, with exit code 2."""
        done = self.type("admin", *words, **options)
        assert done.code == 2, (done.out, done.err)
        return re.sub(r"\s+", " ", done.err)

    def audited(self, action: str) -> dict[str, Any]:
        """The newest entry of the audit log, which is of this action, and by whoever runs the tests."""
        entry = self.admin("audit", "list", "--limit", "1")["entries"][0]
        assert entry["action"] == action
        assert entry["actor"].startswith("cli:")
        assert entry["request_id"].startswith("cli-")
        return dict(entry)

    def on_stores(self, work: Callable[[AllStores], Awaitable[T]]) -> T:
        """What `await work(stores)` returns."""
        postgres_url, valkey_url = self._urls
        results: list[T] = []

        async def main() -> int:
            settings = DatabaseSettings(url=postgres_url), RedisSettings(url=valkey_url)
            async with open_stores(*settings) as stores:
                results.append(await work(stores))
            return 0

        assert run_on_uvloop(main) == 0
        return results[0]

    def sql(self, statement: str, *arguments: object) -> list[Any]:
        """Run a statement on the database itself, as its owner; its rows."""
        results: list[Any] = []

        async def run() -> None:
            connection = await asyncpg.connect(as_owner(self._urls[0]))
            try:
                results.extend(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()

        asyncio.run(run())
        return results


@contextmanager
def administered(
    folder: Path, postgres: EmbeddedServer, valkey: EmbeddedServer, template: str
) -> Iterator[Administered]:
    """For the time of the block; the database is called as the folder."""
    name = f"admin_{folder.name.replace('-', '_')}"
    administer(postgres, f"create database {name} template {template} strategy file_copy")
    try:
        yield Administered(folder, url_of(postgres, name), valkey.url)
    finally:
        administer(postgres, f"drop database {name} with (force)")
