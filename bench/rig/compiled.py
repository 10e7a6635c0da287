"""Peers in C, compiled on the spot when there is a compiler; where there is none a bench says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
_FOLDER = Path(__file__).parent


def compiled(name: str, into: Path) -> Path | None:
    """The program made from NAME.c beside this file, in the folder `into`; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = into / name
    subprocess.run([compiler, *_FLAGS, "-o", str(program), str(_FOLDER / f"{name}.c"), "-lm"], check=True)
    return program
