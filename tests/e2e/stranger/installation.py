"""One running installation, driven by `./run` alone, as its manual for programs outside says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.stranger.party import Door, now_ms

ROOT = Path(__file__).resolve().parents[3]
READY_S = 90.0


def free_port() -> int:
    """A port free for TCP and UDP at this moment."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return int(port)


class Installation:
    """`serve` on one data folder."""

    def __init__(self, folder: Path, *, every_address: bool = False, **sets: Any) -> None:
        self.folder, self.sets, self._every_address = folder, sets, every_address
        self.web = Door(f"127.0.0.1:{free_port()}")
        self.beats = Door(f"127.0.0.1:{free_port()}")

    def start(self) -> None:
        sets = [part for key, value in self.sets.items() for part in ("--set", f"{key}={value}")]
        ends = ["--web", self.web.address, "--beats", self.beats.address]
        if self._every_address:
            ends = [end.replace("127.0.0.1", "0.0.0.0") for end in ends]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [ROOT / "run", "serve", "--data-dir", self.folder, *ends, *sets], stdout=log, stderr=log
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until `GET /readyz` answers 200."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "serve.log").read_text()[-4000:]
            with contextlib.suppress(OSError):
                if self.web.ask("GET", "/readyz").status == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("never ready")

    def stop(self) -> tuple[int, float]:
        """SIGTERM; exit code and seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40), time.monotonic() - began

    def admin(self, *words: Any) -> Any:
        """One `admin` command; its JSON object."""
        asked = [ROOT / "run", "admin", *map(str, words), "--data-dir", self.folder, "--json"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def provision(self, project: str, nodes: int, workloads: int, interval_ms: int) -> dict[str, Any]:
        words = ("--project", project, "--nodes", nodes, "--workloads", workloads)
        return self.admin("provision", *words, "--interval-ms", interval_ms)

    def engine_pids(self) -> list[int]:
        """Engine processes below our own `serve`, found by their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"nodepulse" in words and b"engine" in words and self._is_ours(int(entry.name)):
                    found.append(int(entry.name))
        return found

    def _beats_answer(self) -> bool:
        with contextlib.suppress(OSError):
            return self.beats.ask("POST", "/v1/beats", b"").status == 400
        return False

    def _is_ours(self, pid: int) -> bool:
        while pid > 1:
            if pid == self.process.pid:
                return True
            pid = _parent(pid)
        return False

    def kill_engine(self) -> None:
        """`kill -9` of every engine; back when another one answers on the beats port."""
        before = self.engine_pids()
        assert before
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        self._wait_for_others(before)

    def kill_engine_until(self, dead_until_ms: int, *, engines: list[int]) -> int:
        """The same, at once, and no engine listens before then; when they were surely dead (unix ms).

        Who starts engines again is held up meanwhile.
        """
        starters = {_parent(pid) for pid in engines}
        assert starters
        try:
            for pid in starters:
                os.kill(pid, signal.SIGSTOP)
            for pid in engines:
                os.kill(pid, signal.SIGKILL)
            killed_ms = now_ms()
            time.sleep(max(0, dead_until_ms - now_ms()) / 1_000)
        finally:
            for pid in starters:
                os.kill(pid, signal.SIGCONT)
        self._wait_for_others(engines)
        return killed_ms

    def _wait_for_others(self, before: list[int]) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            after = self.engine_pids()
            if after and not set(after) & set(before) and self._beats_answer():
                return
            time.sleep(0.05)
        raise AssertionError("the engine never came back")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@contextlib.contextmanager
def running(folder: Path, *, every_address: bool = False, **sets: Any) -> Iterator[Installation]:
    """Started, and stopped at the end whatever happened; `sets` are configuration keys."""
    made = Installation(folder, every_address=every_address, **sets)
    try:
        made.start()
        yield made
    finally:
        if made.process.poll() is None:
            made.stop()
