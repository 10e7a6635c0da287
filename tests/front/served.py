"""A real `nodepulse serve` for tests that drive the product as a stranger would."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-P", "-m", "nodepulse"]
PATIENCE_S = 90.0  # of a busy machine; a healthy one takes a tenth


def until(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """What the condition returns once that is true."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s: {what}")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


class Served:
    """One serve on one data folder."""

    def __init__(self, folder: Path, *args: str, wait: bool = True) -> None:
        self.folder = folder
        self.log = folder.parent / f"{folder.name}.log"
        where = ["--data-dir", str(folder), "--web", "127.0.0.1:0", "--beats", "127.0.0.1:0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", *where, *args], stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> Served:
        try:
            until(self.is_ready, "ready")
        except AssertionError:
            self.end()
            raise AssertionError(f"never ready: {self.log.read_text()[-5000:]}") from None
        return self

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "run" / "config.json").read_text())

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        if not (self.folder / "run" / "config.json").exists():
            return False
        return self.get("/readyz")[0] == 200

    def get(self, path: str, key: str = "") -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.config['web']['port']}{path}")
        if key:
            request.add_header("authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def pid_of(self, child: str) -> int | None:
        """None while there is none: between the death of one and the start of the next."""
        try:
            return json.loads((self.folder / "run" / f"child-{child}.json").read_text())["pid"]
        except FileNotFoundError:
            return None

    def pids(self) -> dict[str, int]:
        """Everything that serve runs."""
        found = {
            path.stem: json.loads(path.read_text())["pid"] for path in self.folder.glob("run/child-*.json")
        }
        for name in ("postgres/postmaster.pid", "valkey/valkey.pid"):
            with contextlib.suppress(FileNotFoundError):
                found[name] = int((self.folder / name).read_text().split("\n")[0])
        return found

    def stop(self, within_s: float = 15.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def end(self) -> None:
        """For the end of a test, whatever became of it: what serve leaves ends by itself, or by its guard."""
        pids = self.pids().values()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        until(lambda: not any(alive(pid) for pid in pids), "everything of this serve has ended")


def nodepulse(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
