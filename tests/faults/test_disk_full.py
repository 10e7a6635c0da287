"""A full disk (LIVENESS.md 3, WIRE.md rule 3 of the server): BUSY instead of ACKs that would be a lie.

Promises kept: below the reserve nothing is taken any more and the system says that it is not ready; it
resumes by itself when there is room again; the time in between is a gap with cause disk_full, so nobody is
punished; and nothing that was acknowledged is lost. The data folder lies on a small file system of its own.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from np1.codec import Code
from tests.e2e.api import now_ms
from tests.e2e.load import Load
from tests.e2e.system import System, eventually, new_folder, running
from tests.faults.promise import check_acknowledged

TTL_MS = 1_500
MIB = 1024 * 1024
DISK_MIB = 400
RESERVE_MIB = 64
RESUMES_S = 20.0


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system."""
    place = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=755", "nodepulse-test", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def system(disk: Path) -> Iterator[System]:
    sets = {"journal.segment_bytes_max": MIB, "journal.reserve_bytes": RESERVE_MIB * MIB}
    with running(System(new_folder(disk), sets=sets)) as started:
        yield started


class Filler:
    """A file that takes the room of others."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def leave(self, free_bytes: int) -> None:
        """Grow until no more than that is free."""
        with self._path.open("ab") as file:
            while (spare := free_of(self._path.parent) - free_bytes) > 0:
                try:
                    # Others take and give back room meanwhile: in steps, so that the last ones fit.
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), min(spare, MIB))
                except OSError as error:
                    if error.errno == ENOSPC:
                        return
                    raise

    def stuff(self, file: Path) -> None:
        """Fill a file's last page, so that not one byte more can be appended to it."""
        with file.open("ab", buffering=0) as opened:
            try:
                while opened.write(b"\n"):
                    continue
            except OSError as error:
                if error.errno != ENOSPC:
                    raise

    def go(self) -> None:
        self._path.unlink(missing_ok=True)


def free_of(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@pytest.fixture
def filler(disk: Path) -> Iterator[Filler]:
    made = Filler(disk)
    yield made
    made.go()


def codes_since(load: Load, from_ms: int) -> set[Code]:
    acks = load.acks()
    return {Code(code) for code in acks["code"][acks["t_ms"] >= from_ms].tolist()}


def run_full(system: System, filler: Filler, slug: str, *, leave_bytes: int, seconds: float) -> None:
    made = system.provision(slug, nodes=20, workloads=3)
    api = system.api_for(made["api_key"])
    load = Load(system, made["nodes"], per_s=200)
    load.open_sessions()
    load.start()
    eventually(lambda: len(set(load.credited()["node"].tolist())) == 20, within_s=10, why=load.figures)
    filler.leave(leave_bytes)
    if not leave_bytes:
        filler.stuff(system.log_file)  # nobody may die of a line that cannot be written
    eventually(lambda: Code.BUSY in load.figures().answered, within_s=10, why=load.figures)
    full_ms = now_ms() + 200
    time.sleep(seconds)
    assert codes_since(load, full_ms) == {Code.BUSY}
    assert system.engine().try_status("/readyz") == 503
    assert system.api.try_status("/readyz") != 200
    filler.go()
    room_ms = now_ms()
    eventually(lambda: codes_since(load, room_ms) & {Code.OK, Code.EARLY}, within_s=RESUMES_S, why=system.log)
    system.wait_ready(within_s=RESUMES_S)
    time.sleep(0.5)
    load.stop()
    until_ms = int(load.credited()["t_ms"].max()) + TTL_MS
    time.sleep(max(0.0, (until_ms - now_ms()) / 1000))
    check_acknowledged(api, load, to_ms=until_ms)
    answer = api.uptime(load.nodes[0]["workloads"][0])
    assert "disk_full" in {gap["cause"] for gap in answer.raw["gaps"]}
    # What the last beat before had vouched for is over well before the room came back.
    assert answer.ms["unobserved"] > 1000 * seconds - TTL_MS - 1_000
    assert [one for one in api.events(slug) if one["kind"].startswith("node.")] == []


def test_below_the_reserve_beats_are_busy_until_there_is_room_again(system, filler):
    run_full(system, filler, "disk-reserve", leave_bytes=RESERVE_MIB * MIB // 2, seconds=4)


def test_full_to_the_last_byte_beats_are_busy_until_there_is_room_again(system, filler):
    run_full(system, filler, "disk-full", leave_bytes=0, seconds=6)
