"""The node's commands for tests: each call is a process of its own, as from a shell."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from node.commands.main import main
from tests.e2e.machine import free_port
from tests.e2e.system import TOP, all_pids, environment_of, signal_to

COMMANDS = (sys.executable, "-P", "-m", "node.commands")
MARK = "COMMANDS_OF"
ANSWER_S = 60.0


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """A person at one machine: a home, a configuration file and a data folder of their own.

    `close` ends everything that was begun from here.
    """

    def __init__(self, folder: Path, *, command: Sequence[str] = COMMANDS, **environment: str) -> None:
        self.folder, self.command = folder, command
        self.config, self.data = folder / "etc" / "node.json", folder / "data"
        self.mark = f"{MARK}={folder}"
        own = {
            name: text for name, text in os.environ.items() if not name.startswith(("NODE_", "NODEPULSE_"))
        }
        places = {"HOME": str(folder), "NODEPULSE_NODE_CONFIG": str(self.config), MARK: str(folder)}
        self.environment = {**own, "PYTHONPATH": str(TOP), **places, **environment}

    def __call__(self, *words: str, stdin: str = "", **environment: str) -> Ended:
        done = subprocess.run(
            [*self.command, *words],
            input=stdin,
            env={**self.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_S,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def quick(self, *words: str, stdin: str = "") -> Ended:
        """The same in this process, for what needs none of its own; not for `start`, which leaves a child."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment, clear=True),
            patch("sys.stdin", io.StringIO(stdin)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                code = main(words)
            except SystemExit as error:
                code = int(error.code or 0)
        return Ended(code, out.getvalue(), err.getvalue())

    def fine(self, *words: str, stdin: str = "") -> Any:
        """The JSON of a command that must succeed."""
        ask = self if words[0] == "start" else self.quick
        done = ask(*words, "--json", stdin=stdin)
        assert done.code == 0, done
        return done.json

    def init(self, web_url: str) -> str:
        """The public key. The manager gets a port of its own."""
        public_key: str = self.fine("init", "--web-url", web_url, "--data-dir", str(self.data))["public_key"]
        self.fine("config", "set", "health_port", str(free_port()))
        return public_key

    def processes(self) -> list[int]:
        return [pid for pid in all_pids() if self.mark.encode() in environment_of(pid)]

    def log(self) -> str:
        return (self.data / "manager.log").read_text(errors="replace")

    def close(self) -> None:
        for pid in self.processes():
            signal_to(pid, signal.SIGKILL)
