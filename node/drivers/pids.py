"""Processes by number, told apart from later ones that got the same number; and how they are ended.

A pid alone names nobody for long. With its start time and the boot it does: that is `identity`. Linux reads
/proc and waits on a pidfd; elsewhere `ps` is asked and waiting is looking every half second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import trio

_PROC = Path("/proc")
LOOK_S = 0.5
KILL_S = 5.0  # how long the kernel gets to end what was killed


def identity(pid: int) -> str | None:
    """Who has this number now, as a text that no other process ever has; None: nobody, or only a zombie."""
    fields = _stat(pid)
    if fields is not None:
        return None if fields[0] in "ZX" else f"{_boot_id()}:{fields[19]}"
    return _identity_by_ps(pid) if not (_PROC / "self").exists() else None


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: [0] state, [2] group, [3] session, [19] start time."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _identity_by_ps(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def has_in_environment(pid: int, word: str) -> bool:
    """Whether a process was begun with this `NAME=value`. False where that cannot be known."""
    try:
        return word.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def members_of_session(session: int) -> list[int]:
    """The processes that still live in a session; empty where that cannot be known."""
    if not (_PROC / "self").exists():
        return []
    found = []
    for pid in (int(path.name) for path in _PROC.iterdir() if path.name.isdigit()):
        fields = _stat(pid)
        if fields is not None and fields[0] not in "ZX" and int(fields[3]) == session:
            found.append(pid)
    return found


async def wait_ended(pid: int, who: str) -> int | None:
    """Return when this process has ended, with its exit code (negative: a signal), None if not our child.

    What it leaves behind in its group and session is ended too.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux; an old kernel; it has ended already
        while identity(pid) == who:  # noqa: ASYNC110 - there is nothing to wait for
            await trio.sleep(LOOK_S)
    else:
        try:
            if identity(pid) == who:
                await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
    return reap(pid)


def reap(pid: int) -> int | None:
    """The exit code of a child of ours that has ended; what is left of its session is ended."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        end_remains(pid)
        return None
    if found is None:
        return None
    # Until it is reaped its number, and with that its group's, can be nobody else's.
    _signal_group(pid, signal.SIGKILL)
    end_remains(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def end_group(pid: int, who: str, *, timeout_s: float) -> None:
    """SIGTERM to the group that this process leads, SIGKILL to what is left of it; return when it is gone."""
    if identity(pid) == who:
        _signal_group(pid, signal.SIGTERM)
        _signal_group(pid, signal.SIGCONT)  # a stopped process takes no SIGTERM
        with trio.move_on_after(timeout_s):
            await wait_ended(pid, who)
    if identity(pid) == who:
        _signal_group(pid, signal.SIGKILL)
        with trio.move_on_after(KILL_S):
            await wait_ended(pid, who)
    reap(pid)


def end_remains(leader: int) -> None:
    """SIGKILL to what a dead leader has left behind in its session."""
    if identity(leader) is not None:
        return  # the number is somebody else's by now, so the session was empty
    for pid in members_of_session(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended; only zombies are left
        os.killpg(pid, number)
