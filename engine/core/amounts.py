"""Amounts of points: decimal strings outside, integer micro-points inside; no float ever touches them."""

from __future__ import annotations

import re

MICRO = 1_000_000
MICRO_POINTS_MAX = 10**18 - 1  # of one row: below 10^12 points, which fits 64 bits
_POINTS = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,6}))?", re.ASCII)
_TOTAL = re.compile(r"(0|[1-9][0-9]{0,23})(?:\.([0-9]{1,6}))?", re.ASCII)


def micro_of_points(text: str) -> int:
    """Micro-points of a decimal string with at most 6 places, not negative. ValueError."""
    match = _POINTS.fullmatch(text)
    if match is None:
        raise ValueError("must be a decimal string with at most 6 places, from 0 to below 10^12")
    return int(match[1]) * MICRO + int((match[2] or "").ljust(6, "0"))


def micro_of_total(text: str) -> int:
    """As `micro_of_points`, for a sum of many: below 10^24 points. ValueError."""
    match = _TOTAL.fullmatch(text)
    if match is None:
        raise ValueError("must be a decimal string with at most 6 places, from 0 to below 10^24")
    return int(match[1]) * MICRO + int((match[2] or "").ljust(6, "0"))


def points_of_micro(micro: int) -> str:
    """The shortest decimal string of an amount; a negative one is a difference."""
    if micro < 0:
        return f"-{points_of_micro(-micro)}"
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
