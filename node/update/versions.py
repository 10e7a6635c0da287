"""SemVer 2.0.0: which of two versions comes first, as the server has it. Pure."""

from __future__ import annotations

import re

VERSION_CHARS_MAX = 128
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)

Precedence = tuple[tuple[int, int, int], tuple[int, ...], tuple[tuple[int, int, str], ...]]


def is_version(text: str) -> bool:
    return len(text) <= VERSION_CHARS_MAX and VERSION.fullmatch(text) is not None


def precedence(version: str) -> Precedence:
    """What versions are compared by; build metadata has no say. ValueError for none."""
    match = VERSION.fullmatch(version) if len(version) <= VERSION_CHARS_MAX else None
    if match is None:
        raise ValueError(f"not a version of SemVer 2.0.0: {version[:VERSION_CHARS_MAX]!r}")
    core = (int(match[1]), int(match[2]), int(match[3]))
    if match[4] is None:
        return core, (1,), ()
    parts = match[4].split(".")
    return core, (0,), tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
