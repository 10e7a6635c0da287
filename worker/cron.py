"""Cron expressions in UTC, as due times in unix milliseconds (cronsim; five fields, Debian's semantics)."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from engine.core.schedule import DueTimes


def due_times(expression: str) -> DueTimes:
    """When the expression is due. ValueError when it is none."""
    if len(expression.split()) != 5:  # cronsim also knows seconds; nothing here is looked at that often
        raise ValueError(f"{expression!r} is no cron expression: it must have five fields")
    if next(_at(expression, 0), None) is None:
        raise ValueError(f"{expression!r} never comes")
    return DueTimes(
        after=lambda ms: _ms(next(_at(expression, ms))),
        # cronsim looks back from before the moment it is given; a moment that is due itself counts here.
        until=lambda ms: _ms(next(_at(expression, ms - ms % 60_000 + 60_000, reverse=True))),
    )


def _at(expression: str, ms: int, *, reverse: bool = False) -> CronSim:
    try:
        return CronSim(expression, datetime.fromtimestamp(ms / 1000, UTC), reverse=reverse)
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from error


def _ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000
