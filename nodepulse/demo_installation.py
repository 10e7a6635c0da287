"""The passing installation of a demonstration: a whole `serve` in a folder of its own, whose day ends soon.

It is stopped in order when the demonstration ends, and its folder goes with it. What happens in it is
demo_story.py's.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import trio

from nodepulse.config import Config
from nodepulse.readiness import is_ready
from nodepulse.runfolder import effective_of

START_S = 60.0
STOP_S = 20.0
DAY_S = 86_400
DAY_ENDS_S = 40  # after the start of the processes: time for a fall and a return on either side of it


def seconds_ahead(now_s: float) -> int:
    """How far ahead the clock must run for midnight (UTC) to come in DAY_ENDS_S; never back."""
    return int((-now_s - DAY_ENDS_S) % DAY_S)


@contextmanager
def passing_installation(say: Callable[[str], None]) -> Iterator[Config]:
    """Its configuration, once it is ready. ClickException when it does not come up."""
    folder = Path(tempfile.mkdtemp(prefix="nodepulse-demo-"))
    say(f"starting a passing installation in {folder}")
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "nodepulse", "serve", *_options(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo; serve is stopped in order afterwards
        )
    try:
        yield _wait_ready(server, folder)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOP_S)
        if code == 0:
            shutil.rmtree(folder)
        else:
            say(f"serve ended with {code}; its log: {folder}/serve.log")


def _options(folder: Path) -> list[str]:
    sets = {
        "clock_ahead_s": seconds_ahead(time.time()),
        "worker.seal_after_s": 1,
        # Notices go to this process, at once.
        "worker.webhook_allow_private": "true",
        "worker.notifier_project_delay_s": 0,
        "worker.publish.evm.to": "0x" + "de" * 20,  # transactions are prepared and never sent
    }
    where = ["--data-dir", str(folder), "--web", "127.0.0.1:0", "--beats", "127.0.0.1:0"]
    return [*where, *(word for key, value in sets.items() for word in ("--set", f"{key}={value}"))]


def _wait_ready(server: subprocess.Popen[bytes], folder: Path) -> Config:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        if (folder / "run" / "config.json").exists():
            config = effective_of(folder)
            if trio.run(is_ready, config.web.host, config.web.port):
                return config
        time.sleep(0.1)
    raise click.ClickException(f"the passing serve did not come up; its log: {folder}/serve.log")
