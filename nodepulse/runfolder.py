"""The run folder of an installation: who serves it, and the configuration in effect.

``DIR/run`` holds the lock of the one `serve` that may use DIR, `config.json` (what the children were started
with: URLs of the stores, ports that were picked) and the records of the children (process.py). Mode 0700,
files 0600: URLs may hold passwords.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from nodepulse.config import Config
from nodepulse.process import write_private

CONFIG_FILE = "config.json"
LOCK_FILE = "serve.lock"
LOCK_LOOKS = 5
LOCK_PAUSE_S = 0.02


class InUseError(Exception):
    """Another living `serve` uses this data folder."""


class NotServingError(Exception):
    """Nothing serves this data folder, so its stores cannot be reached."""


def prepare(data_dir: Path) -> Path:
    """Make the data folder and its run folder when they are missing; the run folder. OSError."""
    run = data_dir / "run"
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    run.mkdir(mode=0o700, exist_ok=True)
    return run


@contextmanager
def hold_lock(run: Path) -> Iterator[None]:
    """Be the one `serve` of this folder. InUseError names the other. The kernel frees it however we end."""
    fd = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            _lock(fd)
        except BlockingIOError as error:
            pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            raise InUseError(
                f"{run.parent} is served already by process {pid}; stop it, or use another --data-dir"
            ) from error
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """BlockingIOError when another holds it: not only for the blink in which `is_served` looks."""
    for _ in range(LOCK_LOOKS - 1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_effective(run: Path, config: Config) -> Path:
    """Write what the children are started with; its path."""
    path = run / CONFIG_FILE
    write_private(path, msgspec.json.format(msgspec.json.encode(config)))
    return path


def read_effective(path: Path) -> Config:
    """The configuration that `serve` wrote. It was checked when it was made."""
    return msgspec.json.decode(path.read_bytes(), type=Config)


def effective_of(data_dir: Path) -> Config:
    """The configuration of the `serve` that runs on this folder. NotServingError when none does."""
    path = data_dir / "run" / CONFIG_FILE
    if not is_served(data_dir) or not path.exists():
        raise NotServingError(f"nothing serves {data_dir}; start it first: ./run serve --data-dir {data_dir}")
    return read_effective(path)


def is_served(data_dir: Path) -> bool:
    """Whether a living `serve` holds the folder's lock."""
    try:
        fd = os.open(data_dir / "run" / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
