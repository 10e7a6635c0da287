"""RFC 3339 times and UTC days, as text and as unix milliseconds.

Strict both ways: what is written has exactly three decimals and a `Z`; what is read must be a full date and
time with an offset. No clock is read here.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def parse_rfc3339(text: str) -> int:
    """Unix milliseconds of an RFC 3339 time; digits beyond milliseconds are cut off. ValueError.

    A leap second (:60) is refused: unix time has no place for it.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time such as 2026-01-31T23:59:59.999Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    offset = timedelta(0)
    if match[8] is not None:
        hours, minutes = int(match[9]), int(match[10])
        if hours > 23 or minutes > 59:
            raise ValueError("not an RFC 3339 time: the offset is out of range")
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if match[8] == "-" else 1)
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
    except ValueError as error:
        raise ValueError(f"not an RFC 3339 time: {error}") from error
    milliseconds = int(((match[7] or "") + "000")[:3])
    return (whole - _EPOCH) // _MS + milliseconds


TIME_MS_MAX = parse_rfc3339("9999-12-31T00:00:00Z")  # what is written must have four digits of year


def format_rfc3339(unix_ms: int) -> str:
    """``2026-01-31T23:59:59.999Z``; times outside the years 1 to 9999 are a bug of the caller."""
    moment = _EPOCH + timedelta(milliseconds=unix_ms)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_day(text: str) -> int:
    """Unix milliseconds of the beginning of a UTC day ``YYYY-MM-DD``. ValueError."""
    if _DAY.fullmatch(text) is None:
        raise ValueError("not a day such as 2026-01-31")
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"not a day: {error}") from error
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) // _MS
