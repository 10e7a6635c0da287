"""What holds a notice back though its time has come: maintenance, a shard in doubt, quiet hours. Pure.

Gates concern notices, never records: the event is in the history all the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.core.newsroom import Facts, Recipient
from engine.core.records import Event
from worker.deciding.kinds import kind_of

DOUBT_MS = 30_000  # how often it is asked whether a shard is still DEGRADED
WINDOW_MS = 60_000  # how often it is asked whether a window is still open: it may be ended early
ZONES_MAX = 1_024


def opens_at(event: Event, recipient: Recipient, facts: Facts, degraded: dict[int, int]) -> int:
    """When this may be told here: `as_of_ms` for now; else it is to be judged again at that time."""
    at_ms = facts.as_of_ms
    if event.node_id is not None and event.shard in degraded:
        at_ms += DOUBT_MS
    for subject in (event.node_id, event.workload_id):
        if subject is not None:
            at_ms = max(at_ms, min(facts.windows.get(subject, at_ms), at_ms + WINDOW_MS))
    if not kind_of(event).urgent and (end_ms := quiet_until(at_ms, recipient)) is not None:
        at_ms = end_ms
    return at_ms


def quiet_until(at_ms: int, recipient: Recipient) -> int | None:
    """The end of the quiet hours that this moment is in, None outside of them. They may go over midnight."""
    if recipient.quiet_from is None or recipient.quiet_to is None:
        return None
    begins, ends = time.fromisoformat(recipient.quiet_from), time.fromisoformat(recipient.quiet_to)
    local = datetime.fromtimestamp(at_ms / 1000, _zone(recipient.time_zone))
    clock = local.time()
    over_midnight = begins > ends
    inside = (clock >= begins or clock < ends) if over_midnight else begins <= clock < ends
    if not inside:
        return None
    day = local.date() + timedelta(days=1) if over_midnight and clock >= begins else local.date()
    end = datetime.combine(day, ends, local.tzinfo)
    # When clocks are put back an hour comes twice: in the second one its end is the later of the two.
    end_ms = [int(end.replace(fold=fold).timestamp() * 1000) for fold in (0, 1)]
    return next((each for each in end_ms if each > at_ms), None)


@lru_cache(maxsize=ZONES_MAX)
def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return UTC  # was known when it was set; time zones are renamed now and then
