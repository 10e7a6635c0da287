"""Children as real processes: the two pipes, escalation, records, and what a killed parent left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from nodepulse.process import ProcessServant, Record, boot_id, clear_remains, started_ticks
from nodepulse.supervise import Death, StartFailedError

OBEDIENT = """
import argparse, os, select, signal, sys
parser = argparse.ArgumentParser()
for name in ("--parent-fd", "--ready-fd"): parser.add_argument(name, type=int)
parser.add_argument("--ignore-term", action="store_true")
given = parser.parse_args()
wake, woken = os.pipe()
signal.signal(signal.SIGTERM, signal.SIG_IGN if given.ignore_term else lambda *_: os.write(woken, b"x"))
os.write(given.ready_fd, b"127.0.0.1:1\\n")
os.close(given.ready_fd)
select.select([wake, given.parent_fd], [], [])
"""


@pytest.fixture
def pipe():
    read, write = os.pipe()
    ends = {read, write}
    yield read, write, ends
    for end in ends:
        os.close(end)


def servant(folder: Path, parent_fd: int, *args: str, program: str = OBEDIENT) -> ProcessServant:
    return ProcessServant(
        "child", args, run_folder=folder, parent_fd=parent_fd, program=(sys.executable, "-c", program)
    )


async def until_listening(child: ProcessServant) -> None:
    with trio.fail_after(20):
        while not child.has_listened:  # noqa: ASYNC110 - a pipe that nobody watches
            await trio.sleep(0.01)


async def test_a_child_listens_has_a_record_and_stops_in_order(tmp_path, pipe):
    child = servant(tmp_path, pipe[0])
    await child.start()
    await until_listening(child)
    assert child.listening == "127.0.0.1:1"
    record = msgspec.json.decode((tmp_path / "child-child.json").read_bytes(), type=Record)
    assert record == Record("child", child.process.pid, started_ticks(child.process.pid), boot_id())
    assert (tmp_path / "child-child.json").stat().st_mode & 0o777 == 0o600
    assert await child.stop(within_s=10)
    assert list(tmp_path.iterdir()) == []


async def test_a_child_that_will_not_stop_is_killed_and_that_is_told(tmp_path, pipe):
    child = servant(tmp_path, pipe[0], "--ignore-term")
    await child.start()
    await until_listening(child)
    assert not await child.stop(within_s=0.2)
    assert child.process.returncode == -signal.SIGKILL


async def test_a_child_that_is_stopped_before_it_took_its_signals_stopped_in_order(tmp_path, pipe):
    child = servant(tmp_path, pipe[0], program="import time; time.sleep(60)")
    await child.start()
    assert await child.stop(within_s=10)


async def test_a_child_that_fails_while_it_stops_did_not_stop_in_order(tmp_path, pipe):
    child = servant(tmp_path, pipe[0], program=OBEDIENT + "\nsys.exit(3)")
    await child.start()
    await until_listening(child)
    assert not await child.stop(within_s=10)


async def test_how_a_child_ended_is_told_in_words(tmp_path, pipe):
    child = servant(tmp_path, pipe[0], program="raise SystemExit(7)")
    await child.start()
    assert await child.wait() == Death("exit code 7", by_force=False)
    assert not child.has_listened
    killed = servant(tmp_path, pipe[0])
    await killed.start()
    killed.process.kill()
    assert await killed.wait() == Death("killed by SIGKILL", by_force=True)


async def test_a_program_that_does_not_exist_is_a_failed_start(tmp_path, pipe):
    child = ProcessServant("x", [], run_folder=tmp_path, parent_fd=pipe[0], program=("/does/not/exist",))
    with pytest.raises(StartFailedError, match="cannot start x"):
        await child.start()


async def test_a_child_ends_by_itself_when_the_other_end_of_its_pipe_is_gone(tmp_path, pipe):
    read, write, ends = pipe
    child = servant(tmp_path, read)
    await child.start()
    await until_listening(child)
    os.close(write)
    ends.remove(write)
    with trio.fail_after(10):
        assert await child.wait() == Death("exit code 0", by_force=False)


@pytest.fixture
def leave_behind(tmp_path, pipe):
    """Start a process such as a killed serve leaves behind: running, recorded, watched by nobody."""
    started: list[subprocess.Popen[bytes]] = []

    def leave(*args: str, ticks: int = 0) -> subprocess.Popen[bytes]:
        listens, theirs = os.pipe()
        command = [sys.executable, "-c", OBEDIENT, *args]
        command += ["--parent-fd", str(pipe[0]), "--ready-fd", str(theirs)]
        left = subprocess.Popen(command, pass_fds=(pipe[0], theirs))
        started.append(left)
        os.read(listens, 1)  # it has written its line: its signals are set
        os.close(listens)
        os.close(theirs)
        record = Record("left", left.pid, ticks or started_ticks(left.pid), boot_id())
        (tmp_path / "child-left.json").write_bytes(msgspec.json.encode(record))
        return left

    yield leave
    for left in started:
        left.kill()
        left.wait()


async def test_what_a_killed_serve_left_is_asked_to_stop(tmp_path, leave_behind):
    left = leave_behind()
    assert await clear_remains(tmp_path, patience_s=10) == ["left"]
    assert left.wait() in (0, -signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


async def test_what_will_not_stop_is_killed(tmp_path, leave_behind):
    left = leave_behind("--ignore-term")
    await clear_remains(tmp_path, patience_s=0.2)
    assert left.wait() == -signal.SIGKILL


async def test_a_process_that_was_started_later_under_the_same_number_is_left_alone(tmp_path, leave_behind):
    stranger = leave_behind(ticks=1)
    assert await clear_remains(tmp_path, patience_s=0.2) == []
    assert stranger.poll() is None


async def test_a_record_of_another_boot_is_forgotten(tmp_path):
    record = Record("left", os.getpid(), started_ticks(os.getpid()), "another-boot")
    (tmp_path / "child-left.json").write_bytes(msgspec.json.encode(record))
    assert await clear_remains(tmp_path, patience_s=0.2) == []
    assert list(tmp_path.iterdir()) == []


async def test_a_record_that_cannot_be_read_hinders_no_start(tmp_path):
    (tmp_path / "child-left.json").write_text("{")
    assert await clear_remains(tmp_path, patience_s=0.2) == []
