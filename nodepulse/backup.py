"""A backup of an installation while beats come in, and bringing one back.

PostgreSQL first, the journals after it: so that the journals hold all that the dump lacks, and while it takes
nothing of them may be let go (the hold). The other way round the journals would be older than the database,
and what it knows beyond them would have to be thrown away. Who asks for it is commands/backup.py.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trio

from engine import snapshot
from engine.core.version import VERSION
from engine.journal_blocks import SUFFIX as JOURNAL
from engine.snapshots import HOLD_FILE
from nodepulse.config import Config
from nodepulse.process import write_private
from storage.binaries import Account, postgres_binaries
from storage.embedded import PostgresServer
from storage.migrate import migrate, migrate_embedded

DUMP = "postgres.dump"
MANIFEST = "backup.json"
KEYS = ("secrets.json", "canary.json")  # of the data folder; the second is not always there
_COPY_BYTES = 1024 * 1024


class BackupError(Exception):
    """A backup that cannot be made, or not be brought back; the text is for the operator."""


class Kept(msgspec.Struct, frozen=True):
    """One file of a backup."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `files`: by path within it."""

    version: str
    began_ms: int
    took_s: float
    shards: int
    files: dict[str, Kept]


async def back_up(config: Config, to: Path) -> Manifest:
    """Make the folder `to`, whole or not at all. BackupError, OSError.

    config: as it is in effect, with the owner's URL where the database is not ours.
    """
    began = time.time()
    unfinished = _begin(to)
    journals = config.folder / "journal"
    with _hold(journals):
        await _run(
            config, "pg_dump", config.database.migration_url, "--format=custom", f"--file={unfinished / DUMP}"
        )
        copied = await trio.to_thread.run_sync(_copy_journals, journals, unfinished / "journal")
    if not copied:
        raise BackupError(f"there is no journal in {journals}: is this where its engines run?")
    for name in KEYS:
        if (config.folder / name).exists():
            _copy(config.folder / name, unfinished / name)
    files = {str(path.relative_to(unfinished)): _kept(path) for path in _files(unfinished)}
    manifest = Manifest(VERSION, int(began * 1_000), time.time() - began, config.engine.shards, files)
    write_private(unfinished / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    unfinished.rename(to)
    return manifest


def _begin(to: Path) -> Path:
    """The folder that becomes `to` when it is whole."""
    if to.exists():
        raise BackupError(f"{to} is there already; name a folder that is not")
    unfinished = to.with_name(f".{to.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    return unfinished


async def bring_back(config: Config, source: Path, *, only_postgres: bool = False) -> Manifest:
    """Put a backup into an empty data folder and an empty database. BackupError, OSError.

    config: of the installation to be, not in use by anybody. only_postgres: its journals and keys are there.
    """
    manifest = _checked(source)
    for name in ("postgres",) if only_postgres else ("journal", "postgres", "secrets.json"):
        if (config.folder / name).exists():
            raise BackupError(f"{config.folder / name} is there: name a --data-dir that holds nothing yet")
    config.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.database.url:
        await _restore(config, config.database.migration_url, source)
        await migrate(config.database.migration_url, application_url=config.database.url)
    else:
        server = PostgresServer(config.folder, binaries=config.database.binaries)
        await server.start()
        try:
            await _restore(config, server.owner_url, source)
            await migrate_embedded(server)
        finally:
            await server.stop()
    for name in () if only_postgres else manifest.files:
        if name != DUMP:
            place = config.folder / name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(source / name, place)
    return manifest


async def _restore(config: Config, url: str, source: Path) -> None:
    """One transaction: a database that is not empty stays as it was."""
    await _run(
        config,
        *("pg_restore", f"--dbname={url}", "--single-transaction", "--exit-on-error"),
        *("--no-owner", "--no-privileges", str(source / DUMP)),
    )


async def _run(config: Config, program: str, *words: str) -> None:
    """Run one of PostgreSQL's programs. BackupError with its last words."""
    ourselves = Account(os.geteuid(), os.getegid(), drop=False)
    folder = await postgres_binaries(ourselves, setting=config.database.binaries)
    found = folder / program if (folder / program).exists() else shutil.which(program)
    if found is None:
        raise BackupError(f"there is no {program} in {folder} nor in PATH; set database.binaries")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = await trio.run_process(
        [str(found), *words],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**environment, "LC_ALL": "C"},
    )
    if done.returncode:
        raise BackupError(f"{program}: {done.stderr.decode(errors='replace').strip()[-1_500:]}")


@contextmanager
def _hold(journals: Path) -> Iterator[None]:
    """While it lasts engines let nothing of their journals go. BackupError when another backup holds them."""
    hold = journals / HOLD_FILE
    try:
        os.close(os.open(hold, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise BackupError(f"another backup runs, or one was killed: then remove {hold} first") from error
    try:
        yield
    finally:
        hold.unlink(missing_ok=True)


def _copy_journals(root: Path, to: Path) -> int:
    """Snapshots before segments: what a snapshot says is in the journal must be in its copy. Files copied."""
    copied = 0
    for folder in sorted(root.glob("[0-9]*/[0-9]*")):
        if not folder.is_dir() or not folder.name.isdigit():
            continue
        place = to / folder.relative_to(root)
        place.mkdir(mode=0o700, parents=True)
        for suffix in (snapshot.SUFFIX, JOURNAL):
            for path in sorted(folder.glob(f"*{suffix}")):
                try:
                    _copy(path, place / path.name)
                except FileNotFoundError:
                    continue  # a snapshot that a newer one has replaced; segments are held
                copied += 1
    return copied


def _copy(path: Path, to: Path) -> None:
    """Copy and sync; readable by us alone."""
    with path.open("rb") as source:
        fd = os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(fd, "wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
            target.flush()
            os.fsync(target.fileno())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _kept(path: Path) -> Kept:
    with path.open("rb") as file:
        return Kept(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _checked(source: Path) -> Manifest:
    """The manifest of a backup whose files are as they were written. BackupError."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise BackupError(f"{source} is no backup: {error}") from error
    for name, kept in manifest.files.items():
        path = source / name
        if not path.resolve().is_relative_to(source.resolve()) or not path.is_file() or _kept(path) != kept:
            raise BackupError(f"{path} is not as it was written: this backup is damaged")
    return manifest
