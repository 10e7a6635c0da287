"""One workload's folder and the process that runs in it: what is written down, spawning, finding it again.

A shell writes its own number into the file `pid` and then becomes the workload, so that there is never a
process that nobody has written down; `record.json` says what it is. Who waits for it, and what follows its
end, is process.py's.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from node.config import write_whole
from node.drivers.pids import end_remains, has_in_environment, identity
from node.drivers.port import DriverError, ManifestError, Order
from node.drivers.process_manifest import ProcessManifest

RUN, WORKLOAD_ID = "NODEPULSE_RUN", "NODEPULSE_WORKLOAD_ID"
# $1: where to stand, $2: the file for our number; the rest is the command.
_SHELL = 'cd -- "$1" || exit 126; echo $$ > "$2" || exit 126; shift 2; exec "$@"'
# What Python ignores must not be ignored in what it starts.
_DEFAULTS = [number for name in ("SIGPIPE", "SIGXFSZ") if (number := getattr(signal, name, None)) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What `record.json` says. `who`: the process's identity, "" until it is known; `ended`: why no more."""

    order: Order
    run: str = ""
    who: str = ""
    ended: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs; it leads a session and a group of its own number."""

    pid: int
    who: str


class WorkloadFolder:
    """`FOLDER/{record.json, pid, stdout.log, stderr.log, work/}`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"
        self.logs = (path / "stdout.log", path / "stderr.log")
        self._record, self._pid = path / "record.json", path / "pid"

    def read(self) -> Record:
        """DriverError when there is no record or it cannot be read."""
        try:
            value = json.loads(self._record.read_bytes())
            return Record(**{**value, "order": Order(**value["order"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DriverError(f"{self._record}: {error}") from error

    def write(self, record: Record) -> None:
        """DriverError."""
        try:
            self.work.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._record, json.dumps(asdict(record)).encode())
        except OSError as error:
            raise DriverError(f"{self._record}: {error}") from error

    def directory(self, manifest: ProcessManifest) -> Path:
        """Where the command stands."""
        return self.work / manifest.cwd

    def spawn(self, manifest: ProcessManifest, environment: Mapping[str, str], *, run: str) -> Child:
        """Begin it in a session of its own. DriverError when the system refuses."""
        self._pid.unlink(missing_ok=True)
        opened = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            *((os.POSIX_SPAWN_OPEN, 1 + at, str(log), opened, 0o600) for at, log in enumerate(self.logs)),
        ]
        where = (str(self.directory(manifest)), str(self._pid))
        try:
            pid = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", _SHELL, "sh", *where, *manifest.command],
                {**environment, **manifest.env, RUN: run},
                file_actions=files,
                setsid=True,
                setsigmask=[],
                setsigdef=_DEFAULTS,
            )
        except (OSError, ValueError) as error:
            raise DriverError(f"it could not be begun: {error}") from error
        return Child(pid, identity(pid) or "")

    def find(self, record: Record) -> Child | None:
        """The process of this record, if it still runs. What a dead one has left behind is ended."""
        pid = self._written_pid()
        if pid is None:
            return None
        who = identity(pid)
        if who is not None and (record.who == who or has_in_environment(pid, f"{RUN}={record.run}")):
            return Child(pid, who)
        end_remains(pid)
        return None

    def find_unrecorded(self) -> Child | None:
        """The process that runs here though its record cannot be read."""
        pid = self._written_pid()
        who = None if pid is None else identity(pid)
        if pid is None or who is None or not has_in_environment(pid, f"{WORKLOAD_ID}={self.path.name}"):
            return None
        return Child(pid, who)

    def _written_pid(self) -> int | None:
        try:
            return int(self._pid.read_text())
        except (FileNotFoundError, ValueError):
            return None


def must_be_runnable(manifest: ProcessManifest, environment: Mapping[str, str]) -> None:
    """ManifestError when its program is not there: known before what runs now is ended for it."""
    path = {**environment, **manifest.env}.get("PATH", os.defpath)
    program = manifest.command[0]
    if "/" in program and not program.startswith("/"):
        return  # relative to where it will stand
    if shutil.which(program, path=path) is None:
        raise ManifestError(f"command: there is no program {program!r} here")


def new_run() -> str:
    return secrets.token_hex(16)
