"""Windows of whole UTC days as queries give them: `day`, or from `from` to before `to`; none: all of them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, NamedTuple

from quart import request

from web.problems import bad_parameter
from web.routing import Parameter
from web.times import parse_day

DAY_SCHEMA: dict[str, Any] = {"type": "string", "format": "date"}
DAYS = (
    Parameter(name="day", description="Only this UTC day", schema=DAY_SCHEMA),
    Parameter(name="from", description="The first day", schema=DAY_SCHEMA),
    Parameter(name="to", description="The day after the last one", schema=DAY_SCHEMA),
)


class Days(NamedTuple):
    """[from_day, to_day); None: without an end."""

    from_day: str | None
    to_day: str | None


def day_text(text: str) -> str:
    """A day, as it stands. ValueError."""
    parse_day(text)
    return text


def day_parameter(name: str) -> str | None:
    """A day from the query. RefusedError 400."""
    text = request.args.get(name)
    try:
        return None if text is None else day_text(text)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from error


def days_of_query() -> Days:
    """RefusedError 400."""
    day, first, last = (day_parameter(name) for name in ("day", "from", "to"))
    if day is None:
        if first is not None and last is not None and first >= last:
            raise bad_parameter("from", "must be earlier than to")
        return Days(first, last)
    if first is not None or last is not None:
        raise bad_parameter("day", "stands for itself: give either day, or from and to")
    if day == date.max.isoformat():
        return Days(day, None)
    return Days(day, (date.fromisoformat(day) + timedelta(days=1)).isoformat())
