"""What is installed on this machine, and what is known of releases: `DATA/versions/` and `DATA/updates.json`.

`versions/V/manager.zip` is a version's artefact, `versions/V/release` the text that was signed for it, and
`versions/current` a link to the one that has proved itself; no link: the program that was installed
otherwise. A link is replaced at once and only after a version has beaten here, so whatever dies when, a start
finds one that works. Commands, the manager and the trial use it side by side: every change is made under a
lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from node.config import write_whole
from node.update.release import Manifest, Release, UpdateError
from node.update.versions import is_version, precedence

ARCHIVE = "manager.zip"
FAILED_MAX = 32  # versions that failed here and are remembered; the oldest go first
TRIES_MAX = 3  # trials of a version while it is not certain whose fault it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A version that was tried and taken back. `certain`: it was its own fault, so it is not tried again."""

    why: str
    at_ms: int
    tries: int
    certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """`newest_ms`: when the newest release that was ever taken was published. `staged`: to be tried.

    `trying`: on trial right now. `base`: the version that was installed otherwise when the link was set; once
    that is another one, the newer of the two counts. `previous`: what ran before, kept to go back to.
    """

    newest_ms: int = 0
    staged: str = ""
    trying: str = ""
    base: str = ""
    previous: str = ""
    failed: dict[str, Failed] = field(default_factory=dict)


class Updates:
    """The two of one data folder."""

    def __init__(self, data_path: Path) -> None:
        self._data = data_path
        self._folder = data_path / "versions"
        self._file = data_path / "updates.json"
        self._link = self._folder / "current"

    # -- reading ------------------------------------------------------------------------------------

    def known(self) -> Known:
        """UpdateError when the file cannot be used."""
        try:
            value: dict[str, Any] = json.loads(self._file.read_bytes())
            failed = {name: Failed(**one) for name, one in value.pop("failed").items()}
            return Known(**value, failed=failed)
        except FileNotFoundError:
            return Known()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UpdateError(f"{self._file}: {error}; remove it to forget what was tried") from error

    def current(self) -> str | None:
        """The version that the link names; None: none."""
        try:
            name = self._link.readlink().name
        except OSError:
            return None
        return name if is_version(name) else None

    def chosen(self, base: str) -> str | None:
        """The version that a start should begin; None: the program that starts, whose version is `base`."""
        current = self.current()
        if current is None or not self.archive(current).is_file():
            return None
        if self.known().base != base and precedence(base) >= precedence(current):
            return None
        return current

    def archive(self, version: str) -> Path:
        return self._folder / version / ARCHIVE

    def must_be_whole(self, version: str, manifest: Manifest) -> None:
        """UpdateError when the archive on disk is not the one of this manifest."""
        try:
            data = self.archive(version).read_bytes()
        except OSError as error:
            raise UpdateError(f"{version}: {error}") from error
        if hashlib.sha256(data).hexdigest() != manifest.sha256:
            raise UpdateError(f"{version}: {self.archive(version)} is damaged")

    def release_text(self, version: str) -> str:
        """As it was signed. UpdateError."""
        try:
            return (self._folder / version / "release").read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UpdateError(f"{version}: {error}") from error

    # -- changing -----------------------------------------------------------------------------------

    def stage(self, release: Release, artefact: bytes) -> None:
        """Install beside what is there, to be tried next. UpdateError."""
        place = self._folder / release.version
        beside = self._folder / f".new-{release.version}"
        try:
            with self._changing() as known:
                if beside.exists():
                    shutil.rmtree(beside)
                beside.mkdir(parents=True, mode=0o700)
                write_whole(beside / ARCHIVE, artefact)
                write_whole(beside / "release", release.text.encode())
                if place.exists():
                    shutil.rmtree(place)
                beside.rename(place)
                _sync(self._folder)
                newest_ms = max(known.newest_ms, release.manifest.published_ms)
                self._write(replace(known, newest_ms=newest_ms, staged=release.version))
                self._clear_out()
        except OSError as error:
            raise UpdateError(f"{release.version} cannot be installed: {error}") from error

    def begin_trial(self, version: str) -> None:
        with self._changing() as known:
            self._write(replace(known, trying=version))

    def confirm(self, version: str, *, base: str, previous: str) -> None:
        """It has beaten: from now on it is what a start begins."""
        with self._changing() as known:
            failed = {name: one for name, one in known.failed.items() if name != version}
            beside = self._folder / ".current"
            beside.unlink(missing_ok=True)
            beside.symlink_to(version)
            beside.replace(self._link)
            _sync(self._folder)
            self._write(replace(known, staged="", trying="", base=base, previous=previous, failed=failed))
            self._clear_out()

    def end_trial(self) -> None:
        """Neither proved nor failed: it may be tried again."""
        with self._changing() as known:
            self._write(replace(known, trying=""))

    def fail(self, version: str, *, why: str, certain: bool, now_ms: int) -> Failed:
        """It is taken back. Not certain: tried again later, TRIES_MAX times in all."""
        with self._changing() as known:
            before = known.failed.get(version)
            tries = 1 if before is None else before.tries + 1
            now = Failed(why=why, at_ms=now_ms, tries=tries, certain=certain or tries >= TRIES_MAX)
            failed = {**{name: one for name, one in known.failed.items() if name != version}, version: now}
            kept = dict(list(failed.items())[-FAILED_MAX:])
            staged = "" if now.certain and known.staged == version else known.staged
            self._write(replace(known, trying="", staged=staged, failed=kept))
            self._clear_out()
        return now

    def blame(self, version: str) -> None:
        """What was before it beats, and it did not: the fault was its own."""
        with self._changing() as known:
            failed = known.failed.get(version)
            if failed is not None:
                sure = {**known.failed, version: replace(failed, certain=True)}
                staged = "" if known.staged == version else known.staged
                self._write(replace(known, failed=sure, staged=staged))

    def _clear_out(self) -> None:
        """What is neither current, nor before it, nor to be tried, is removed."""
        known = self.known()
        kept = {self.current(), known.previous, known.staged, known.trying, "current"}
        for place in self._folder.iterdir() if self._folder.is_dir() else ():
            if place.name not in kept and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)

    def _write(self, known: Known) -> None:
        write_whole(self._file, json.dumps(asdict(known)).encode())

    @contextmanager
    def _changing(self) -> Iterator[Known]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.known()


def _sync(folder: Path) -> None:
    """What was renamed in it stays so after a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
