"""A child process of ours as a servant, and the record by which a later start finds what is left of it.

A record (`run/child-NAME.json`) names pid, start time and boot: together they are one process and never a
later one that got the same number. All signals to remains go through a pidfd, so none hits a stranger.
Linux only; elsewhere children end with the pipe from their parent and nothing is looked for.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
import trio

from nodepulse.supervise import Death, StartFailedError
from nodepulse.systemd import environment_of_children

log = structlog.get_logger()
LISTENING_BYTES_MAX = 4_096  # of what a child says when it listens
KILL_S = 2.0  # how long the kernel gets to end a killed process


class Record(msgspec.Struct, frozen=True):
    """One child, as written to the run folder. `started_ticks` counts from boot."""

    name: str
    pid: int
    started_ticks: int
    boot_id: str


class Watcher(Protocol):
    """Who is told of what runs, to end it when nobody else can (guarding.py)."""

    def watch(self, pid: int) -> None: ...
    def forget(self, pid: int) -> None: ...


class ProcessServant:
    """Runs ``python -P -m nodepulse ARGS --parent-fd A --ready-fd B`` in a session of its own.

    (In the terminal's session Ctrl-C would reach everybody at once, and the order would be lost.)
    """

    def __init__(
        self,
        name: str,
        args: Sequence[str],
        *,
        run_folder: Path,
        parent_fd: int,
        pass_fds: Sequence[int] = (),
        guard: Watcher | None = None,
        program: Sequence[str] = (sys.executable, "-P", "-m", "nodepulse"),
    ) -> None:
        self.name = name
        self.process: trio.Process | None = None
        self._command = [*program, *args, "--parent-fd", str(parent_fd)]
        self._fds = (parent_fd, *pass_fds)
        self._record = run_folder / f"child-{name}.json"
        self._guard = guard
        self._ready: int | None = None
        self._said = b""

    async def start(self) -> None:
        """Spawn it and write its record. StartFailedError when the system refuses."""
        self._close_ready()
        self._said = b""
        self._ready, theirs = os.pipe()
        os.set_blocking(self._ready, False)
        try:
            with trio.CancelScope(shield=True):  # never a child that nobody knows of
                process = await trio.lowlevel.open_process(
                    [*self._command, "--ready-fd", str(theirs)],
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    pass_fds=(*self._fds, theirs),
                    env=environment_of_children(),
                    start_new_session=True,
                )
        except OSError as error:
            raise StartFailedError(f"cannot start {self.name}: {error}") from error
        finally:
            os.close(theirs)
        self.process = process
        if self._guard is not None:
            self._guard.watch(process.pid)
        ticks = started_ticks(process.pid)
        if ticks is not None:
            record = Record(self.name, process.pid, ticks, boot_id())
            write_private(self._record, msgspec.json.encode(record))

    async def wait(self) -> Death:
        assert self.process is not None, "not started"
        code = await self.process.wait()
        self._forget(self.process.pid)
        return death_of(code)

    @property
    def has_listened(self) -> bool:
        return bool(self.listening)

    @property
    def listening(self) -> str:
        """What the child said when it listened; empty before."""
        if self._ready is not None and not self._said:
            try:
                self._said = os.read(self._ready, LISTENING_BYTES_MAX)
            except BlockingIOError:
                return ""
        return self._said.decode(errors="replace").strip()

    async def stop(self, *, within_s: float) -> bool:
        if self.process is None:
            return True
        asked = self.process.poll() is None
        if asked:
            self.process.terminate()
        with trio.move_on_after(within_s):
            await self.process.wait()
        if self.process.returncode is None:
            log.error("child.killed", child=self.name, why=f"did not stop within {within_s:g} s")
            self.process.kill()
            await self.process.wait()
        self._forget(self.process.pid)
        self._close_ready()
        code = await self.process.wait()
        return not asked or ended_in_order(code)

    def _forget(self, pid: int) -> None:
        self._record.unlink(missing_ok=True)
        if self._guard is not None:
            self._guard.forget(pid)

    def _close_ready(self) -> None:
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None


async def clear_remains(run_folder: Path, *, patience_s: float) -> list[str]:
    """End what a killed serve left running in this folder; the names. In order first, then by force."""
    found = _find_remains(run_folder)
    async with trio.open_nursery() as nursery:
        for record, pidfd in found:
            nursery.start_soon(_end, record, pidfd, patience_s)
    return [record.name for record, _ in found]


def _find_remains(run_folder: Path) -> list[tuple[Record, int]]:
    found: list[tuple[Record, int]] = []
    for path in sorted(run_folder.glob("child-*.json")):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except msgspec.DecodeError as error:
            log.warning("remains.unreadable", file=str(path), why=str(error))
        else:
            pidfd = _open_same(record)
            if pidfd is not None:
                found.append((record, pidfd))
        path.unlink()
    return found


async def _end(record: Record, pidfd: int, patience_s: float) -> None:
    try:
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, KILL_S)):
            log.warning("remains.ending", child=record.name, left_pid=record.pid, signal=number.name)
            _send(pidfd, number)
            with trio.move_on_after(wait_s):
                await trio.lowlevel.wait_readable(pidfd)  # readable = it has ended
                return
    finally:
        os.close(pidfd)
    raise StartFailedError(f"{record.name} of an earlier start (pid {record.pid}) cannot be ended")


def _open_same(record: Record) -> int | None:
    """A pidfd of the recorded process, None when it has ended. The check comes after the opening: no race."""
    if record.boot_id != boot_id():
        return None
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    if started_ticks(record.pid) != record.started_ticks or _has_ended(pidfd):
        os.close(pidfd)
        return None
    return pidfd


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))  # a zombie has ended, too


def _send(pidfd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return  # ended meanwhile: what was wanted


def death_of(code: int) -> Death:
    """How a process ended, by its return code."""
    how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return Death(how, by_force=code == -signal.SIGKILL)


def ended_in_order(code: int) -> bool:
    """0, or our SIGTERM: one that was asked before it had taken its signals dies of that."""
    return code in (0, -signal.SIGTERM)


def started_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None when there is none (or no /proc)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner only."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
