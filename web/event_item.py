"""One event as it is served: the same item in the list (events.py) and in the stream (stream.py)."""

from __future__ import annotations

import msgspec

from engine.core.records import Event
from web.times import format_rfc3339


class EventAnswer(msgspec.Struct, frozen=True):
    """One event. `since`: when what it tells began; `at`: when it was decided."""

    event_id: str
    kind: str
    node_id: str | None
    workload_id: str | None
    since: str
    at: str
    workloads: list[str]
    detail: str
    cursor: str


def answer_of(cursor: int, event: Event) -> EventAnswer:
    return EventAnswer(
        event_id=event.event_id,
        kind=event.kind,
        node_id=event.node_id,
        workload_id=event.workload_id,
        since=format_rfc3339(event.since_ms),
        at=format_rfc3339(event.at_ms),
        workloads=list(event.workloads),
        detail=event.detail,
        cursor=str(cursor),
    )
