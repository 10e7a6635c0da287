"""What commands print: a table for people, one JSON object for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import orjson
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Command = Callable[..., Any]


def json_option(command: Command) -> Command:
    """Add --json; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def print_json(value: Any) -> None:
    """One line, the last of what a command prints, however long and however the stream is buffered."""
    left = orjson.dumps(value) + b"\n"
    stream = sys.stdout.buffer
    while left:
        # Under PYTHONUNBUFFERED the stream is the bare file, which may take less than it was given.
        taken = stream.write(left)
        left = left[taken:]
    stream.flush()


def show(value: dict[str, Any], *, as_json: bool) -> None:
    """One thing: a JSON object, or its fields one per line."""
    if as_json:
        print_json(value)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, inner in value.items():
        table.add_row(f"[bold]{name}[/]", _cell(inner))
    _print(table)


def print_ids(rows: Sequence[dict[str, Any]]) -> None:
    """The first field of each, one a line."""
    for row in rows:
        click.echo(next(iter(row.values())))


def show_all(name: str, rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Many things of one kind: ``{name: [...]}``, or a table of their fields."""
    if as_json:
        print_json({name: rows})
        return
    if not rows:
        click.echo(f"no {name}")
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _print(table)


def _print(table: Table) -> None:
    """As wide as it is: an id that is broken in the middle cannot be copied."""
    console = Console(highlight=False)
    needed = Measurement.get(console, console.options.update(width=10_000), table).maximum
    Console(width=max(needed, console.width), highlight=False).print(table)


def _cell(value: Any) -> str | Text:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return Text("\n".join(map(str, value)) or "-")
    if isinstance(value, dict):
        return Text(orjson.dumps(value).decode())
    return Text(str(value))  # not markup: a name may hold brackets
