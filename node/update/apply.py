"""`check` and `apply`: looking for an update and installing it, for commands and the task beside the manager.

Blocking. Whether the new version stays is decided by its first beats (trial.py); `wait_outcome` tells.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import socket
import time
import zipfile
from pathlib import Path
from typing import Literal

from node.config import NodeConfig
from node.update.release import Release, UpdateError
from node.update.rules import must_be_allowed
from node.update.source import fetch, published
from node.update.store import Updates
from node.version import VERSION

ANSWER_S = 5.0
LOOK_S = 0.2
Applied = Literal["on trial", "at the next start"]
Outcome = Literal["runs", "taken back", "undecided"]


def running_version(config: NodeConfig) -> str:
    """The version that runs on this machine, or would if it were started. UpdateError."""
    return Updates(config.data_path).chosen(VERSION) or VERSION


def check(config: NodeConfig, *, anyway: bool = False) -> Release | None:
    """The release that this machine should have and has not; None: there is none.

    anyway: an operator says so: an older one, one published before others that are known, or one that failed
    here, will do. UpdateError with the reason when there is one that must not be taken.
    """
    return judged(config, published(config), running_version(config), anyway=anyway)


def judged(config: NodeConfig, release: Release | None, running: str, *, anyway: bool) -> Release | None:
    """The release, if it is another one than runs and may be taken. UpdateError."""
    if release is None or release.version == running:
        return None
    must_be_allowed(release.manifest, running, Updates(config.data_path).known(), anyway=anyway)
    return release


def install(config: NodeConfig, release: Release) -> None:
    """Fetch it, check it, and put it beside what is there, to be tried next. UpdateError."""
    artefact, manifest = fetch(config, release), release.manifest
    if len(artefact) != manifest.size:
        raise UpdateError(f"{release.url}: {len(artefact)} bytes long instead of {manifest.size}")
    if hashlib.sha256(artefact).hexdigest() != manifest.sha256:
        raise UpdateError(f"{release.url}: its checksum is not that of the release")
    try:
        with zipfile.ZipFile(io.BytesIO(artefact)) as archive:
            archive.getinfo("__main__.py")
    except (zipfile.BadZipFile, KeyError) as error:
        raise UpdateError(f"{release.url}: not a manager") from error
    Updates(config.data_path).stage(release, artefact)


def apply(config: NodeConfig, release: Release) -> Applied:
    """Install what `check` has found, and have the running manager, if there is one, hand over to it.

    UpdateError. With no manager running it is tried by the next one, once that beats.
    """
    install(config, release)
    try:
        _post(config.socket_path, "/update")
    except (OSError, http.client.HTTPException):
        return "at the next start"
    return "on trial"


def wait_outcome(config: NodeConfig, version: str, *, timeout_s: float) -> tuple[Outcome, str]:
    """What came of a version that is on trial, and why it was taken back. UpdateError."""
    updates, until_s = Updates(config.data_path), time.monotonic() + timeout_s
    while True:
        known = updates.known()
        if updates.current() == version and not known.staged:
            return "runs", ""
        failed = known.failed.get(version)
        if failed is not None and known.trying != version and (failed.certain or time.monotonic() > until_s):
            return "taken back", failed.why
        if time.monotonic() > until_s:
            return "undecided", ""
        time.sleep(LOOK_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._path))


def _post(path: Path, where: str) -> None:
    connection = _UnixConnection(path)
    try:
        connection.request("POST", where)
        reply = connection.getresponse()
        if reply.status != 200:
            raise http.client.HTTPException(f"{where}: {reply.status}")
    finally:
        connection.close()


__all__ = [
    "Applied",
    "Outcome",
    "Release",
    "UpdateError",
    "apply",
    "check",
    "install",
    "judged",
    "running_version",
    "wait_outcome",
]
