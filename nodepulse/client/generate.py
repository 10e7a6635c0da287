"""``python -m nodepulse.client.generate``: writes `generated/` and the table of routes in docs/api.md.

For developers, after every change of a route or of what it takes and answers.

The description is made in this process from the routes themselves, so no server is needed. The only file of
this package that imports other parts of the product; ruff (a test tool) sets what it writes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.core.version import VERSION
from nodepulse.client.operations import api_source
from nodepulse.client.route_table import replaced
from nodepulse.client.schemas import types_source
from web import metrics, openapi
from web.app import RESOURCES

FOLDER = Path(__file__).with_name("generated")
PAGE = Path(__file__).parents[2] / "docs" / "api.md"
INIT = '"""What nodepulse/client/generate.py has written. Not to be edited."""\n'


def document() -> dict[str, Any]:
    """The description as `GET /openapi.json` answers it."""
    served = (*RESOURCES, *metrics.routes(metrics.Requests({})))
    return openapi.describe((*served, *openapi.routes(served, version=VERSION)), version=VERSION)


def sources(described: dict[str, Any]) -> dict[str, str]:
    """What each file of `generated/` must hold."""
    made = {"__init__.py": INIT, "types.py": types_source(described), "api.py": api_source(described)}
    return {name: _tidied(name, text) for name, text in made.items()}


def _tidied(name: str, text: str) -> str:
    """As ruff sets it, without imports that nothing uses. CalledProcessError for what is not Python."""
    for command in (("check", "--fix", "--select", "F401,I"), ("format",)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(FOLDER / name), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"{name} is not what ruff takes: {done.stdout[-2_000:]}{done.stderr}")
        text = done.stdout
    return text


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    described = document()
    for name, text in sources(described).items():
        _write(FOLDER / name, text)
    _write(PAGE, replaced(PAGE.read_text(), described))


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(f"{path.name} is new")


if __name__ == "__main__":
    main()
