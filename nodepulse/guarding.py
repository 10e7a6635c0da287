"""The guard (guard.py) as a servant: whoever starts a process tells it here.

It is the first to start and the last to stop. A guard that died is started again and told everything anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from nodepulse.process import death_of, ended_in_order
from nodepulse.supervise import Death, StartFailedError

SCRIPT = Path(__file__).with_name("guard.py")


class Guard:
    """Holds the guard's standard input: when this process is gone, however it went, the input ends."""

    name = "guard"
    has_listened = True

    def __init__(self) -> None:
        self.process: trio.Process | None = None
        self._input: int | None = None
        self._told: dict[int, bytes] = {}  # by pid; bounded by what runs: `forget` takes them out

    def watch(self, pid: int) -> None:
        """A child that stops by itself when we are gone."""
        self._tell(pid, f"wait {pid}\n")

    def watch_store(self, pid: int, steps: Sequence[tuple[signal.Signals, float]]) -> None:
        """A server that must be stopped, by these (signal, seconds of patience)."""
        words = " ".join(f"{number.name}:{seconds}" for number, seconds in steps)
        self._tell(pid, f"stop {pid} {words}\n")

    def forget(self, pid: int) -> None:
        """It has ended."""
        self._told.pop(pid, None)

    async def start(self) -> None:
        self._close()
        theirs, self._input = os.pipe()
        try:
            with trio.CancelScope(shield=True):
                self.process = await trio.lowlevel.open_process(
                    # Isolated and without site: it starts in no time and depends on nothing of ours.
                    [sys.executable, "-I", "-S", str(SCRIPT)],
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError as error:
            raise StartFailedError(f"cannot start the guard: {error}") from error
        finally:
            os.close(theirs)
        for line in self._told.values():
            self._write(line)

    async def wait(self) -> Death:
        assert self.process is not None, "not started"
        return death_of(await self.process.wait())

    async def stop(self, *, within_s: float) -> bool:
        if self.process is None:
            return True
        # Before its input ends: it would take that for our death.
        self.process.terminate()
        with trio.move_on_after(within_s):
            await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
        code = await self.process.wait()
        self._close()
        return ended_in_order(code)

    def _tell(self, pid: int, line: str) -> None:
        self._told[pid] = line.encode()
        self._write(line.encode())

    def _write(self, line: bytes) -> None:
        if self._input is not None:
            try:
                os.write(self._input, line)
            except BrokenPipeError:
                return  # it has died: the next one is told everything

    def _close(self) -> None:
        if self._input is not None:
            os.close(self._input)
            self._input = None
