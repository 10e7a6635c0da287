"""`bench NAME`: runs ``bench.NAME.main(as_json=..., quick=..., svg=...)``, which returns the exit code.

What is measured and how stands in `bench/`, one module per bench; a module with such a `main` is one.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import click

FOLDER = Path(__file__).parents[2] / "bench"


class _BenchName(click.Choice[str]):
    """The choices are looked up when they are asked for."""

    def __init__(self) -> None:
        super().__init__(names())


def names(folder: Path = FOLDER) -> list[str]:
    """The benches there are, found without importing any."""
    return [path.stem for path in sorted(folder.glob("[!_]*.py")) if _has_main(path)]


def _has_main(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


@click.command()
@click.argument("name", type=_BenchName())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.option("--quick", is_flag=True, help="Smaller and shorter: to see that it runs, not to quote.")
@click.option("--svg", type=click.Path(dir_okay=False), help="Also draw the curve into this file.")
def bench(*, name: str, as_json: bool, quick: bool, svg: str | None) -> None:
    """Measure a part of the product beside its peer or limit, in the same run."""
    code: int = importlib.import_module(f"bench.{name}").main(as_json=as_json, quick=quick, svg=svg)
    raise SystemExit(code)
