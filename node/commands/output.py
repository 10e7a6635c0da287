"""What commands print: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """One object on one line, as other programs read it."""
    print(json.dumps(value, ensure_ascii=False))


def show(value: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing: a field per line."""
    if as_json:
        print_json(value)
        return
    width = max(map(len, value), default=0)
    for name, inner in value.items():
        print(f"{name.replace('_', ' '):<{width}}  {cell(inner)}")


def show_rows(rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Many things of one kind as a table; `empty`: what is said when there are none."""
    if not rows:
        print(empty)
        return
    names = list(rows[0])
    lines = [[name.replace("_", " ").upper() for name in names]]
    lines += [[cell(row[name]) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """A value as people read it. What could move a terminal's cursor is not printed as it is."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value)) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(inner)}" for name, inner in value.items()) or "-"
    return printable(str(value))


def printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
