"""What a bench prints: tables for people while it runs, and at the end one JSON line for programs.

The line is `{"bench", "machine", "versions", "figures", "peers", "ratios"}`. With `--json` it is all that
goes to stdout. Every figure's name ends in its unit; ratios have none.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.rig.machine import load, machine, versions


class Report:
    """One run of one bench."""

    def __init__(self, bench: str, *, as_json: bool, quick: bool, svg: str | None = None) -> None:
        self.bench = bench
        self.quick = quick
        self._svg = svg
        out = sys.stderr if as_json else sys.stdout
        # A log or a pipe has no width of its own: tables are not to be folded there.
        self._console = Console(file=out, highlight=False, width=None if out.isatty() else 150)
        self._machine = machine()
        self._versions = versions()
        self.figures: dict[str, Any] = {}
        self.peers: dict[str, Any] = {}
        self.ratios: dict[str, Any] = {}
        self.notes: list[str] = []
        self._console.print(
            f"[bold]bench {bench}[/bold]{' (quick: to see that it runs)' if quick else ''} on "
            f"{self._machine['cpus']} x {self._machine['cpu']}, {self._machine['system']}, "
            f"load {' '.join(map(str, self._machine['load_at_start']))}"
        )

    def say(self, text: str) -> None:
        """Something a reader of the tables should know; not in the JSON line."""
        self._console.print(text)

    def note(self, text: str) -> None:
        """Something that whoever quotes a figure must know; in the JSON line too."""
        self.notes.append(text)
        self._console.print(f"[yellow]note:[/yellow] {text}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers are set to the right and rounded to what they are worth."""
        self._console.print(f"\n[bold]{title}[/bold] [dim](load {load()[0]})[/dim]")
        table = Table()
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*(told(value) for value in row))
        self._console.print(table)

    def svg_path(self) -> Path:
        """Where the curve goes: as asked, or a file in the temp folder. The reader is told."""
        if self._svg:
            path = Path(self._svg)
        else:
            path = Path(tempfile.gettempdir()) / f"nodepulse-bench-{self.bench}.svg"
        self.figures["svg"] = str(path)
        self.say(f"curve: {path}")
        return path

    def finish(self) -> int:
        """Print the JSON line; the exit code."""
        self._machine["load_at_end"] = load()
        self.figures["quick"] = self.quick
        if self.notes:
            self.figures["notes"] = self.notes
        if self.ratios:
            self.table("ratios", ("name", "value"), list(self.ratios.items()))
        whole = {
            "bench": self.bench,
            "machine": self._machine,
            "versions": self._versions,
            "figures": self.figures,
            "peers": self.peers,
            "ratios": self.ratios,
        }
        print(json.dumps(whole), flush=True)
        return 0


def told(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rounded(values: Any) -> Any:
    """Figures as the JSON line carries them: four digits that count, in whatever they are nested."""
    if isinstance(values, dict):
        return {str(key): rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.4g}")
    return values
