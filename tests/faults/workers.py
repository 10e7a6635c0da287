"""Worker processes that are killed and started again, and receivers of webhooks that behave badly."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from storage.failpoint import VARIABLE

TOP = Path(__file__).parents[2]
# Quick to try again, and one delivery at a time, so that a kill in one step is no kill in another.
SETS = {
    "worker.webhook_allow_private": "true",
    "worker.poll_ms": "50",
    "worker.notifier_project_delay_s": "0",
    "worker.notifier_gather_s": "0",
    "worker.delivery_concurrency_max": "1",
    "worker.delivery_timeout_s": "1",
    "worker.delivery_lease_margin_s": "1",
}


class Workers:
    """Several `nodepulse worker` over the same stores; whoever dies is started again by `tend`."""

    def __init__(
        self, folder: Path, *, sets: dict[str, str], count: int, failpoint: str = "", flag: Path | None = None
    ) -> None:
        self.deaths: list[int] = []
        self._log = folder / "workers.log"
        self._command = [sys.executable, "-P", "-m", "nodepulse", "worker", "--data-dir", str(folder)]
        for key, value in (SETS | sets).items():
            self._command += ["--set", f"{key}={value}"]
        self._environment = {**os.environ, "PYTHONPATH": str(TOP)}
        if failpoint:
            self._environment[VARIABLE] = f"{failpoint}:{flag}"
        self._processes = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def tend(self) -> None:
        for number, process in enumerate(self._processes):
            if process.poll() is not None:
                self.deaths.append(process.returncode)
                self._processes[number] = self._start()

    def kill(self, number: int) -> None:
        """kill -9; `tend` starts it again."""
        self._processes[number].kill()
        self._processes[number].wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@contextmanager
def workers(folder: Path, **options: Any) -> Iterator[Workers]:
    (folder / "secrets.json").write_bytes(orjson.dumps({"1": "00" * 32}))
    (folder / "secrets.json").chmod(0o600)
    made = Workers(folder, **options)
    try:
        yield made
    finally:
        made.close()


class BadReceiver:
    """Answers each request with `status` after `wait_s`; keeps who was told what."""

    def __init__(self, *, status: int = 200, wait_s: float = 0.0, location: str = "") -> None:
        self.status, self.wait_s, self.location = status, wait_s, location
        self.told: list[tuple[str, tuple[str, ...]]] = []  # (webhook-id, ids of its events)
        self.url = ""

    @property
    def events(self) -> Counter[str]:
        """How many messages (told apart by webhook-id) had each event."""
        return Counter(event for _, events in dict(self.told).items() for event in events)

    @property
    def doubles(self) -> list[str]:
        """Ids of messages that came more than once."""
        return [one for one, count in Counter(one for one, _ in self.told).items() if count > 1]


@contextmanager
def receiving(receiver: BadReceiver) -> Iterator[BadReceiver]:
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            data = body["data"]
            events = data.get("events", [data])
            receiver.told.append((self.headers["webhook-id"], tuple(each["event_id"] for each in events)))
            closing.wait(receiver.wait_s)
            try:
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.send_header("content-length", "0")
                self.end_headers()
            except (BrokenPipeError, ConnectionResetError):
                return  # it was killed meanwhile

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def tended(made: Workers, look: Any, *, within_s: float) -> None:
    """Start whoever dies again until `look` is true."""
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline, made.log()[-3_000:]
        made.tend()
        time.sleep(0.05)


def all_of(found: Counter[str], wanted: Sequence[str]) -> bool:
    return set(wanted) <= set(found)
