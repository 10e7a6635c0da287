"""One line of the doctor's table."""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """What was looked at, what was found, and what to do. Only a `problem` fails the command."""

    area: str  # kernel | clock | disk | versions | ports | stores
    what: str
    level: Level
    found: str
    advice: str = ""


def megabytes(count: int) -> str:
    return f"{count / 1024**2:,.1f} MiB"
