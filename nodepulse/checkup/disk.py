"""The data folder: room, the time a sync takes (every ACK waits for one), kind of file system, modes."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nodepulse.checkup.finding import Finding, Level, megabytes
from nodepulse.config import Config

SYNCS = 30
SYNC_BYTES = 16_384
SYNC_MS_NOTE = 20.0  # worst of SYNCS; above it ACKs wait noticeably
SYNC_MS_PROBLEM = 1_000.0  # above it every sync is a stall
FORGETFUL = ("tmpfs", "ramfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")


def disk_findings(config: Config) -> Iterator[Finding]:
    """Findings of the area `disk`."""
    existing = _existing(config.folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "disk", "data folder", "problem", f"{existing} cannot be written", "choose another --data-dir"
        )
        return
    yield _room(config, existing)
    yield _sync(existing)
    yield _kind(existing)
    yield _modes(config)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _room(config: Config, existing: Path) -> Finding:
    free = shutil.disk_usage(existing).free
    reserve, segment = config.journal.reserve_bytes, config.journal.segment_bytes_max
    found = f"{megabytes(free)} free at {existing}"
    if free < reserve:
        advice = f"below journal.reserve_bytes ({megabytes(reserve)}): every beat is answered BUSY"
        return Finding("disk", "room", "problem", found, advice)
    low = free < reserve + 16 * segment * config.engine.shards
    return Finding(
        "disk", "room", "note" if low else "ok", found, "room for few journal files" if low else ""
    )


def _sync(existing: Path) -> Finding:
    """Append and fdatasync as the journal does."""
    taken_ms: list[float] = []
    with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(SYNC_BYTES))
            os.fdatasync(file.fileno())
            taken_ms.append((time.perf_counter() - began) * 1000)
    median, worst = statistics.median(taken_ms), max(taken_ms)
    level: Level = "problem" if worst > SYNC_MS_PROBLEM else "note" if worst > SYNC_MS_NOTE else "ok"
    advice = "" if level == "ok" else "every ACK waits for a sync: put the data folder on a quicker disk"
    return Finding("disk", "sync", level, f"median {median:.1f} ms, worst of {SYNCS} {worst:.1f} ms", advice)


def _kind(existing: Path) -> Finding:
    kind = _file_system(existing)
    if kind in FORGETFUL:
        return Finding("disk", "file system", "problem", kind, "it forgets: ACKs promise durability")
    if kind in REMOTE:
        return Finding("disk", "file system", "note", kind, "remote: a lost network stops the journal")
    return Finding("disk", "file system", "ok", kind)


def _file_system(path: Path) -> str:
    table = Path("/proc/self/mounts")
    if not table.exists():
        return "unknown"
    found, longest = "unknown", -1
    for line in table.read_text().splitlines():
        _, mount, kind, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if path.resolve().is_relative_to(mount) and len(mount) > longest:
            found, longest = kind, len(mount)
    return found


def _modes(config: Config) -> Finding:
    open_to_others = [
        str(path)
        for path in (config.folder, config.secrets_file, config.folder / "run")
        if path.exists() and path.stat().st_mode & 0o077
    ]
    if open_to_others:
        found = f"others may look into {', '.join(open_to_others)}"
        return Finding(
            "disk", "modes", "problem", found, "chmod go= on them: whoever has the secrets is every node"
        )
    return Finding("disk", "modes", "ok", "nobody else may look into the data folder")
