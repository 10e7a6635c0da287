"""The trial of a new manager: the old one has become this, and begins the new one as its child.

The child says through a pipe that a beat of its own was credited, and makes room; then this process becomes
the new manager for good, so that its number, which a service manager watches, stays. A child that ends, says
nothing in time or is killed is taken back: this process becomes the old manager again. If this process itself
dies, the child dies with it (Linux), the link is as it was, and the next start finds the trial unfinished.
Workloads belong to neither.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from node.update.command import Begun, Launch, become
from node.update.release import UpdateError
from node.update.store import Updates

log = logging.getLogger(__name__)
LOOK_S = 0.1
LEAVE_S = 15.0  # how long a new manager that has beaten gets to make room
STOP_S = 120.0  # how long one that was told to stop gets to end its workloads
BEATEN = b"beaten"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from node.update.trial import main; main(sys.argv[2])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`version`: the new one; `running`: the one before. `launch`: how that was begun, as a dictionary."""

    data_path: str
    version: str
    running: str
    within_s: float
    launch: Mapping[str, Any]

    def command(self) -> list[str]:
        """What the old manager hands over to: this very code, wherever it was loaded from."""
        root = str(Path(__file__).parents[2])
        return [sys.executable, "-P", "-c", _MAIN, root, json.dumps(asdict(self))]


def main(text: str) -> None:
    """Never returns."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    trial = Trial(**json.loads(text))
    become(*_Watch(trial).run())


class _Watch:
    """One trial."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._updates = Updates(Path(trial.data_path))
        self._launch = Launch(**trial.launch)
        self._stopping: signal.Signals | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        self._beaten = False

    def run(self) -> Begun:
        """The command to become. Exits when the machine's manager was told to stop meanwhile."""
        trial = self._trial
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _adopt_orphans(on=True)
        try:
            self._updates.begin_trial(trial.version)
            why, certain = self._try()
            if self._stopping is not None and not self._beaten:
                self._leave()
            if why:
                failed = self._updates.fail(
                    trial.version, why=why, certain=certain, now_ms=time.time_ns() // 1_000_000
                )
                log.error("the manager %s is taken back: %s", trial.version, why)
                log.error("it is tried again" if not failed.certain else "it is not tried again")
            else:
                self._updates.confirm(trial.version, base=self._launch.base, previous=trial.running)
                log.info("the manager %s has beaten and stays", trial.version)
        except (OSError, UpdateError) as error:
            log.error("the trial of %s: %s", trial.version, error)
            why = str(error)
            self._kill()
        _adopt_orphans(on=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if why:
            return self._launch.own(self._updates)
        stays = replace(self._launch, trial=None, stop=self._stopping is not None)
        return stays.command(self._updates, trial.version)

    def _try(self) -> tuple[str, bool]:
        """Why it failed and whether that is certain to be its fault; "" for the former when it has beaten."""
        trial = self._trial
        theirs, ours = os.pipe()[::-1]
        log.info("the manager %s is on trial for %g s", trial.version, trial.within_s)
        try:
            tried = replace(self._launch, trial=theirs)
            command, besides = tried.command(self._updates, trial.version)
            self._child = subprocess.Popen(
                command, env={**os.environ, **besides}, pass_fds=[theirs], preexec_fn=_die_with_parent
            )
        finally:
            os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as pipe:
            self._beaten = self._listen(pipe.fileno())
        if self._beaten:
            if not self._ends_within(LEAVE_S):
                log.warning("it did not make room by itself")
            self._kill()
            return "", True
        if self._stopping is not None:
            self._ends_within(STOP_S)
            return "", True
        if self._ended():
            return f"it ended {_told(self._code)} before it had beaten", True
        self._kill()
        return f"no beat of it was credited within {trial.within_s:g} s", False

    def _listen(self, pipe: int) -> bool:
        """Whether it says in time that it has beaten."""
        until_s = time.monotonic() + self._trial.within_s
        heard = b""
        while time.monotonic() < until_s and self._stopping is None:
            readable, _, _ = select.select([pipe], [], [], LOOK_S)
            if readable:
                data = os.read(pipe, 64)
                heard += data
                if heard.startswith(BEATEN):
                    return True
                if not data:  # it has ended, or closed its side without a word
                    self._ends_within(max(until_s - time.monotonic(), 0))
                    return False
            self._ended()
        return False

    def _ended(self) -> bool:
        """Whether the child has ended. Workloads of the old one are our children, too: reaped."""
        while self._code is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._code = -1
                break
            if pid == 0:
                break
            if self._child is not None and pid == self._child.pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    def _ends_within(self, seconds: float) -> bool:
        until_s = time.monotonic() + seconds
        while not self._ended() and time.monotonic() < until_s:
            time.sleep(LOOK_S)
        return self._code is not None

    def _kill(self) -> None:
        """As a loss of power would: what it has not handed in is in files."""
        if self._child is not None and not self._ended():
            os.kill(self._child.pid, signal.SIGKILL)
            self._ends_within(LEAVE_S)

    def _forward(self, number: int, _frame: object) -> None:
        self._stopping = signal.Signals(number)
        if self._child is not None and self._code is None:
            os.kill(self._child.pid, number)

    def _leave(self) -> None:
        """The machine's manager was told to stop: the child has done it."""
        if not self._ended():
            log.error("the manager on trial did not stop; workloads may run on")
            self._kill()
        self._updates.end_trial()
        raise SystemExit(0 if self._code == 0 else 1)


def _told(code: int | None) -> str:
    return f"with code {code}" if code is None or code >= 0 else f"by signal {-code}"


def _die_with_parent() -> None:
    """Between fork and exec of the child. What is not Linux goes without."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _adopt_orphans(*, on: bool) -> None:
    """Workloads that the child began become ours when it ends, so that their ends are seen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on))
