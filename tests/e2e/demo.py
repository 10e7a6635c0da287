"""`nodepulse demo` as a process of its own: the links it prints, and people who sign in by them over HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from nodepulse.demo_installation import seconds_ahead
from tests.e2e.api import Api
from tests.e2e.system import NODEPULSE, TOP, eventually

UP_S = 90.0  # a cold start on shared cores
END_S = 40.0
PEOPLE = {"olga": "Olga Brandt", "petra": "Petra Olsen", "ada": "Ada Stone"}


class Demo:
    """A demonstration that runs. `ready_at`: when it had printed its links (monotonic)."""

    def __init__(self, folder: Path, *words: str) -> None:
        now_s = time.time()
        # The day that ends while it runs, or at the latest while it starts.
        self.day = str(datetime.fromtimestamp(now_s + seconds_ahead(now_s), UTC).date())
        self._out = folder / "demo.txt"
        self._folder = folder
        # Its passing folder lies in ours, where one sees whether it is left behind.
        self.environment = {**os.environ, "PYTHONPATH": str(TOP), "TMPDIR": str(folder)}
        command = (*NODEPULSE, "demo", "--data-dir", str(folder / "none"), *words)
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
            )
        eventually(self._is_up, within_s=UP_S, why=self.said)
        self.ready_at = time.monotonic()
        self.links = {
            short: re.search(rf"{name} .*\n +(http\S+)", self.said())[1] for short, name in PEOPLE.items()
        }
        where = urlsplit(self.links["ada"])
        self.url = f"{where.scheme}://{where.netloc}"
        self.host, self.port = where.hostname, where.port
        self._tokens: dict[str, str] = {}

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.said()
        return "Ctrl-C ends it" in self.said()

    def said(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def passing_folder(self) -> Path:
        """Where its installation lives."""
        [found] = self._folder.glob("nodepulse-demo-*")
        return found

    def left_behind(self) -> list[Path]:
        return list(self._folder.glob("nodepulse-demo-*"))

    def api(self, who: str) -> Api:
        """The API as this person, who signs in by their link, its token put in by hand."""
        if who not in self._tokens:
            body = urlencode({"token": self.links[who].partition("#token=")[2]}).encode()
            headers = {"content-type": "application/x-www-form-urlencoded", "origin": self.url}
            answer = Api(self.host, self.port).request("POST", "/sign-in/token", body=body, headers=headers)
            assert answer.status == 303, answer
            self._tokens[who] = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
        return Api(self.host, self.port, key=self._tokens[who])

    def token(self, who: str) -> str:
        """What stands in the cookie of this person's browser."""
        self.api(who)
        return self._tokens[who]

    def page(self, who: str, path: str) -> str:
        """What this person's browser gets."""
        headers = {"cookie": f"nodepulse_login={self.token(who)}", "accept": "text/html"}
        answer = Api(self.host, self.port).request("GET", path, headers=headers)
        assert answer.status == 200, (path, answer)
        return answer.body.decode()

    def end(self) -> int:
        """As Ctrl-C does; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(END_S)


@contextmanager
def demonstrated(folder: Path, *words: str) -> Iterator[Demo]:
    demo = Demo(folder, *words)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.end()
